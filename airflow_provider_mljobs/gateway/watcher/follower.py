"""A job that somebody waits for: what is known of it, what they have been told, and how the wait ends."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from airflow_provider_mljobs.gateway.joblogs import Printed, read_news, sources
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.outcome.watch import JobWatch, Overdue, TimelineEntry, Verdict, to_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from airflow_provider_mljobs.gateway.client import Layout, MLJobClient
    from airflow_provider_mljobs.gateway.joblogs import Source
    from airflow_provider_mljobs.jobs.outcome.wait_plan import WaitPlan

logger = logging.getLogger(__name__)
# Snowflake takes minutes to provision an endpoint.
_ENDPOINTS_SECONDS = 30.0
# The most of a job's log that one turn may bring, roughly; then it is others' turn.
_MOST_CHARACTERS = 256 * 1024


@dataclass(frozen=True)
class Message:
    """Something to tell people: where the job stands, or that it can't be asked for."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class JobEnvironment:
    """The job's environment, before anything that the job has printed: what is secret in it must not be shown."""

    environment: Mapping[str, str]


@dataclass(frozen=True)
class LogOutput:
    """New lines of the job's log, and what is known of the job.

    :param lines: whole lines, readable; maybe none.
    :param state: all that is known, and what another process has to know to go on from where these lines begin: see
        :class:`Follower`.
    """

    lines: Sequence[str]
    state: Mapping[str, Any]


@dataclass(frozen=True)
class WaitEnded:
    """The end of the wait; nothing comes after it.

    :param event: see :func:`~airflow_provider_mljobs.jobs.outcome.watch.to_event`.
    """

    event: dict[str, Any]


Report = Message | JobEnvironment | LogOutput | WaitEnded


class Follower:
    """One wait for one job.

    :param plan: what to wait for, and how.
    :param tell: takes the reports, from the threads of a watcher.
    :param now: when the wait begins, in seconds since the epoch.
    :param state: what another process has left of an earlier wait: see :class:`LogOutput`.
    :param mask: stars secrets in what the job reports; by then it was told of :class:`JobEnvironment`.
    """

    def __init__(
        self,
        plan: WaitPlan,
        tell: Callable[[Report], None],
        now: float,
        *,
        state: Mapping[str, Any] = MappingProxyType({}),
        mask: Callable[[str], str] = str,
    ) -> None:
        self.job = plan.job
        self.plan = plan
        self.watch, self.printed, unreadable = _resumed(plan, state, mask)
        self.began = now
        self.is_active = True
        self._tell = tell
        self._layout: Layout | None = None
        self._endpoints: Mapping[str, str] = {}
        self._endpoints_due = 0.0
        self._turn = 0
        self._told = self._known(self.printed)
        self._place = _place(self.printed, now)
        self._is_behind = False
        self._lock = threading.Lock()
        # Held while lines are handed over and noted as shown: the end must not be told in between.
        self._showing = threading.RLock()
        if unreadable:
            text = f"The saved state of job {self.job} can't be read; watching the job from the beginning"
            self.tell(Message(f"{text}, so lines of its log may appear twice: {unreadable}", is_warning=True))

    def stop(self) -> None:
        """Wait no more; a report that is on its way may still come. Doesn't block."""
        self.is_active = False

    def update(self, change: Callable[[JobWatch], JobWatch], now: float) -> Verdict:
        """Take note of something that was seen, and tell what is new in it."""
        with self._lock:
            before, after = self.watch, change(self.watch)
            self.watch = after
        if after.timeline != before.timeline:
            self.tell(Message(f"Job {self.job}: {after.timeline[-1]}."))
        if after.trouble and not after.is_gone and after.trouble != before.trouble:
            self.tell(Message(f"{self._in_doubt(after)}: {after.trouble}", is_warning=True))
        if _is_in_doubt(before) and not _is_in_doubt(after):
            self.tell(Message(f"Snowflake tells of job {self.job} again."))
        return after.verdict(now)

    def _in_doubt(self, watch: JobWatch) -> str:
        if watch.unreachable_since is not None:
            return f"Could not check job {self.job}; it keeps running"
        if watch.unseen_since is not None:
            return f"Snowflake doesn't show job {self.job}; looking again for {watch.plan.unseen_patience:g} s"
        return f"Only the job history shows job {self.job}, as {watch.status}"

    def out_of_time(self, now: float) -> bool:
        """Decide whether the job is out of time; for good, and handed over before anything is done about it.

        The process that continues this wait, should this one die in between, comes to the same verdict.
        """
        with self._showing:
            if self.watch.overdue is not None:
                return True
            self.update(lambda watch: watch.out_of_time(now), now)
            watch = self.watch
            if watch.overdue is None:
                return False
            self.tell(Message(f"Job {self.job} is out of time: {_limit(watch, watch.overdue)}. Cancelling it."))
            if self.is_active:
                self._told = self._known(self.printed)
                self._hand_over(LogOutput((), {**self._told, "at": _iso(now), **self._place}))
            return True

    def tell(self, report: Report) -> None:
        """Report to whoever waits."""
        if self.is_active:
            self._hand_over(report)

    def end(self, verdict: Verdict, now: float) -> None:
        """Tell the end, once."""
        with self._showing:
            was_active, self.is_active = self.is_active, False
            report = WaitEnded(self.event(verdict, now))
        if was_active:
            self._hand_over(report)

    def _hand_over(self, report: Report) -> bool:
        try:
            self._tell(report)
        except Exception:  # a task's log, or Airflow's API: the watch over other jobs must go on
            logger.exception("A report on job %s could not be taken: %s", self.job, type(report).__name__)
            return False
        return True

    def event(self, verdict: Verdict, now: float) -> dict[str, Any]:
        """Build what there is to say of the job now; of its log, what is being read doesn't count as shown."""
        with self._showing:
            watch, printed = self.watch, self.printed
        return to_event(
            str(self.job),
            verdict,
            watch.status,
            watch.why(now),
            stage_path=self.plan.stage_path,
            timeline=watch.timeline,
            printed=printed.to_json(),
            is_overdue=watch.overdue is not None,
        )

    def read(self, client: MLJobClient, now: float, *, is_final: bool = False) -> int:
        """Read what is new of the job's log and tell it; returns how many characters that were, with its reports.

        :param is_final: whether the job is over, so that nothing more will come.
        """
        found = self._sources(client)
        printed = self.printed.copy()
        lines: list[str] = []
        is_whole = is_final and bool(found)
        overlap = timedelta(seconds=2 * self.plan.log_interval)
        try:
            for source in found:
                news = read_news(client.log_store, source, printed, is_final=is_final, overlap=overlap)
                is_whole = is_whole and news is not None
                lines += news or ()
                # Who is left out of a turn that has become too long is first in the next one.
                self._turn += 1
                if printed.characters > _MOST_CHARACTERS and not is_final:
                    break
            printed.is_whole = is_whole
            self._find_endpoints(client, found, now)
        finally:
            # What has been read is told whatever comes then: the next turn goes on behind it.
            self._show(lines, printed, now)
        return printed.characters

    def _find_endpoints(self, client: MLJobClient, found: Sequence[Source], now: float) -> None:
        """Ask where the public endpoints of a running job of several instances are, until they are there."""
        if self.watch.status is not JobStatus.RUNNING or len({source.instance for source in found}) <= 1:
            self._endpoints, self._endpoints_due = {}, 0.0
        elif now >= self._endpoints_due:
            self._endpoints_due = now + _ENDPOINTS_SECONDS
            self._endpoints = client.endpoints(self.job)
            if all(self._endpoints.values()):
                self._endpoints_due = math.inf

    @property
    def cost(self) -> int:
        """How many statements it takes to read the job's log once, as far as that is known."""
        layout = self._layout
        if layout is None:
            # To ask for the layout, and for one log at least.
            return 2
        # From outside, the job and its containers are asked for each time.
        return len(layout.containers) + (0 if layout.is_specified else 2)

    def _sources(self, client: MLJobClient) -> list[Source]:
        """Return the containers of the job, those first that the last turn has left out."""
        if self._layout is None or not self._layout.is_specified:
            # Seen from outside, containers may not all be there yet.
            self._layout = client.layout(self.job)
            if self._layout.environment:
                self.tell(JobEnvironment(self._layout.environment))
        found = sources(self.job, self._layout.containers)
        first = self._turn % max(1, len(found))
        return found[first:] + found[:first]

    def explain(self, client: MLJobClient, now: float) -> None:
        """Ask why a job that is PENDING waits, and tell it if that has changed."""
        if self.learn_why(client, now):
            self._show([], self.printed, now)

    def learn_why(self, client: MLJobClient, now: float) -> bool:
        """Ask the containers of a job that is PENDING why it waits; returns whether they say something."""
        messages = [container.message for container in client.containers(self.job) if container.status == "PENDING"]
        if messages:
            reason = "; ".join(dict.fromkeys(messages))
            self.update(lambda watch: watch.explained(reason, now), now)
        return bool(messages)

    def _show(self, lines: Sequence[str], printed: Printed, now: float) -> None:
        """Tell new lines and what is known, with the place in the log before them, and note them if they were taken.

        Whoever takes both writes them in different places. Were the new place safe before the lines are, a crash in
        between would lose them; so a place is only told with the next turn, and a crash repeats some lines.
        """
        known = self._known(printed)
        has_news = bool(lines) or known != self._told
        with self._showing:
            if not self.is_active:
                return
            report = LogOutput(lines, {**known, "at": _iso(now), **self._place})
            if (has_news or self._is_behind) and not self._hand_over(report):
                return
            self.printed, self._is_behind = printed, has_news
            if has_news:
                self._told, self._place = known, _place(printed, now)

    def _known(self, printed: Printed) -> dict[str, Any]:
        """Return what people may want to know of the job while it runs."""
        return {
            "status": self.watch.status.value,
            "timeline": [step.to_xcom() for step in self.watch.timeline],
            **printed.reported.to_json(),
            "endpoints": {name: url for name, url in self._endpoints.items() if url},
            **({} if (overdue := self.watch.overdue) is None else {"overdue": overdue.to_json()}),
        }


def _resumed(plan: WaitPlan, state: Mapping[str, Any], mask: Callable[[str], str]) -> tuple[JobWatch, Printed, str]:
    """Return a watch and a place in the log to continue from; a beginning of both, and why, if that can't be read."""
    watch = JobWatch(plan=plan)
    try:
        steps, overdue = state.get("timeline", ()), state.get("overdue")
        timeline = tuple(TimelineEntry.from_xcom(step) for step in steps)
        decision = None if overdue is None else Overdue.from_json(overdue)
        return watch.resumed(timeline, decision), Printed.from_json(state, mask), ""
    except Exception as error:  # noqa: BLE001 (whatever another version has written there, or people)
        return watch, Printed(mask=mask), f"{type(error).__name__}: {error}"


def _limit(watch: JobWatch, overdue: Overdue) -> str:
    """Say which limit of the task has passed."""
    if overdue.limit == "timeout":
        return f"it has been {watch.status} for longer than the task's timeout of {watch.plan.timeout:g} s"
    return f"it is {watch.status} after the task's {overdue.limit}"


def _is_in_doubt(watch: JobWatch) -> bool:
    """Whether the last look at a job hasn't shown it."""
    return watch.unreachable_since is not None or watch.unseen_since is not None


def _place(printed: Printed, now: float) -> dict[str, Any]:
    """Say how far a log has been shown, and when."""
    return {**printed.place_to_json(), "shown_until": _iso(now)}


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
