"""Stages: directories that clients copy files to and jobs mount."""

from __future__ import annotations
