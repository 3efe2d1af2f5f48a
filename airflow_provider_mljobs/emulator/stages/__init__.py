"""Stages: a stage is a directory that clients copy to and jobs mount."""

from __future__ import annotations
