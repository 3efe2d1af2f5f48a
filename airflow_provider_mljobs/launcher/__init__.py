"""Runs inside the container: a package of its own in the payload's archive.

It can't import the provider: the container has another Python and other packages, so it needs the standard library
only, and Snowpark, pip or cloudpickle only where the payload does. What it reads and writes is the contract of ML jobs
(environment ``MLRS_*``, ``output/mljob_result``), so that Snowflake's own client understands our jobs.
"""
