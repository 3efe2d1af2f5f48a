"""The page's connection to Snowflake, with short timeouts: a user waits for the response."""

from __future__ import annotations

from typing import Any

from airflow_provider_mljobs.hooks import MLJobHook
from airflow_provider_mljobs.task.query_tags import role_tag

_LOGIN_SECONDS = 20
_STATEMENT_SECONDS = 60


class PageHook(MLJobHook):
    """A hook with short timeouts; the page sends only short statements."""

    def __init__(self, snowflake_conn_id: str) -> None:
        super().__init__(snowflake_conn_id, query_tag=role_tag("ui"))

    def _get_conn_params(self) -> dict[str, Any]:
        limits = {"login_timeout": _LOGIN_SECONDS, "network_timeout": _STATEMENT_SECONDS}
        return {**super()._get_conn_params(), **limits}
