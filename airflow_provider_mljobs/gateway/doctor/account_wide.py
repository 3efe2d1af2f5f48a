"""The checks that concern the account as a whole: event table, kinds of services, limits, clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mljobs.gateway import statements as jobs_statements
from airflow_provider_mljobs.gateway.doctor import statements
from airflow_provider_mljobs.gateway.doctor.privileges import lacking, proven
from airflow_provider_mljobs.gateway.log_store import event_table as table_of
from airflow_provider_mljobs.jobs.checkup import Finding, missing, ok, unseen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_provider_mljobs.gateway.doctor.account import Account

# "Guidelines and limitations" of Snowpark Container Services.
_MAX_SERVICES = 5000
# A key pair's token is valid for a minute.
_MAX_SKEW_SECONDS = 30.0
# Snowflake's own table, and the view of it.
_DEFAULT_EVENTS = "SNOWFLAKE.TELEMETRY.EVENTS"
_EVENT_READERS = ("EVENTS_VIEWER", "EVENTS_ADMIN")
_ALL = "ALL"


def event_table(account: Account) -> Finding:
    """Check the event table, which has logs and metrics of jobs whose nodes are gone."""
    rows = account.rows(jobs_statements.show_event_table())
    if not rows:
        return unseen("The account doesn't show its parameter EVENT_TABLE.")
    table = table_of(rows)
    if table is None:
        return missing(
            "The account has no event table: logs are lost with their node, and there are no metrics.",
            statements.set_event_table(_DEFAULT_EVENTS),
        )
    if not str(table).startswith(_DEFAULT_EVENTS):
        owned = account.grants.privileges("TABLE", table) | account.grants.privileges("EVENT TABLE", table)
        if owned & {"SELECT", "OWNERSHIP"}:
            return ok(f"Event table {table}.")
        return lacking(account, ("TABLE", table, ("SELECT",))) or ok(f"Event table {table}.")
    # Listings may leave out the application.
    roles = {grant.name.rpartition(".")[2] for grant in account.grants.grants if grant.kind == "APPLICATION ROLE"}
    if not roles.isdisjoint(_EVENT_READERS):
        return ok(f"Event table {table}.")
    return proven(
        account,
        f"Role {account.session.role} may not read event table {table}, which has logs and metrics of dropped jobs.",
        statements.grant_application_role(f"SNOWFLAKE.{_EVENT_READERS[0]}", account.session.role),
    )


def workload_types(account: Account) -> Finding:
    """Check that the account lets this kind of job run."""
    kind = "ML_JOB" if account.subject.is_managed else "USER"
    values = account.parameters
    if not values:
        return unseen(f"The account doesn't show its parameter {statements.ALLOWED_WORKLOADS}.")
    allowed = _words(values.get(statements.ALLOWED_WORKLOADS, "")) or {_ALL}
    refused = _words(values.get(statements.DISALLOWED_WORKLOADS, ""))
    changes = []
    if not allowed & {_ALL, kind}:
        changes.append(_list_parameter(statements.ALLOWED_WORKLOADS, {*allowed, kind}))
    if refused & {_ALL, kind}:
        changes.append(_list_parameter(statements.DISALLOWED_WORKLOADS, refused - {_ALL, kind}))
    if changes:
        return missing(f"The account runs no services of type {kind}.", *changes)
    return ok(f"The account runs services of type {kind}.")


def _list_parameter(name: str, words: Iterable[str]) -> str:
    return statements.set_account_parameter(name, ",".join(sorted(words)))


def _words(text: str) -> set[str]:
    return {word.strip().upper() for word in text.split(",") if word.strip()}


def services_limit(account: Account) -> Finding:
    """Compare the number of services with the limit of an account."""
    number = account.client.connection.fold(statements.show_services(), lambda rows: sum(1 for _ in rows))
    counted = f"The role sees {number} services, ended jobs included; an account has at most {_MAX_SERVICES}"
    if number >= _MAX_SERVICES:
        return missing(f"{counted}.", setting="airflow mljobs gc --schema account")
    if any(grant.privilege == "MANAGE GRANTS" for grant in account.grants.grants):
        return ok(f"{counted}.")
    return unseen(f"{counted}, and those of other roles count as well.")


def clock(account: Account) -> Finding:
    """Compare the clock of this machine with Snowflake's."""
    before = account.clock()
    (row,) = account.rows(jobs_statements.current_timestamp())
    after = account.clock()
    moment = row["moment"].timestamp()
    skew = max(before - moment, moment - after, 0.0)
    if skew > _MAX_SKEW_SECONDS:
        return missing(
            f"The clock of this machine is {skew:.0f} s off Snowflake's.", setting="timedatectl set-ntp true"
        )
    return ok(f"At most {skew + after - before:.1f} s off Snowflake's.")
