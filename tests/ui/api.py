"""Airflow's own API app with the page, in this process, and users with different permissions."""

from contextlib import contextmanager
from functools import cache

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

# Who is no role of Airflow's simple auth manager: a user who may edit one DAG, one who may see no XComs.
OF_ONE_DAG, WITHOUT_XCOMS = "of-recommender", "without-xcoms"
ONE_DAG = "recommender"
_ROLES = {OF_ONE_DAG: "USER", WITHOUT_XCOMS: "USER"}


class AuthManager(SimpleAuthManager):
    """Airflow's simple auth manager, extended by two users with permissions on single DAGs."""

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None):
        """Whether a user is allowed a method on one DAG or on all."""
        if user.username == OF_ONE_DAG and (details is None or details.id != ONE_DAG):
            return False
        if user.username == WITHOUT_XCOMS and access_entity is DagAccessEntity.XCOM:
            return False
        return super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)


class Visitor:
    """A user of the API.

    :param name: a role of the simple auth manager, or one of the users above; ``None`` for an anonymous user.
    """

    def __init__(self, name):
        from airflow.api_fastapi.app import get_auth_manager
        from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
        from starlette.testclient import TestClient

        self._client = TestClient(_app())
        if name is not None:
            user = SimpleAuthManagerUser(username=name, role=_ROLES.get(name, name.upper()))
            token = get_auth_manager().generate_jwt(user)
            self._client.headers["Authorization"] = f"Bearer {token}"

    def get(self, path, **params):
        """Send a GET to the page's API."""
        return self._client.get(f"/mljobs/api/{path}", params=params)

    def post(self, path, **body):
        """Send a POST to the page's API."""
        return self._client.post(f"/mljobs/api/{path}", json=body)

    def request(self, method, path, **options):
        """Send any request."""
        return self._client.request(method, path, **options)


@cache
def _app():
    from airflow.api_fastapi.app import create_app

    return create_app(apps="core")


@contextmanager
def served(monkeypatch):
    """Serve the API; yields a function that returns the :class:`Visitor` of a name."""
    from airflow.api_fastapi.app import purge_cached_app

    from tests.lab import _database

    _database()
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", f"{AuthManager.__module__}.{AuthManager.__name__}")
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "a secret of the tests " * 3)
    _app()
    yield cache(Visitor)
    purge_cached_app()
    _app.cache_clear()


@contextmanager
def seeded(monkeypatch, directory, jobs, **options):
    """Fill a database of Airflow with jobs; yields a function that opens a session."""
    from airflow import settings
    from airflow.models import import_all_models
    from airflow.models.base import Base
    from sqlalchemy import create_engine
    from sqlalchemy.orm import scoped_session, sessionmaker

    from tests.lab import _database
    from tests.ui.seeds import fill

    # Made once for all tests, and so not while Airflow uses another one.
    _database()
    engine = create_engine(f"sqlite:///{directory / 'airflow.db'}", connect_args={"check_same_thread": False})
    import_all_models()
    Base.metadata.create_all(engine)
    sessions = sessionmaker(engine, autoflush=False, expire_on_commit=False)
    monkeypatch.setattr(settings, "NonScopedSession", sessions)
    monkeypatch.setattr(settings, "Session", scoped_session(sessions))
    with sessions() as session:
        fill(session, jobs, **options)
    yield sessions
    engine.dispose()
