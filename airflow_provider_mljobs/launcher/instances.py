"""The instances of a job: all run the same command, and each writes a record of its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
import traceback
from functools import partial
from typing import TYPE_CHECKING, Any

from . import cluster
from .contract import MLJOBS_PARALLEL, MLJOBS_RAY, STOPPED
from .errors import LauncherError
from .results import result_path, write_result
from .streams import say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Instance:
    """The instance of the job that this process runs on; the head has index 0."""

    def __init__(
        self, index: int = 0, count: int = 1, *, is_parallel: bool = False, has_ray: bool | None = None
    ) -> None:
        self.index = index
        self.count = count
        self.is_parallel = is_parallel
        self.has_ray = has_ray
        # A job of one instance has a result only.
        self._keeps_record = count > 1 or is_parallel
        self._is_stopped = False
        self._cluster = contextlib.ExitStack()

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Instance:
        """Read the environment, where the platform numbers the instances of a job."""
        return cls(
            int(environ.get("SNOWFLAKE_JOB_INDEX") or 0),
            int(environ.get("SNOWFLAKE_JOBS_COUNT") or 1),
            is_parallel=environ.get(MLJOBS_PARALLEL) == "1",
            has_ray=environ[MLJOBS_RAY] == "1" if MLJOBS_RAY in environ else None,
        )

    def listen(self) -> None:
        """When the platform stops this instance, write its record and let the payload clean up."""
        if not self._keeps_record:
            return
        signal.signal(signal.SIGTERM, self._stop)

        def let_go() -> None:
            if signal.getsignal(signal.SIGTERM) == self._stop:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
            unblock()

        # Children that the payload forks keep the default behaviour, also if they are stopped in their first moment.
        unblock = partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, [signal.SIGTERM])
        block = partial(signal.pthread_sigmask, signal.SIG_BLOCK, [signal.SIGTERM])
        os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=let_go)

    def run(self, payload: Callable[[], Any], *, imports_ray: bool = False) -> Any:
        """Run the payload, or work for the instance that runs it.

        :param imports_ray: whether the payload imports Ray, which decides where the job doesn't.
        """
        if self.is_parallel:
            return payload()
        if self.count == 1:
            self._start_ray(imports_ray=imports_ray)
            return payload()
        if self.index:
            return cluster.work(self.index, self.count)
        # The cluster lives until the result is written, which may still read objects of it.
        self._cluster.enter_context(cluster.head(self.index, self.count))
        return payload()

    def _start_ray(self, *, imports_ray: bool) -> None:
        if not (self.has_ray or (self.has_ray is None and imports_ray and cluster.is_installed())):
            return
        try:
            self._cluster.enter_context(cluster.alone())
        except (LauncherError, TimeoutError) as error:
            if self.has_ray:
                raise
            say(f"The payload imports Ray and runs without it: {error}", sys.stderr)

    def end(self, value: Any, code: int) -> int:
        """Write the result, and the record of an instance of several; return the exit code."""
        with self._cluster:
            if not self._keeps_record:
                write_result(value, success=not code, exit_code=code)
                return code
            # A stop now comes too late.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if isinstance(value, SystemExit) and _raised_by_ray(value):
                # Ray handles the signal itself, and raises this in connected processes.
                self._record_stop()
            if self._is_stopped:
                return STOPPED
            path = result_path()
            if self.index:
                path = path.parent / "instances" / str(self.index) / path.name
            result = write_result(value, success=not code, exit_code=code, path=path)
            self._record({**result, "exit_code": code, "exc": result["metadata"] if code else None})
            return code

    def _stop(self, *_: object) -> None:
        self._record_stop()
        raise SystemExit(STOPPED)

    def _record_stop(self) -> None:
        if not self._is_stopped:
            self._is_stopped = True
            self._record({"exit_code": STOPPED, "exc": None})
            say(f"Instance {self.index} of {self.count} was stopped.", sys.stderr)

    def _record(self, record: dict[str, Any]) -> None:
        file = result_path().parent / "instances" / f"{self.index}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({**record, "ended_at": time.time()}), "utf-8")


def _raised_by_ray(end: SystemExit) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(end.__traceback__)]
    return bool(frames) and frames[-1].f_globals.get("__name__", "").startswith("ray.")
