"""Text for a container: escaped to arrive byte for byte, and validated."""

from __future__ import annotations

import json
import re
from typing import Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError

# Printable ASCII without "$" reaches a container as it is written. Kubernetes expands $(NAME), YAML folds some
# characters and refuses others, so the rest travels as JSON in one variable.
_PLAIN = re.compile(r"[ -#%-~]*")
# Linux takes a little more in one string of an environment; the platform's limit isn't documented.
_MAX_BYTES = 100_000


def is_plain(value: str) -> bool:
    """Return whether a text arrives as written in a specification."""
    return _PLAIN.fullmatch(value) is not None


def to_ascii(value: Any) -> str:
    r"""Write JSON in printable ASCII without ``$``, which no reader on the way expands, folds or ends."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("$", "\\u0024").replace("\x7f", "\\u007f")


def validate_text(value: str, label: str, *, any_size: bool = False) -> None:
    """Refuse text that can't be an argument or an environment variable of a process.

    :param any_size: whether the value stays within a process, which has no limit of its size.
    """
    if "\0" in value:
        raise InvalidJobSpecError(f"{label} holds a NUL character, which no process accepts. Remove it.")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidJobSpecError(f"{label} holds half a surrogate pair, which is no valid text. Remove it.") from None
    if size > _MAX_BYTES and not any_size:
        raise InvalidJobSpecError(
            f"{label} has {size} bytes, more than the limit of {_MAX_BYTES}. Pass it in a file or on a stage."
        )
