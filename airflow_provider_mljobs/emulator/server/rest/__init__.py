"""Snowflake's REST API for objects, below ``/api/v2``: each request becomes a SQL statement of the session."""
