"""One wait for one job: its state, its place in the log, its reports to the task, and its end."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING

from airflow_provider_mljobs.gateway import inspection
from airflow_provider_mljobs.gateway.joblogs import Printed, read_news, sources
from airflow_provider_mljobs.jobs.outcome.status import JobStatus
from airflow_provider_mljobs.jobs.outcome.watch import JobWatch, Overdue, TimelineEntry, Verdict, to_event

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.gateway.inspection import Container, Layout
    from airflow_provider_mljobs.gateway.log_store import Source
    from airflow_provider_mljobs.jobs.outcome.wait_plan import WaitPlan

logger = logging.getLogger(__name__)
# Snowflake takes minutes to provision an endpoint.
_ENDPOINTS_SECONDS = 30.0
# Events reach the event table after some minutes.
_EVENTS_PAUSE, _MAX_EVENTS_PAUSE = 60.0, 900.0
# One turn reads about this much of a job's log; then other jobs have theirs.
_MAX_CHARACTERS = 256 * 1024


@dataclass(frozen=True)
class Message:
    """A line for the task's log: where the job stands, or that Snowflake can't be asked."""

    text: str
    is_warning: bool = False


@dataclass(frozen=True)
class JobEnvironment:
    """The job's environment. It comes before any output of the job, so that its secrets are starred there."""

    environment: Mapping[str, str]


@dataclass(frozen=True)
class LogOutput:
    """New lines of the job's log, with the state of the wait.

    :param state: the job's progress, and the place in its log before these lines: another :class:`Follower` continues
        from there.
    """

    lines: Sequence[str]
    state: Mapping[str, Any]


@dataclass(frozen=True)
class WaitEnded:
    """The end of the wait, and the last report: see :func:`~airflow_provider_mljobs.jobs.outcome.watch.to_event`."""

    event: dict[str, Any]


Report = Message | JobEnvironment | LogOutput | WaitEnded


class Follower:
    """One wait for one job.

    :param state: of an earlier wait by another process: see :class:`LogOutput`.
    :param mask: stars secrets in the job's own reports; it has had the :class:`JobEnvironment` by then.
    """

    def __init__(
        self,
        plan: WaitPlan,
        take_report: Callable[[Report], None],
        now: float,
        *,
        state: Mapping[str, Any] = MappingProxyType({}),
        mask: Callable[[str], str] = str,
    ) -> None:
        self.job = plan.job
        self.plan = plan
        self.watch, self.printed, unreadable = _resumed(plan, state, mask)
        self.is_active = True
        self._take_report = take_report
        self._layout: Layout | None = None
        self._endpoints: Mapping[str, str] = {}
        self._endpoints_due = 0.0
        self._events_due, self._events_pause = 0.0, _EVENTS_PAUSE
        self._turn = 0
        self._reported = self._state(self.printed)
        self._place = _place(self.printed, now)
        self._is_behind = False
        self._lock = threading.Lock()
        # Held while lines are handed over and recorded as shown: the end must not be reported in between.
        self._showing = threading.RLock()
        if unreadable:
            text = f"The saved state of job {self.job} can't be read; watching the job from the beginning"
            self.report(Message(f"{text}, so lines of its log may appear twice: {unreadable}", is_warning=True))

    def stop(self) -> None:
        """Stop waiting; a report that is under way may still come. Doesn't block."""
        self.is_active = False

    def update(self, change: Callable[[JobWatch], JobWatch], now: float) -> Verdict:
        """Record an observation of the job, and report the news in it."""
        with self._lock:
            before, after = self.watch, change(self.watch)
            self.watch = after
        if after.timeline != before.timeline:
            self.report(Message(f"Job {self.job}: {after.timeline[-1]}."))
        if after.trouble and not after.is_gone and after.trouble != before.trouble:
            self.report(Message(f"{self._in_doubt(after)}: {after.trouble}", is_warning=True))
        if _is_in_doubt(before) and not _is_in_doubt(after):
            self.report(Message(f"Job {self.job} is visible in Snowflake again."))
        return after.verdict(now)

    def _in_doubt(self, watch: JobWatch) -> str:
        if watch.unreachable_since is not None:
            return f"Could not check job {self.job}; it keeps running"
        if watch.unseen_since is not None:
            return f"Snowflake doesn't show job {self.job}; looking again for {watch.plan.unseen_patience:g} s"
        return f"Only the job history shows job {self.job}, as {watch.status}"

    def out_of_time(self, now: float) -> bool:
        """Decide, once and for all, whether the job is out of time; report the decision before the job is cancelled.

        Should this process die in between, the one that continues the wait comes to the same verdict.
        """
        with self._showing:
            if self.watch.overdue is not None:
                return True
            self.update(lambda watch: watch.out_of_time(now), now)
            watch = self.watch
            if watch.overdue is None:
                return False
            self.report(Message(f"Job {self.job} is out of time: {_limit(watch, watch.overdue)}. Cancelling it."))
            if self.is_active:
                self._reported = self._state(self.printed)
                self._hand_over(LogOutput((), {**self._reported, "at": _iso(now), **self._place}))
            return True

    def report(self, report: Report) -> None:
        """Report to the task, unless the wait is over."""
        if self.is_active:
            self._hand_over(report)

    def end(self, verdict: Verdict, now: float) -> None:
        """Report the end, once."""
        with self._showing:
            was_active, self.is_active = self.is_active, False
            report = WaitEnded(self.event(verdict, now))
        if was_active:
            self._hand_over(report)

    def _hand_over(self, report: Report) -> bool:
        try:
            self._take_report(report)
        except Exception:  # of a task's log or Airflow's API: other jobs are still to be watched
            logger.exception("Could not hand over a %s of job %s.", type(report).__name__, self.job)
            return False
        return True

    def event(self, verdict: Verdict, now: float) -> dict[str, Any]:
        """Build the event for the job's state now. Lines that are being read don't count as shown."""
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
        """Read and report the news of the job's log; returns how many characters these were, with the job's reports."""
        containers = self._sources(client)
        printed = self.printed.copy()
        lines: list[str] = []
        is_whole = is_final and bool(containers)
        overlap = timedelta(seconds=2 * self.plan.log_interval)
        try:
            for source in containers:
                news = read_news(client.log_store, source, printed, is_final=is_final, overlap=overlap)
                is_whole = is_whole and news is not None
                lines += news or ()
                # A container that is left out of a turn that got too long is first in the next one.
                self._turn += 1
                if printed.characters > _MAX_CHARACTERS and not is_final:
                    break
            printed.is_whole = is_whole
            self._find_endpoints(client, containers, now)
        finally:
            # Also after an error: the next turn starts behind these lines.
            self._show(lines, printed, now)
        return printed.characters

    def _find_endpoints(self, client: MLJobClient, containers: Sequence[Source], now: float) -> None:
        """Ask for the public endpoints of a running job of several instances, until all are provisioned."""
        if self.watch.status is not JobStatus.RUNNING or len({source.instance for source in containers}) <= 1:
            self._endpoints, self._endpoints_due = {}, 0.0
        elif now >= self._endpoints_due:
            self._endpoints_due = now + _ENDPOINTS_SECONDS
            self._endpoints = inspection.endpoints(client, self.job)
            if all(self._endpoints.values()):
                self._endpoints_due = math.inf

    @property
    def cost(self) -> int:
        """The expected number of statements for one turn at the job's log."""
        layout = self._layout
        if layout is None:
            # For the layout, and at least one log.
            return 2
        # Without a specification, the job and its containers are described each time.
        return len(layout.containers) + (0 if layout.is_specified else 2)

    def _sources(self, client: MLJobClient) -> list[Source]:
        """Return the containers of the job, first those that the last turn has left out."""
        if self._layout is None or not self._layout.is_specified:
            # Without a specification, some containers may not be visible yet.
            self._layout = inspection.layout(client, self.job)
            if self._layout.environment:
                self.report(JobEnvironment(self._layout.environment))
        containers = sources(self.job, self._layout.containers)
        first = self._turn % max(1, len(containers))
        return containers[first:] + containers[:first]

    def explain(self, client: MLJobClient, now: float) -> bool:
        """Ask why a PENDING job waits, and report it if that has changed; returns whether a container has started.

        Snowflake shows a job as PENDING for some seconds after that, and a short one until its end.
        """
        containers = inspection.containers(client, self.job)
        if self._learn(client, containers, now):
            self._show([], self.printed, now)
        return any(each.started is not None and not each.is_sidecar for each in containers)

    def learn_why(self, client: MLJobClient, now: float) -> None:
        """Ask why a PENDING job waits, also the platform's events."""
        self._learn(client, inspection.containers(client, self.job), now, is_last=True)

    def _learn(
        self, client: MLJobClient, containers: Sequence[Container], now: float, *, is_last: bool = False
    ) -> bool:
        """Record why a PENDING job waits; returns whether there is a reason.

        Where its containers give none, the platform's events may have it. These cost time of a warehouse, so they are
        asked for after a while, and then less and less often.

        :param is_last: whether to ask for the events in any case.
        """
        pending = [each for each in containers if each.status == "PENDING"]
        # The container of a stage volume waits for the same, or with the others for its image.
        own = [each.message for each in pending if each.message and not each.is_sidecar]
        messages = own or [each.message for each in pending if each.message]
        if not messages and (is_last or self._asks_for_events(now)):
            events = inspection.last_events(client, self.job)
            if events is None:
                self._events_due = math.inf
            messages = [event.message for event in events or () if event.message and event.status == "PENDING"]
        if messages:
            reason = "; ".join(dict.fromkeys(messages))
            self.update(lambda watch: watch.explained(reason, now), now)
        return bool(messages)

    def _asks_for_events(self, now: float) -> bool:
        """Return whether it is time to ask for the events of a job whose containers say nothing, and plan the next."""
        if not self._events_due:
            self._events_due = now + self._events_pause
        if now < self._events_due:
            return False
        self._events_pause = min(2 * self._events_pause, _MAX_EVENTS_PAUSE)
        self._events_due = now + self._events_pause
        return True

    def _show(self, lines: Sequence[str], printed: Printed, now: float) -> None:
        """Report new lines and the state, with the place in the log before these lines.

        The task writes lines and state to different places. If the new place were safe before the lines, a crash in
        between would lose them; so a place is reported one turn late, and a crash repeats some lines.
        """
        state = self._state(printed)
        has_news = bool(lines) or state != self._reported
        with self._showing:
            if not self.is_active:
                return
            report = LogOutput(lines, {**state, "at": _iso(now), **self._place})
            if (has_news or self._is_behind) and not self._hand_over(report):
                return
            self.printed, self._is_behind = printed, has_news
            if has_news:
                self._reported, self._place = state, _place(printed, now)

    def _state(self, printed: Printed) -> dict[str, Any]:
        """Return the job's progress, for people."""
        return {
            "status": self.watch.status.value,
            "timeline": [entry.to_xcom() for entry in self.watch.timeline],
            **printed.reported.to_json(),
            "endpoints": {name: url for name, url in self._endpoints.items() if url},
            **({} if (overdue := self.watch.overdue) is None else {"overdue": overdue.to_json()}),
        }


def _resumed(plan: WaitPlan, state: Mapping[str, Any], mask: Callable[[str], str]) -> tuple[JobWatch, Printed, str]:
    """Return the watch and the place in the log to continue from. If the state can't be read, both are new: see why."""
    watch = JobWatch(plan=plan)
    try:
        timeline = tuple(TimelineEntry.from_xcom(entry) for entry in state.get("timeline", ()))
        overdue = state.get("overdue")
        decision = None if overdue is None else Overdue.from_json(overdue)
        return watch.resumed(timeline, decision), Printed.from_json(state, mask), ""
    except Exception as error:  # noqa: BLE001 (XComs are written by other versions and edited by people)
        return watch, Printed(mask=mask), f"{type(error).__name__}: {error}"


def _limit(watch: JobWatch, overdue: Overdue) -> str:
    """Name the limit of the task that has passed."""
    if overdue.limit == "timeout":
        return f"it has been {watch.status} for longer than the task's timeout of {watch.plan.timeout:g} s"
    return f"it is {watch.status} after the task's {overdue.limit}"


def _is_in_doubt(watch: JobWatch) -> bool:
    """Return whether the last look has not shown the job."""
    return watch.unreachable_since is not None or watch.unseen_since is not None


def _place(printed: Printed, now: float) -> dict[str, Any]:
    """Return the place up to which a log has been shown, and the time."""
    return {**printed.place_to_json(), "shown_until": _iso(now)}


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")
