"""Credentials in URLs: found, so that they can be refused, and replaced by stars."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

from airflow_provider_mljobs.jobs.names import literal
from airflow_provider_mljobs.jobs.values.escaping import to_ascii

STARS = "***"
# As urllib splits a URL: all up to the last "@" before the path. Runs in linear time.
_USER = re.compile(r"(://)([^\s/?#\"<>]*)@")
_PARAMETER = re.compile(
    r"([?&][\w.-]*(?:token|secret|passw(?:or)?d|passphrase|signature|credential|api[_-]?key|access[_-]?key|auth)[\w.-]*"
    r"|[?&](?:sig|key|pwd))=([^&#\s\"'<>]+)",
    re.IGNORECASE,
)
# pip itself expands variables in a requirements file; "***" and "****" are starred already.
_HARMLESS = re.compile(r"(?:\$\{[A-Z0-9_]+\})+|\*+|")


def passwords(text: str) -> list[str]:
    """Return the credentials in the URLs of a text: ``https://user:password@…``, ``https://token@…``, ``?sig=…``.

    The name of a variable (``${TOKEN}``) doesn't count, nor does the user ``git`` alone.
    """
    candidates = [
        *(_password(match[2]) for match in _USER.finditer(text)),
        *(match[2] for match in _PARAMETER.finditer(text)),
    ]
    return [password for password in candidates if not _HARMLESS.fullmatch(password)]


def starred(text: str) -> str:
    """Return a text with stars in place of the credentials in its URLs."""
    # A cheap check first: logs are long, and most have no URL.
    if "://" in text:
        text = _USER.sub(
            lambda match: match[0] if _HARMLESS.fullmatch(_password(match[2])) else f"{match[1]}{STARS}@", text
        )
        text = _PARAMETER.sub(lambda match: match[0] if _HARMLESS.fullmatch(match[2]) else f"{match[1]}={STARS}", text)
    return text


def forms(secret: str) -> list[str]:
    """Return the forms that a secret may take in a text.

    These are the secret itself, each of its lines, as logs are read line by line, its form in a URL, and its forms in
    JSON, in JSON within JSON, and in an SQL literal, which carries a job's environment.
    """
    texts = dict.fromkeys((secret, *secret.splitlines()))
    written = [form[1:-1] for text in texts for form in (_to_json(text), json.dumps(text), to_ascii(text))]
    written += [_to_json(text)[1:-1] for text in written]
    literals = [literal(text)[1:-1] for text in (*texts, *written)]
    return [form for form in dict.fromkeys((*texts, quote(secret, safe=""), *written, *literals)) if form]


def _to_json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _password(user: str) -> str:
    """Return the secret part of ``user:password``; a user without a password is a token, except ``git``."""
    name, _, password = user.partition(":")
    return password or ("" if name == "git" else name)
