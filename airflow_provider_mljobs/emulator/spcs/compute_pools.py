"""The compute pools of the account: created, changed and dropped, also after a restart."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.errors import already_exists, does_not_exist
from airflow_provider_mljobs.emulator.identity import ROLE
from airflow_provider_mljobs.emulator.settings import Ready
from airflow_provider_mljobs.emulator.spcs.pool import Pool, PoolOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from airflow_provider_mljobs.emulator.spcs.scheduler import Scheduler
    from airflow_provider_mljobs.emulator.spcs.state_file import StateFile

KIND = "Compute pool"
_SYSTEM_POOLS = {
    "SYSTEM_COMPUTE_POOL_CPU": PoolOptions(1, 150, "CPU_X64_S", auto_suspend_secs=259200),
    "SYSTEM_COMPUTE_POOL_GPU": PoolOptions(1, 50, "GPU_NV_S", auto_suspend_secs=600),
}


class ComputePools:
    """The compute pools of the account.

    :param scheduler: runs jobs on them; its lock guards them.
    :param state: where they survive a restart.
    :param ready: when a new pool is up.
    :param scarce: instance families without capacity.
    """

    def __init__(self, scheduler: Scheduler, state: StateFile, ready: Ready, scarce: Collection[str] = ()) -> None:
        self._scheduler = scheduler
        self._state = state
        self._ready = ready
        self._scarce = scarce
        self.by_name = scheduler.pools
        # The announced maintenance: begin and end.
        self.maintenance: tuple[float, float] | None = None
        now = time.time()
        for name, record in state.objects(KIND):
            self.by_name[name] = Pool.restore(json.loads(record), now)
        for name, options in _SYSTEM_POOLS.items():
            if name not in self.by_name:
                self.by_name[name] = Pool(name, options, "", now, Ready(), system=True, idle_since=now)
        for pool in self.by_name.values():
            pool.scarce = scarce

    def owner(self, path: tuple[str, ...]) -> str | None:
        """Return the role that made a pool; ``None`` if no pool has that name."""
        pool = self.by_name.get(path[0])
        return None if pool is None else pool.owner or ROLE

    def get(self, name: str) -> Pool:
        """Return a pool; raises 2003 if no pool has that name."""
        pool = self.by_name.get(name)
        if pool is None:
            raise does_not_exist(KIND, name)
        return pool

    def create(self, name: str, options: PoolOptions, owner: str, *, suspended: bool) -> Pool:
        """Create a pool; raises 2002 if the name is taken."""
        with self._scheduler.lock:
            if name in self.by_name:
                raise already_exists(name)
            now = time.time()
            pool = Pool(
                name, options, owner, now, self._ready, suspended=suspended, idle_since=now, scarce=self._scarce
            )
            self.by_name[name] = pool
            self._save(pool)
        return pool

    def change(self, pool: Pool, change: Callable[[Pool, float], None]) -> None:
        """Change a pool and start the jobs that can start now."""
        with self._scheduler.lock:
            change(pool, time.time())
            self._save(pool)
            self._scheduler.schedule(pool.name)

    def drop(self, pool: Pool) -> None:
        """Delete a pool; the caller ends its jobs."""
        with self._scheduler.lock:
            self.by_name.pop(pool.name, None)
            self._state.delete_object(KIND, pool.name)

    def flush(self) -> None:
        """Wait until all changes are on disk."""
        self._state.flush()

    def _save(self, pool: Pool) -> None:
        self._state.save_object(KIND, pool.name, json.dumps(pool.record()))
