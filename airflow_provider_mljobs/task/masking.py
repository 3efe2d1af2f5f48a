"""Masks secrets in texts about a job: in whole texts, before anything is cut, and for no longer than the job."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.jobs.credentials import forms, passwords, starred
from airflow_provider_mljobs.task.airflow_internals import empty_masker, redact

if TYPE_CHECKING:
    from collections.abc import Mapping

# Everyday words and numbers, which are no secrets.
_EVERYDAY = re.compile(
    r"true|false|yes|no|on|off|none|null|auto|default|[-+]?[0-9.]{0,7}(e[-+]?[0-9]+)?", re.IGNORECASE
)


class Mask:
    """Stars secrets in texts about one job: of its environment, of Airflow's own masker, and in addresses.

    Airflow's masker never forgets a secret, and compiles all of them again for each new one. A triggerer lives for
    weeks and watches thousands of jobs, so each job's secrets have a mask of their own.
    """

    def __init__(self) -> None:
        self._masker: Any = None

    def learn(self, environment: Mapping[str, str]) -> None:
        """Also star the values of variables whose names Airflow takes for secret.

        ``MAX_TOKENS`` is such a name; everyday words and numbers are not starred.
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
    """Star the secrets of Airflow's masker in a text, and credentials in addresses."""
    return starred(str(redact(text)))


def secrets(environment: Mapping[str, str]) -> tuple[dict[str, Any], list[Any]]:
    """Return the possible secrets of an environment, each in all its forms.

    :returns: values by the names of their variables, and the passwords in addresses, under any name.
    """
    by_name = {
        name: [form for form in forms(value) if not _EVERYDAY.fullmatch(form)] for name, value in environment.items()
    }
    in_addresses = [password for value in environment.values() for password in passwords(value)]
    return by_name, [form for password in in_addresses for form in forms(password) if not _EVERYDAY.fullmatch(form)]
