"""The probe: a tiny job that takes every step of a task's job, and leaves nothing behind, however far it comes."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from airflow_provider_mljobs.exceptions import GatewayError, MLJobError, SnowflakeUnavailableError
from airflow_provider_mljobs.gateway import inspection, statements as jobs_statements
from airflow_provider_mljobs.gateway.doctor import statements
from airflow_provider_mljobs.gateway.doctor.checks import NEEDED_BY_A_JOB, integration_name, job_spec
from airflow_provider_mljobs.gateway.downloads import read_result
from airflow_provider_mljobs.gateway.outcome import Outcome, complete
from airflow_provider_mljobs.gateway.usage import read_usage
from airflow_provider_mljobs.jobs.checkup import Check, Finding, missing, ok, run, unseen
from airflow_provider_mljobs.jobs.names import JOB_NAME_PREFIX
from airflow_provider_mljobs.jobs.outcome.failures import KINDS, diagnose_wait
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.payload.archive import PREFIX, Payload
from airflow_provider_mljobs.jobs.spec.rendering import result_directory
from airflow_provider_mljobs.jobs.values.arguments import Arguments

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_mljobs.gateway.doctor.account import Account
    from airflow_provider_mljobs.jobs.names import QualifiedName, StagePath
    from airflow_provider_mljobs.jobs.spec.job import JobSpec

UPLOAD, SUBMIT, NODE, RUN = "probe: upload", "probe: submit", "probe: node", "probe: run"
RESULT, INDEX, LOG, METRICS = "probe: result", "probe: package index", "probe: log", "probe: metrics"
CLEAN_UP = "probe: clean-up"
_COMMENT = "airflow mljobs doctor"
_GREETING = "The probe of airflow mljobs doctor runs."
PACKAGE_INDEX = "https://pypi.org/simple/"
# A job that nothing shows yet is UNKNOWN.
_NOT_YET = {JobStatus.PENDING, JobStatus.UNKNOWN}
_LOOK_AGAIN_SECONDS = 1.0
LOST_SUBMIT_SECONDS = 30.0
_END_SECONDS = 60.0


def probe_job(greeting: str, index: str) -> dict[str, str]:
    """Run inside the job: print a line, ask a package index if one is given, and return the Python of the image."""
    import platform
    import urllib.error
    import urllib.request

    print(greeting)  # noqa: T201 (the log is part of the probe)
    refusal = ""
    if index:
        try:
            urllib.request.urlopen(index, timeout=20).close()  # noqa: S310 (the address is a constant)
        except urllib.error.HTTPError:
            # The index answers, even if it wants credentials.
            pass
        except OSError as error:
            refusal = f"{type(error).__name__}: {error}"
    return {"python": platform.python_version(), "index": refusal}


class Probe:
    """One probe job; a context that cleans up on the way out.

    :param account: the account, whose client must not share payloads (``payload_grace=0``).
    :param timeout: seconds for the job to get a node and to end.
    :param report: gets the findings of a clean-up that an interrupt brings about.
    :param index: the package index that the job asks for, if it has an integration.
    :param patience: seconds in which a submit whose answer was lost may take effect.
    """

    def __init__(
        self,
        account: Account,
        *,
        timeout: float,
        report: Callable[[Finding], None],
        index: str = PACKAGE_INDEX,
        patience: float = LOST_SUBMIT_SECONDS,
    ) -> None:
        self._patience = patience
        self._account = account
        self._client = account.client
        self._timeout = timeout
        self._report = report
        self._index = index if account.subject.external_access_integrations else ""
        self._give_up = 0.0
        # All that the clean-up needs is here before the step that makes it necessary.
        self._spec: JobSpec | None = None
        self._payload: StagePath | None = None
        self._is_submitted = False
        self._is_answered = False
        self._status = JobStatus.UNKNOWN
        self._index_error = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._spec is not None:
            by_hand = "; ".join(self._by_hand)
            self._report(replace(unseen(f"Interrupted; cleaning up. If that fails: {by_hand};"), check=CLEAN_UP))
            for finding in run([Check(CLEAN_UP, self.clean_up, is_timed=True)]):
                self._report(finding)

    def checks(self) -> list[Check]:
        """Return the steps of the probe, in their order."""
        names = self._account.subject.external_access_integrations
        steps: list[tuple[str, Callable[[], Finding], tuple[str, ...]]] = [
            (UPLOAD, self.upload, (*NEEDED_BY_A_JOB, *map(integration_name, names))),
            (SUBMIT, self.submit, (UPLOAD,)),
            (NODE, self.wait_for_node, (SUBMIT,)),
            (RUN, self.wait_for_end, (NODE,)),
            (RESULT, self.read_result, (RUN,)),
            *([(INDEX, self.package_index, (RESULT,))] if names else []),
            (LOG, self.read_log, (RUN,)),
            (METRICS, self.read_metrics, (RUN,)),
            (CLEAN_UP, self.clean_up, ()),
        ]
        return [Check(name, look, needs, is_timed=True) for name, look, needs in steps]

    def upload(self) -> Finding:
        """Upload the code of the probe."""
        subject = self._account.subject
        if subject.compute_pool is None or subject.stage is None:
            return missing("The probe needs a compute pool and a stage.", setting="--compute-pool and --stage")
        name = f"{JOB_NAME_PREFIX}DOCTOR_{secrets.token_hex(4).upper()}"
        payload = Payload.of_function(probe_job)
        try:
            spec = replace(job_spec(subject, subject.compute_pool, name), comment=_COMMENT)
            self._spec, self._payload = spec, subject.stage / f"{PREFIX}{payload.digest}_{name}"
            self._client.upload(spec, payload)
        except MLJobError as error:
            return missing(str(error))
        return ok(f"The code is in {self._payload}.")

    def submit(self) -> Finding:
        """Submit the job."""
        spec, payload = self._begun
        arguments = Arguments.of_function(probe_job, (_GREETING, self._index))
        self._give_up = time.monotonic() + self._timeout
        self._is_submitted = True
        try:
            self._client.submit(spec, payload, arguments)
        except SnowflakeUnavailableError as error:
            # The job may have started all the same.
            return missing(str(error))
        except MLJobError as error:
            self._is_submitted = False
            return missing(str(error))
        self._is_answered = True
        return ok(f"Job {spec.name}.")

    def wait_for_node(self) -> Finding:
        """Wait until the job runs."""
        spec, _ = self._begun
        self._wait(lambda status: status not in _NOT_YET)
        if self._status in _NOT_YET:
            reason = " ".join(str(each) for each in inspection.ends(self._client, spec.name))
            advice = KINDS[diagnose_wait(reason).failure].advice
            waits = f"Job {spec.name} is still {self._status} after {self._timeout:.0f} s."
            return missing(" ".join(filter(None, (waits, reason, advice))))
        return ok(f"The job is {self._status}.")

    def wait_for_end(self) -> Finding:
        """Wait until the job ends, and read why if it failed."""
        spec, payload = self._begun
        self._wait(lambda status: status.is_terminal)
        if not self._status.is_terminal:
            return missing(f"Job {spec.name} is still {self._status} after {self._timeout:.0f} s.")
        if self._status is not JobStatus.DONE:
            outcome = Outcome(job=spec.name, status=self._status, directory=result_directory(spec, payload))
            error = complete(self._client, outcome).error
            return missing(str(error or f"Job {spec.name} ended {self._status}."))
        return ok("The job is DONE.")

    def _wait(self, is_reached: Callable[[JobStatus], bool]) -> None:
        """Look at the job until it has a status, or the time is up."""
        spec, _ = self._begun
        while True:
            self._status = self._client.look(spec.name).status or self._status
            if is_reached(self._status) or time.monotonic() >= self._give_up:
                return
            time.sleep(_LOOK_AGAIN_SECONDS)

    def read_result(self) -> Finding:
        """Read the job's result."""
        spec, payload = self._begun
        patience = self._client.visibility_lag
        result = read_result(self._client.connection, result_directory(spec, payload), patience=patience)
        if result is None:
            return unseen(f"The job is DONE, but its result isn't on the stage after {patience:.0f} s.")
        self._index_error = str(result.value["index"])
        return ok(f"The job's Python is {result.value['python']}.")

    def package_index(self) -> Finding:
        """Check that the job reached a package index."""
        if not self._index_error:
            return ok(f"The job reaches {self._index}.")
        spec, _ = self._begun
        names = ", ".join(map(str, spec.external_access_integrations))
        return missing(
            f"The job doesn't reach {self._index} through {names} ({self._index_error}); pip_requirements need it.",
            *statements.allow_package_index(self._account.session.role),
        )

    def read_log(self) -> Finding:
        """Read the job's log."""
        spec, _ = self._begun
        if _GREETING in inspection.log(self._client, spec.name):
            return ok("The log has the line of the probe.")
        return unseen("The log doesn't have the line of the probe: its node is gone, and the event table lags minutes.")

    def read_metrics(self) -> Finding:
        """Read the platform's measurements of the job."""
        spec, _ = self._begun
        usage = read_usage(self._client, spec.name)
        return ok(f"{len(usage.series)} series.") if usage.series else unseen(usage.reason)

    def clean_up(self) -> Finding:
        """End and drop the job, and remove its files."""
        if self._spec is None or self._payload is None:
            return unseen("The probe did not begin.")
        by_hand, everything = self._by_hand, self._payload / ""
        try:
            if self._is_submitted:
                self._end(self._spec.name)
            self._client.connection.rows(jobs_statements.remove(everything), most=0)
            rest = self._client.connection.rows(jobs_statements.list_files(everything))
        except GatewayError as error:
            self._spec = None
            return missing(f"Could not clean up: {error}", *by_hand)
        # Not after an interrupt, after which the context tries again.
        self._spec = None
        if rest:
            return missing(f"{len(rest)} files are still in {self._payload}.", *by_hand)
        return ok("Neither a job nor a file is left.")

    @property
    def _by_hand(self) -> list[str]:
        """The statements of the clean-up."""
        spec, payload = self._begun
        return [jobs_statements.drop_service(spec.name), jobs_statements.remove(payload / "")]

    def _end(self, name: QualifiedName) -> None:
        """End and drop the job, also one whose submit got no answer."""
        is_unseen = not self._is_answered and self._client.look_for(name, patience=self._patience).is_unseen
        if not is_unseen and not self._status.is_terminal:
            # Files that its containers write until their end would survive an earlier removal.
            self._client.cancel_and_wait(name, seconds=_END_SECONDS)
        self._client.drop(name)

    @property
    def _begun(self) -> tuple[JobSpec, StagePath]:
        """The job and the directory of its code, once :meth:`upload` has begun."""
        if self._spec is None or self._payload is None:
            raise RuntimeError("The probe has not begun.")
        return self._spec, self._payload
