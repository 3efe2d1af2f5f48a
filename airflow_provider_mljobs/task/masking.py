"""Secrets in a job's texts: starred as whole texts, before anything is cut, and forgotten with the job."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.jobs.credentials import forms, passwords, starred
from airflow_provider_mljobs.task.airflow_internals import empty_masker, redact

if TYPE_CHECKING:
    from collections.abc import Mapping

# Words and numbers that no secret is made of.
_EVERYDAY = re.compile(
    r"true|false|yes|no|on|off|none|null|auto|default|[-+]?[0-9.]{0,7}(e[-+]?[0-9]+)?", re.IGNORECASE
)


class Mask:
    """Stars secrets in texts about one job: those of its environment, those that Airflow knows, and addresses'.

    Airflow's own masker keeps a secret as long as the process lives and compiles all of them again for each new one.
    A triggerer lives for weeks and watches thousands of jobs, so what it learns of one is kept here.
    """

    def __init__(self) -> None:
        self._masker: Any = None

    def learn(self, environment: Mapping[str, str]) -> None:
        """Star the values of variables that are secret by their names, from now on.

        ``MAX_TOKENS`` is secret by its name, too; the words and numbers that it may hold are not.
        """
        masker = empty_masker()
        by_name, others = secrets(environment)
        masker.add_mask(by_name)
        masker.add_mask(others)
        self._masker = masker

    def __call__(self, text: str) -> str:
        """Return the text with stars."""
        if self._masker is not None:
            text = str(self._masker.redact(text))
        return star(text)


def star(text: str) -> str:
    """Return a text with stars in place of what Airflow knows to be secret, and of credentials in addresses."""
    return starred(str(redact(text)))


def secrets(environment: Mapping[str, str]) -> tuple[dict[str, Any], list[Any]]:
    """Return what may be secret in an environment: by the names of the variables, and in addresses whatever these are.

    Each secret is there in all its forms.
    """
    by_name = {
        name: [form for form in forms(value) if not _EVERYDAY.fullmatch(form)] for name, value in environment.items()
    }
    found = [password for value in environment.values() for password in passwords(value)]
    return by_name, [form for password in found for form in forms(password) if not _EVERYDAY.fullmatch(form)]
