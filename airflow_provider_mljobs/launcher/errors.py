"""What the launcher says when it can't start a payload."""

from __future__ import annotations


class LauncherError(Exception):
    """Raised when the payload can't be started in this container."""
