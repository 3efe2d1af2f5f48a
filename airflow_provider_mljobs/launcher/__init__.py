"""The program that runs in the container: package ``mljob_launcher`` in the payload's archive.

The container has another Python and other packages than the worker. So the launcher doesn't import the provider, and
needs the standard library only; it imports Snowpark, numpy, pyarrow or cloudpickle where a payload needs them. Its
environment (``MLRS_…``) and its result (``output/mljob_result``) are those of ``snowflake.ml.jobs``, so that
Snowflake's own client reads our jobs.
"""
