"""The account: builds the parts of the embedded Snowflake and gives each the parts that it needs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.access.grant_statements import GrantStatements
from airflow_provider_mljobs.emulator.access.rights import Access
from airflow_provider_mljobs.emulator.access.role_statements import RoleStatements
from airflow_provider_mljobs.emulator.access.show_grants import ShowGrants
from airflow_provider_mljobs.emulator.access.users import Users
from airflow_provider_mljobs.emulator.server.queries import Queries, interrupt
from airflow_provider_mljobs.emulator.server.session_statements import SessionStatements
from airflow_provider_mljobs.emulator.spcs.compute_pools import ComputePools
from airflow_provider_mljobs.emulator.spcs.event_table import EventTable
from airflow_provider_mljobs.emulator.spcs.integrations import Integrations, NetworkRules
from airflow_provider_mljobs.emulator.spcs.job_functions import JobFunctions
from airflow_provider_mljobs.emulator.spcs.job_listings import JobListings
from airflow_provider_mljobs.emulator.spcs.job_runs import JobFiles, Planner
from airflow_provider_mljobs.emulator.spcs.job_statements import JobStatements
from airflow_provider_mljobs.emulator.spcs.metrics import Metrics
from airflow_provider_mljobs.emulator.spcs.ml_jobs import MLJobs
from airflow_provider_mljobs.emulator.spcs.pool_statements import PoolStatements
from airflow_provider_mljobs.emulator.spcs.repositories import Repositories
from airflow_provider_mljobs.emulator.spcs.scheduler import Scheduler
from airflow_provider_mljobs.emulator.spcs.secrets import Secrets
from airflow_provider_mljobs.emulator.spcs.service import Services
from airflow_provider_mljobs.emulator.spcs.state_file import StateFile
from airflow_provider_mljobs.emulator.spcs.workloads import Workloads
from airflow_provider_mljobs.emulator.sql.catalog import Catalog
from airflow_provider_mljobs.emulator.sql.engine import Engine
from airflow_provider_mljobs.emulator.sql.file_formats import FileFormats
from airflow_provider_mljobs.emulator.sql.loading import Loading
from airflow_provider_mljobs.emulator.sql.metadata import MetadataStatements
from airflow_provider_mljobs.emulator.sql.namespaces import NamespaceStatements
from airflow_provider_mljobs.emulator.sql.objects import ObjectStatements
from airflow_provider_mljobs.emulator.sql.unloading import Unloading
from airflow_provider_mljobs.emulator.sql.variables import Variables
from airflow_provider_mljobs.emulator.sql.warehouses import Warehouses
from airflow_provider_mljobs.emulator.stages.stage_statements import StageStatements
from airflow_provider_mljobs.emulator.stages.store import Stages
from airflow_provider_mljobs.emulator.stages.transfer import Transfers
from airflow_provider_mljobs.emulator.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_mljobs.emulator.registry import Extension
    from airflow_provider_mljobs.emulator.settings import Settings


class Account:
    """Everything that outlives a session.

    :param settings: the settings of this start.
    :param port: the server's port, where jobs log in.
    """

    def __init__(self, settings: Settings, port: int) -> None:
        self.tokens = Tokens()
        self.queries = Queries(interrupt)
        self._state = StateFile(settings.root / "spcs.db")
        self.access = Access(self._state)
        self.users = Users(self.access, self._state)
        self.catalog = Catalog(settings)
        self.stages = Stages(settings.root / "stages", settings.stage_lag)
        self.engine = Engine(self.catalog, self.stages)
        formats = FileFormats(self.catalog)
        self._workloads = Workloads(self._state)
        sessions = SessionStatements(
            self.queries, self.catalog, self._workloads.parameters, event_table=settings.event_table
        )
        # A session runs one statement of these parts at a time.
        self.of_engine = [
            part.extension
            for part in (
                NamespaceStatements(self.catalog),
                ObjectStatements(self.catalog),
                MetadataStatements(self.catalog),
                Loading(self.catalog, self.stages, formats, Unloading(self.engine, self.stages, formats)),
                formats,
                Warehouses(self.catalog),
                Variables(self.engine),
            )
        ]
        self.catalog.register(self.access)
        self.stages.register(self.access)
        of_stages = [StageStatements(self.catalog, self.stages).extension, Transfers(self.stages).extension]
        self.catalog.on_drop(self.stages.drop_all)
        self.catalog.on_drop(formats.drop_all)
        # The statements of each part, for the router and for the documentation.
        self.extensions: dict[str, list[Extension]] = {
            "sessions": [sessions.extension],
            "rights": [part.extension for part in self._rights()],
            "SQL": self.of_engine,
            "stages": of_stages,
            "services": list(self._open_services(settings, port)),
        }

    def _rights(self) -> Iterable[RoleStatements | GrantStatements | ShowGrants]:
        """Build the statements about roles and grants."""
        catalog, listing = self.catalog, {"STAGE": self.stages.paths, "SERVICE": self._services_paths}
        listing |= {kind: partial(catalog.paths, kind) for kind in ("SCHEMA", "TABLE", "VIEW")}
        return (
            RoleStatements(self.access, self.users, catalog),
            GrantStatements(self.access, listing),
            ShowGrants(self.access),
        )

    def _services_paths(self) -> list[tuple[str, ...]]:
        return [job.name.path for job in self.services.jobs()]

    def _open_services(self, settings: Settings, port: int) -> Iterable[Extension]:
        """Build the parts of Snowpark Container Services and yield their statements."""
        catalog = self.catalog
        state, access = self._state, self.access
        repositories, secrets = Repositories(state, catalog), Secrets(state, catalog)
        rules = NetworkRules(state, catalog)
        integrations = Integrations(state, catalog, rules)
        planner = Planner(settings, port, JobFiles(settings.root / "jobs"), self.stages, secrets, access)
        scheduler = Scheduler(planner, self.tokens, state, repositories.knows)
        self.pools = pools = ComputePools(scheduler, state, settings.pool_ready, settings.scarce_families)
        self.services = Services(scheduler, planner, pools, integrations, state, self._workloads)
        for part in (self.services, repositories, secrets, rules):
            catalog.on_drop(part.drop_all)
        for objects in (repositories, secrets, rules, integrations):
            access.register(objects.kind.securable, objects.owner)
        access.register("COMPUTE POOL", pools.owner)
        access.register("SERVICE", self.services.owner)
        yield self._workloads.extension
        yield PoolStatements(pools, self.services, catalog).extension
        yield JobStatements(self.services, pools, catalog, self.stages).extension
        yield JobListings(self.services, pools, planner, catalog).extension
        for objects in (repositories, secrets, rules, integrations):
            yield objects.extension
        yield JobFunctions(self.services, settings.log_retention).extension
        yield MLJobs(self.services, pools, catalog, settings.images).extension
        if settings.event_table:
            metrics = Metrics(pools.by_name, self.services.files)
            events = EventTable(self.services, metrics, settings.event_table_lag, settings.log_event_level)
            yield events.extension

    def close(self) -> None:
        """Stop the jobs, then close the databases."""
        self.services.close()
        self.engine.close()
        self.catalog.close()
