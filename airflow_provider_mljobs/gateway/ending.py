"""Cancels jobs, as far as Snowflake alone is concerned; logs and XComs of the task are the shell's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from airflow_provider_mljobs.jobs.outcome.sightings import MAX_UNSEEN_SECONDS, pauses

if TYPE_CHECKING:
    from airflow_provider_mljobs.gateway.client import MLJobClient
    from airflow_provider_mljobs.jobs.names import QualifiedName
    from airflow_provider_mljobs.jobs.outcome.sightings import Sighting

_LOOK_AGAIN_SECONDS = 1.0


def cancel(client: MLJobClient, job: QualifiedName, *, patience: float = MAX_UNSEEN_SECONDS) -> Sighting:
    """Cancel a job unless it is over; one that nothing shows again and again, since it may live.

    :param patience: for how many seconds.
    :returns: what was seen of it before it was cancelled. One that is unseen after all may live on.
    """
    sighting = client.cancel(job)
    for pause in pauses(patience):
        if not sighting.is_unseen:
            break
        time.sleep(pause)
        sighting = client.cancel(job)
    return sighting


def cancel_and_wait(client: MLJobClient, job: QualifiedName, *, seconds: float) -> Sighting:
    """Cancel a job, and look at it until it has ended, but for no longer than so many seconds."""
    cancel(client, job, patience=seconds)
    give_up = time.time() + seconds
    while True:
        sighting = client.look(job)
        if sighting.has_ended or time.time() >= give_up:
            return sighting
        time.sleep(_LOOK_AGAIN_SECONDS)
