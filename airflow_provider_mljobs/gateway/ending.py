"""Cancels jobs patiently: one look or cancel that doesn't find a job doesn't prove that it is gone."""

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
    """Cancel a job unless it is over. A job that nothing shows may live, so it is tried again.

    :param patience: for how many seconds.
    :returns: the last look before the cancel. A job that is still unseen may live on.
    """
    sighting = client.cancel(job)
    for pause in pauses(patience):
        if not sighting.is_unseen:
            break
        time.sleep(pause)
        sighting = client.cancel(job)
    return sighting


def cancel_and_wait(client: MLJobClient, job: QualifiedName, *, seconds: float) -> Sighting:
    """Cancel a job and wait for its end, for a limited time; returns the last look."""
    cancel(client, job, patience=seconds)
    give_up = time.time() + seconds
    while True:
        sighting = client.look(job)
        if sighting.has_ended or time.time() >= give_up:
            return sighting
        time.sleep(_LOOK_AGAIN_SECONDS)
