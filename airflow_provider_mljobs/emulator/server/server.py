"""The life of an embedded Snowflake from start to stop."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.account import Account
from airflow_provider_mljobs.emulator.identity import HOST, LOCATOR, USER
from airflow_provider_mljobs.emulator.parsing import QualifiedName, parse_name
from airflow_provider_mljobs.emulator.server.certificates import BUNDLE_VARIABLES, Certificates
from airflow_provider_mljobs.emulator.server.listener import Listener
from airflow_provider_mljobs.emulator.server.protocol import Protocol
from airflow_provider_mljobs.emulator.server.roots import Root
from airflow_provider_mljobs.emulator.settings import UNFIT, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from airflow_provider_mljobs.emulator.server.faults import Faults
    from airflow_provider_mljobs.emulator.server.recorder import Recorder

# Seconds.
_MAINTENANCE = 3600.0
_TMP = "/tmp"  # noqa: S108  # the name in it is unique


class Server:
    """A running embedded Snowflake; a context manager that stops it.

    :param settings: its settings.
    :param temporary: whether the root is removed on stop.
    """

    def __init__(self, settings: Settings, *, temporary: bool = False) -> None:
        self.settings = settings
        self._temporary = temporary
        with ExitStack() as undo:
            self._root = Root.claim(settings.root)
            undo.callback(self._root.release)
            self._certificates = Certificates(settings.root / "ca-bundle.pem")
            self._listener = Listener(settings.port, self._certificates.context)
            undo.callback(self._listener.server_close)
            self.port = self._listener.server_port
            self._root.announce(self.port)
            self.account = Account(settings, self.port)
            self._protocol = Protocol(settings, self.account, self.port, self._root.password)
            undo.pop_all()
        self._listener.protocol = self._protocol
        self._stopping = threading.Lock()
        threading.Thread(target=self._listener.serve, name="snowflake-server", daemon=True).start()
        # Without a stop(), the SQL engine would be torn down under running threads.
        atexit.register(self._stop_at_exit, os.getpid())

    @classmethod
    def start(cls, settings: Settings | None = None, **changes: Any) -> Self:
        """Start a server.

        :param settings: the settings; without them and without a ``root`` the root is a temporary directory.
        :param changes: settings by name.
        """
        if settings is not None:
            return cls(replace(settings, **changes))
        root = changes.pop("root", None)
        if root is not None:
            return cls(Settings(root=Path(root).absolute(), **changes))
        elsewhere = _TMP if UNFIT & set(tempfile.gettempdir()) else None
        root = Path(tempfile.mkdtemp(prefix="embedded-snowflake-", dir=elsewhere))
        try:
            return cls(Settings(root=root, **changes), temporary=True)
        except BaseException:
            shutil.rmtree(root, ignore_errors=True)
            raise

    @property
    def faults(self) -> Faults:
        """The injected faults; they can be changed at any time."""
        return self._protocol.faults

    @property
    def statements(self) -> Recorder:
        """The statements and logins that the server received."""
        return self._protocol.statements

    @property
    def root(self) -> Path:
        """The directory of all state."""
        return self.settings.root

    @property
    def password(self) -> str:
        """The password of this start."""
        return self._root.password

    @property
    def connection_kwargs(self) -> dict[str, Any]:
        """The arguments of ``snowflake.connector.connect`` and ``Session.builder.configs``."""
        return {
            "host": HOST,
            "port": self.port,
            "protocol": "http",
            "account": LOCATOR,
            "user": USER,
            "password": self.password,
            "database": self.settings.database,
            "schema": self.settings.schema,
            "warehouse": self.settings.warehouse,
        }

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables for Airflow and for programs that read ``SNOWFLAKE_…``."""
        values = {name: str(value) for name, value in self.connection_kwargs.items()}
        extra = {name: values[name] for name in ("account", "database", "warehouse", "host", "port", "protocol")}
        connection = {
            "conn_type": "snowflake",
            "login": values["user"],
            "password": values["password"],
            "schema": values["schema"],
            "extra": extra | {"port": self.port},
        }
        variables = {f"SNOWFLAKE_{name.upper()}": value for name, value in values.items()}
        # The connector looks for cloud metadata servers when it connects, and would wait for them in vain.
        variables["SNOWFLAKE_DISABLE_PLATFORM_DETECTION"] = "true"
        # Airflow's own hook ignores "protocol": it speaks HTTPS, and trusts the authorities in this file.
        variables[BUNDLE_VARIABLES[0]] = str(self._certificates.bundle)
        return {"AIRFLOW_CONN_SNOWFLAKE_DEFAULT": json.dumps(connection), **variables}

    def kill_instance(self, job: str, instance: int) -> None:
        """Kill all processes of an instance, as when a container is out of memory.

        :param job: name of the job service; database and schema default to those of the settings.
        :param instance: index of the instance.

        Raises :class:`ValueError` if no such instance runs.
        """
        name = parse_name(job)
        services = self.account.services
        schema, database = name.schema or self.settings.schema, name.database or self.settings.database
        running = services.find(QualifiedName(name.name, schema, database))
        if running is None or not services.scheduler.kill(running, instance):
            msg = f"Instance {instance} of job {job} is not running"
            raise ValueError(msg)

    @contextmanager
    def maintenance(self, pool: str) -> Iterator[None]:
        """Replace the nodes of a compute pool: its running jobs are cancelled.

        Until the end of the context, SYSTEM$GET_COMPUTE_POOL_PENDING_MAINTENANCE announces a window of this hour.
        """
        pools = self.account.pools
        pools.maintenance = (time.time(), time.time() + _MAINTENANCE)
        self.account.services.interrupt(pools.get(parse_name(pool).name))
        try:
            yield
        finally:
            pools.maintenance = None

    def revoke_credentials(self) -> None:
        """Refuse the password, as if an administrator changed it: logins get 390100, and sessions expire.

        Jobs keep running: they have their own credentials.
        """
        self._protocol.revoke_credentials()

    def restore_credentials(self) -> None:
        """Accept the password again; expired sessions stay expired."""
        self._protocol.restore_credentials()

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Cut all connections and refuse new ones; statements and jobs keep running."""
        self._listener.cut_off()
        try:
            yield
        finally:
            self._listener.let_in()

    def stop(self) -> None:
        """Stop the jobs, close the databases and the connections; a second call does nothing."""
        if not self._stopping.acquire(blocking=False):
            return
        atexit.unregister(self._stop_at_exit)
        with ExitStack() as steps:
            # In reverse order; each step runs even if an earlier one fails.
            if self._temporary:
                steps.callback(shutil.rmtree, self.root, ignore_errors=True)
            steps.callback(self._root.release)
            steps.callback(self.account.close)
            steps.callback(self._listener.stop)
            steps.callback(self._protocol.close)

    def _stop_at_exit(self, owner: int) -> None:
        """Stop in the process that started the server; a forked one would end the jobs and remove the root."""
        if os.getpid() == owner:
            self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
