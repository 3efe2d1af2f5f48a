"""Links of a task instance: its job in Snowsight, the dashboard of its Ray cluster, its tab in Airflow.

Airflow computes them in the task's process, when the task is deferred and when it ends, and stores them as XComs.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

from airflow_provider_mljobs.task.settings import base_path
from airflow_provider_mljobs.task.xcoms import DASHBOARD, JOB_XCOM, PROGRESS_XCOM, pull_page_xcom, push_page_xcom

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

logger = logging.getLogger(__name__)


class _JobLink(BaseOperatorLink):
    """A link that is empty on errors: Airflow would log them as the task's."""

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or an empty string."""
        try:
            return self._address(operator, ti_key)
        except Exception:  # a link must not fail its task
            logger.debug("Could not compute the link %r.", self.name, exc_info=True)
            return ""

    @abstractmethod
    def _address(self, operator: BaseOperator, ti_key: TaskInstanceKey) -> str: ...


class SnowsightLink(_JobLink):
    """The job's page in Snowsight."""

    name = "Snowsight job"

    def _address(self, operator: BaseOperator, ti_key: TaskInstanceKey) -> str:
        return str(getattr(operator, "snowsight", "") or pull_page_xcom(ti_key, JOB_XCOM).get("snowsight") or "")


class RayDashboardLink(_JobLink):
    """The Ray dashboard of a job of several instances, while it runs."""

    name = "Ray dashboard"

    def _address(self, operator: BaseOperator, ti_key: TaskInstanceKey) -> str:
        # The trigger writes this link as soon as the dashboard is up. The process that deferred the task may write it
        # later, and must not clear it. After the end the dashboard is gone.
        is_waiting = getattr(ti_key, "state", None) == "deferred"
        has_cluster = getattr(operator, "target_instances", 1) > 1
        return dashboard(pull_page_xcom(ti_key, PROGRESS_XCOM)) if is_waiting and has_cluster else ""


class MLJobLink(_JobLink):
    """The tab "ML Job" of the task instance."""

    name = "ML job"

    def _address(self, operator: BaseOperator, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 (as for the others)
        parts = ["dags", ti_key.dag_id, "runs", ti_key.run_id, "tasks", ti_key.task_id]
        if ti_key.map_index >= 0:
            parts += ["mapped", str(ti_key.map_index)]
        return "/".join([base_path(), *(quote(part, safe="") for part in [*parts, "plugin", "mljob"])])


def show(operator: BaseOperator, ti: Any) -> None:
    """Write the links of a task that waits in its worker: Airflow writes them only at the end."""
    for link in operator.operator_extra_links:
        push_page_xcom(ti, link.xcom_key, link.get_link(operator, ti_key=ti))


def dashboard(watched: Mapping[str, Any]) -> str:
    """Return the address of a running job's Ray dashboard; empty without one."""
    return str(watched.get("endpoints", {}).get(DASHBOARD, ""))
