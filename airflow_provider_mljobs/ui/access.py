"""Authorization of the page, by Airflow's auth manager."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.models.dag import DagModel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
    from airflow.api_fastapi.auth.managers.models.batch_apis import IsAuthorizedDagRequest
    from sqlalchemy.orm import Session

# The page shows these of a DAG.
_ENTITIES = (DagAccessEntity.TASK_INSTANCE, DagAccessEntity.XCOM)


def readable(session: Session, user: BaseUser, dag_ids: Collection[str]) -> set[str]:
    """Return the DAGs whose task instances and XComs a user may read."""
    manager = get_auth_manager()
    allowed = manager.get_authorized_dag_ids(user=user, method="GET", session=session) & set(dag_ids)
    if not allowed:
        return allowed
    teams = DagModel.get_dag_id_to_team_name_mapping(list(allowed), session=session)
    requests = {dag_id: list(_requests("GET", dag_id, teams.get(dag_id), _ENTITIES)) for dag_id in allowed}
    # For most users one request covers all DAGs.
    if manager.batch_is_authorized_dag([request for each in requests.values() for request in each], user=user):
        return allowed
    return {dag_id for dag_id, each in requests.items() if manager.batch_is_authorized_dag(each, user=user)}


def may_edit(user: BaseUser, dag_id: str) -> bool:
    """Whether a user may cancel and drop the jobs of a DAG: by the right to edit its task instances."""
    team = DagModel.get_team_name(dag_id)
    requests = list(_requests("PUT", dag_id, team, (DagAccessEntity.TASK_INSTANCE,)))
    return get_auth_manager().batch_is_authorized_dag(requests, user=user)


def may_clean_up(user: BaseUser) -> bool:
    """Whether a user may clean up: by the right to edit all DAGs, their task instances and all connections.

    A request that names no DAG or connection asks for all of them.
    """
    manager = get_auth_manager()
    return (
        manager.is_authorized_dag(method="PUT", user=user)
        and manager.is_authorized_dag(method="PUT", access_entity=DagAccessEntity.TASK_INSTANCE, user=user)
        and manager.is_authorized_connection(method="PUT", user=user)
    )


def _requests(
    method: ResourceMethod, dag_id: str, team: str | None, entities: Iterable[DagAccessEntity]
) -> Iterable[IsAuthorizedDagRequest]:
    for entity in entities:
        yield {"method": method, "access_entity": entity, "details": DagDetails(id=dag_id, team_name=team)}
