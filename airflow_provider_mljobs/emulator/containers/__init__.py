"""One container of one instance of a job as a local process."""

from __future__ import annotations
