"""The doctor: the checks of the account and of this Airflow, and the probe job, in one list of findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.gateway.doctor.account import Account
from airflow_provider_mljobs.gateway.doctor.checks import account_checks
from airflow_provider_mljobs.gateway.doctor.probe import Probe
from airflow_provider_mljobs.jobs.checkup import run
from airflow_provider_mljobs.task.health import airflow_checks

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.gateway.doctor.account import Subject
    from airflow_provider_mljobs.jobs.checkup import Finding


def examine(
    client: MLJobClient, subject: Subject, *, probe_timeout: float | None, report: Callable[[Finding], None]
) -> list[Finding]:
    """Run all checks; see :meth:`~airflow_provider_mljobs.hooks.MLJobHook.doctor`.

    :param client: must not share payloads, so that the probe's is removed with it.
    :param probe_timeout: seconds for the probe job; ``None`` submits none.
    """
    if probe_timeout is not None and (subject.compute_pool is None or subject.stage is None):
        raise InvalidJobSpecError("A probe job needs a compute pool and a stage: pass both.")
    findings: list[Finding] = []

    def add(finding: Finding) -> None:
        findings.append(finding)
        report(finding)

    account = Account(client, subject)
    with Probe(account, timeout=probe_timeout or 0.0, report=add) as probe:
        steps = () if probe_timeout is None else probe.checks()
        for finding in run((*account_checks(account), *airflow_checks(), *steps)):
            add(finding)
    return findings
