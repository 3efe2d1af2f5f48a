"""Credentials in addresses: refused where others can read them, and starred where they appear all the same."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

from airflow_provider_mljobs.jobs.names import literal
from airflow_provider_mljobs.jobs.values.escaping import to_ascii

STARS = "***"
# As urllib splits an address: all up to the last "@" before the path. Linear in any text.
_USER = re.compile(r"(://)([^\s/?#\"<>]*)@")
_PARAMETER = re.compile(
    r"([?&][\w.-]*(?:token|secret|passw(?:or)?d|passphrase|signature|credential|api[_-]?key|access[_-]?key|auth)[\w.-]*"
    r"|[?&](?:sig|key|pwd))=([^&#\s\"'<>]+)",
    re.IGNORECASE,
)
# pip puts the values of variables into the lines of a requirements file; "***" and "****" are starred already.
_HARMLESS = re.compile(r"(?:\$\{[A-Z0-9_]+\})+|\*+|")


def passwords(text: str) -> list[str]:
    """Return the credentials in the addresses of a text: ``https://user:password@…``, ``https://token@…``, ``?sig=…``.

    A name of a variable (``${TOKEN}``) is none, nor is the user ``git`` alone.
    """
    found = [
        *(_password(match[2]) for match in _USER.finditer(text)),
        *(match[2] for match in _PARAMETER.finditer(text)),
    ]
    return [password for password in found if not _HARMLESS.fullmatch(password)]


def starred(text: str) -> str:
    """Return a text with stars in place of the credentials in its addresses."""
    # Most texts have no address, and logs are long.
    if "://" in text:
        text = _USER.sub(lambda match: match[0] if not _is_secret(match[2]) else f"{match[1]}{STARS}@", text)
        text = _PARAMETER.sub(lambda match: match[0] if _HARMLESS.fullmatch(match[2]) else f"{match[1]}={STARS}", text)
    return text


def forms(secret: str) -> list[str]:
    """Return a secret in the forms that texts may have it in.

    As it is; each line of it, since logs are read line by line; as addresses write it; and as JSON writes it, also
    JSON in JSON and in the literal of a statement, by which a job's environment travels.
    """
    texts = dict.fromkeys((secret, *secret.splitlines()))
    written = [write(text) for text in texts for write in (_in_json, _in_ascii_json, _as_transported)]
    written += [_in_json(text) for text in written]
    literals = [literal(text)[1:-1] for text in (*texts, *written)]
    return [form for form in dict.fromkeys((*texts, quote(secret, safe=""), *written, *literals)) if form]


def _in_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _in_ascii_json(text: str) -> str:
    return json.dumps(text)[1:-1]


def _as_transported(text: str) -> str:
    return to_ascii(text)[1:-1]


def _is_secret(user: str) -> bool:
    return not _HARMLESS.fullmatch(_password(user))


def _password(user: str) -> str:
    """Return what of ``user:password`` is secret; a user without a password is a token, but for ``git``."""
    name, _, password = user.partition(":")
    return password or ("" if name == "git" else name)
