"""A git repository as a source: its address, the revision and directory in it, the secret to read it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.credentials import starred
from airflow_provider_mljobs.jobs.names import Identifier
from airflow_provider_mljobs.jobs.payload.files import inside

if TYPE_CHECKING:
    from collections.abc import Callable

# The container has the files of a GitSource's secret here.
GIT_SECRET_DIRECTORY = "/run/mljobs/git"  # noqa: S105 (a path)
_GIT_REF = re.compile(r"(?![-/.])(?!.*(\.\.|//|@\{|\.lock$|[/.]$))[^\x00-\x20\x7f~^:?*\[\\]+")
_URL = re.compile(r"[^\x00-\x20\x7f?#\\]+")
_TEMPLATE = re.compile(r"\{\{|\{%")


@dataclass(frozen=True)
class GitSource:
    """A git repository, which the job clones. XCom ``git_commit`` has the commit.

    The job reaches the repository's host only through an external access integration. Fields may be templates.

    :param url: its address: ``https://…``, or ``file://…`` for a repository on a volume.
    :param ref: branch, tag or commit.
    :param path: the directory in it that becomes the job's working directory; the whole repository by default.
    :param secret: the Snowflake secret with the credentials: of type PASSWORD, GENERIC_STRING (a token) or OAUTH2.
    :raises InvalidJobSpecError: if a field is invalid.

    Example::

        GitSource("https://github.com/acme/models", "v1.2", path="churn", secret="ml.secrets.github")
    """

    url: str
    ref: str
    path: str = ""
    secret: str | None = None

    def __post_init__(self) -> None:
        """Refuse invalid fields; templates are validated when they are rendered."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) and (field.name != "secret" or value is not None):
                raise InvalidJobSpecError(f"GitSource: {field.name} must be a text, got {value!r}.")
        self.validate(templates=True)

    def validate(self, *, templates: bool = False) -> None:
        """Refuse an invalid repository.

        :param templates: whether to skip fields that are templates.
        :raises InvalidJobSpecError: naming the field.
        """
        checks: dict[str, Callable[[str], object]] = {
            "url": lambda url: _validate_url(url, self.secret),
            "ref": _validate_ref,
            "path": lambda path: inside(path or ".", f"GitSource: path {path!r}", "the repository"),
            "secret": lambda secret: Identifier.parse_path(secret, "GitSource: secret", most=3),
        }
        for name, check in checks.items():
            value = getattr(self, name)
            if value is not None and not (templates and _TEMPLATE.search(value)):
                check(value)


def _validate_ref(ref: str) -> None:
    if not _GIT_REF.fullmatch(ref):
        raise InvalidJobSpecError(f"GitSource: ref {ref!r} can't be a branch, a tag or a commit.")


def _validate_url(url: str, secret: str | None) -> None:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        # Python's message may hold the credentials.
        raise InvalidJobSpecError(f"GitSource: url {starred(url)!r} is no valid address.") from None
    if parts.scheme not in {"https", "http", "file"}:
        raise InvalidJobSpecError(
            f"GitSource: url of {url.rpartition('@')[2]!r} must begin with https://: the job has no key for ssh. "
            "For credentials name a Snowflake secret: secret='db.schema.name'."
        )
    if "@" in parts.netloc:
        # Without the url, whose credentials would be in the log.
        raise InvalidJobSpecError(
            f"GitSource: the url of host {host!r} holds credentials, and the job's specification would "
            "show them. Put them into a Snowflake secret and name it: secret='db.schema.name'."
        )
    if not _URL.fullmatch(url) or bool(host) is (parts.scheme == "file"):
        raise InvalidJobSpecError(
            f"GitSource: url {starred(url)!r} is no address of a repository. Write one with host and path, without "
            "spaces, '?' and '#', e.g. 'https://github.com/acme/models'."
        )
    if parts.scheme == "http" and secret is not None and not _is_loopback(str(host)):
        raise InvalidJobSpecError(f"GitSource: url {url!r} would send the secret unencrypted; use https://.")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
