"""The notes that the tries of a task leave for each other in Airflow's task state store."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.exceptions import UnreadableError
from airflow_provider_mljobs.gateway.outcome import Outcome
from airflow_provider_mljobs.jobs.attempts import Record
from airflow_provider_mljobs.jobs.untrusted import reading
from airflow_provider_mljobs.task.airflow_internals import NEVER_EXPIRE
from airflow_provider_mljobs.task.timeout_signals import held_back

if TYPE_CHECKING:
    from pydantic import JsonValue

    from airflow_provider_mljobs.jobs.names import QualifiedName

_RECORD_KEY = "mljob"
# A saved result is stored in pieces beside the record: Airflow warns of values of more than 64 KB.
_PIECE_KEY, _PIECE_CHARACTERS = "mljob_left_{number}", 60_000
# Covers a crash between the end of a job and that of its task.
_RESULT_RETENTION = timedelta(days=7)


class JobMemory:
    """The record of a task's job, and the saved outcome of a job that succeeded.

    The store survives retries and clears of the task; Airflow removes it with the DAG run.

    :param store: Airflow's task state store; ``None`` for a task that isn't durable, or an Airflow without one.
    """

    def __init__(self, store: Any, log: Any) -> None:
        self._store = store
        self._log = log

    def __bool__(self) -> bool:
        return self._store is not None

    def save(self, record: Record) -> None:
        """Save how far the task has come with its job."""
        if self:
            with held_back():
                self._store.set(_RECORD_KEY, record.to_json(), retention=NEVER_EXPIRE)

    def load(self) -> Record | None:
        """Return the record of an earlier try, or of an earlier phase of this one."""
        if not self:
            return None
        with held_back():
            document = self._store.get(_RECORD_KEY)
        return None if document is None else Record.from_json(document)

    def save_outcome(self, record: Record, outcome: Outcome) -> Record:
        """Save the outcome of a job that succeeded, and then the success; returns the new record."""
        record = record.succeeded()
        if self:
            text = json.dumps(outcome.to_json())
            starts = range(0, len(text), _PIECE_CHARACTERS)
            for number, start in enumerate(starts):
                piece: JsonValue = {"of": len(starts), "text": text[start : start + _PIECE_CHARACTERS]}
                self._store.set(_PIECE_KEY.format(number=number), piece, retention=_RESULT_RETENTION)
            self.save(record)
        return record

    def load_outcome(self, job: QualifiedName) -> Outcome | None:
        """Return the saved outcome of a job; ``None`` if it has expired or can't be read."""
        texts: list[str] = []
        try:
            while self:
                piece = self._store.get(_PIECE_KEY.format(number=len(texts)))
                if not isinstance(piece, dict):
                    return None
                with reading("The saved result"):
                    texts.append(str(piece["text"]))
                    is_last = len(texts) == piece["of"]
                if is_last:
                    return Outcome.from_json("".join(texts), job)
        except UnreadableError as error:
            self._log.warning("%s", error)
        return None
