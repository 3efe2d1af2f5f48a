"""Logs of jobs: how far they are read, and their text."""
