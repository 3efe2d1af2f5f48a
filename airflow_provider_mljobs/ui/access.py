"""Who may see and do what on the page, in the words of Airflow's auth managers."""

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

# What the page shows of a DAG is made of these.
_SHOWN = (DagAccessEntity.TASK_INSTANCE, DagAccessEntity.XCOM)


def readable(session: Session, user: BaseUser, dag_ids: Collection[str]) -> set[str]:
    """Return those of some DAGs that a user may read, with their task instances and XComs."""
    manager = get_auth_manager()
    found = manager.get_authorized_dag_ids(user=user, method="GET", session=session) & set(dag_ids)
    if not found:
        return found
    teams = DagModel.get_dag_id_to_team_name_mapping(list(found), session=session)
    requests = {dag_id: list(_requests("GET", dag_id, teams.get(dag_id), _SHOWN)) for dag_id in found}
    # One question for all of them is enough for most users.
    if manager.batch_is_authorized_dag([request for each in requests.values() for request in each], user=user):
        return found
    return {dag_id for dag_id, each in requests.items() if manager.batch_is_authorized_dag(each, user=user)}


def may_edit(user: BaseUser, dag_id: str) -> bool:
    """Tell whether a user may edit the task instances of a DAG: then they may cancel and drop its jobs."""
    team = DagModel.get_team_name(dag_id)
    requests = list(_requests("PUT", dag_id, team, (DagAccessEntity.TASK_INSTANCE,)))
    return get_auth_manager().batch_is_authorized_dag(requests, user=user)


def may_clean_up(user: BaseUser) -> bool:
    """Tell whether a user may collect what jobs have left: edit all DAGs, their task instances and all connections.

    None of them is named: to auth managers that means all.
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
