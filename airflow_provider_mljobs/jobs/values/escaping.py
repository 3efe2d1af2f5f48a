"""Text on its way into a container: what arrives byte for byte, and what can't be sent at all."""

from __future__ import annotations

import json
import re
from typing import Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError

# Printable ASCII without "$" reaches a container as it is written. Kubernetes expands $(NAME), YAML folds some
# characters and refuses others, so the rest travels as JSON in one variable.
_PLAIN = re.compile(r"[ -#%-~]*")
# Linux takes a little more in one string of an environment; the platform's own limit isn't documented.
_MAX_BYTES = 100_000


def is_plain(value: str) -> bool:
    """Tell whether a text arrives as it is written in a specification."""
    return _PLAIN.fullmatch(value) is not None


def to_ascii(value: Any) -> str:
    r"""Write JSON in printable ASCII without ``$``: nothing on its way can expand, fold or end it."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("$", "\\u0024").replace("\x7f", "\\u007f")


def validate_text(value: str, what: str, *, any_size: bool = False) -> None:
    """Refuse text that can't be an argument or an environment value of a process.

    :param what: names the value in the message, e.g. ``args[2]``.
    :param any_size: whether it is handed over within a process, so that no limit of the system's holds.
    :raises InvalidJobSpecError: if it can't.
    """
    if "\0" in value:
        raise InvalidJobSpecError(f"{what} holds a NUL character, which no process can be given.")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidJobSpecError(f"{what} holds half a surrogate pair, which is no valid text.") from None
    if size > _MAX_BYTES and not any_size:
        raise InvalidJobSpecError(
            f"{what} has {size} bytes, more than the {_MAX_BYTES} that one can hold; put it into a file or on a stage."
        )
