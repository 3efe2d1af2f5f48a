"""The launcher's own error."""

from __future__ import annotations


class LauncherError(Exception):
    """Raised when the payload can't be started in this container."""
