"""Watches any number of jobs on two sessions: one for their states, one for their logs."""
