"""Statements of routes, filled with the parts of a request."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_mljobs.emulator.parsing import parse_name
from airflow_provider_mljobs.emulator.server.rest.properties import (
    checked,
    clauses,
    flag,
    identifier,
    invalid,
    literal,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow_provider_mljobs.emulator.server.rest.properties import Properties

_PART = re.compile(r"\{(\w+)\}")
_MODES = {
    "errorIfExists": ("CREATE", ""),
    "orReplace": ("CREATE OR REPLACE", ""),
    "ifNotExists": ("CREATE", "IF NOT EXISTS"),
}
# The parameters behind the question mark that the parts below read.
PARAMETERS = frozenset({
    "createMode", "ifExists", "kind", "initiallySuspended", "like", "startsWith", "showLimit", "fromName", "pattern",
    "deleteMode", "instanceId", "containerName", "numLines", "timeout",
})  # fmt: skip
# Parameters of a path that are no names of objects.
_WORDS = {"grantee_type"}


@dataclass(frozen=True)
class Call:
    """A request that a route has matched.

    :param path: the parameters in the path.
    :param query: those behind the question mark.
    :param body: the JSON object.
    :param properties: the properties that the body may set.
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Mapping[str, Any]
    properties: Properties

    def statement(self, template: str) -> str:
        """Fill a template: ``{part}`` is a parameter of the path or one of the parts below."""
        filled = (_PART.sub(lambda match: self._part(match[1]), word) for word in template.split(" "))
        return " ".join(filter(None, filled))

    def _part(self, part: str) -> str:
        if part in self.path:
            return (words if part in _WORDS else identifier)(self.path[part])
        return _PARTS[part](self)

    def required(self, key: str, kind: type = str) -> Any:
        """Return a value of the body; raises if it is missing."""
        if self.body.get(key) is None:
            raise invalid(f"the property {key!r} is missing.")
        return checked(key, self.body[key], kind)


def _mode(call: Call) -> tuple[str, str]:
    mode = call.query.get("createMode", "errorIfExists")
    if mode not in _MODES:
        raise invalid(f"createMode must be one of {', '.join(_MODES)}, not {mode!r}.")
    return _MODES[mode]


def _properties(call: Call) -> str:
    in_query = {"initially_suspended": call.query["initiallySuspended"]} if "initiallySuspended" in call.query else {}
    return clauses(call.properties, {**call.body, **in_query})


def _if_exists(call: Call) -> str:
    return "IF EXISTS" if call.query.get("ifExists", "").lower() == "true" else ""


def _kind(call: Call) -> str:
    kind = str(call.body.get("kind") or call.query.get("kind") or "").upper()
    return "" if kind == "PERMANENT" else words(kind) if kind else ""


def _listing(call: Call) -> str:
    """Write the clauses of SHOW behind the scope."""
    query = call.query
    starts_with = f"STARTS WITH {literal(query['startsWith'])}" if "startsWith" in query else ""
    limit = f"LIMIT {_integer(query, 'showLimit')}" if "showLimit" in query else ""
    after = f"FROM {literal(query['fromName'])}" if limit and "fromName" in query else ""
    return " ".join(filter(None, (starts_with, limit, after)))


def _exactly(call: Call) -> str:
    """Write the LIKE clause that matches the path's name."""
    return "LIKE " + literal(re.sub(r"([\\%_])", r"\\\1", parse_name(call.path["name"]).name))


def _integer(query: Mapping[str, str], key: str) -> str:
    if not query.get(key, "").isdecimal():
        raise invalid(f"{key} must be a number, not {query.get(key)!r}.")
    return query[key]


def _specification(call: Call) -> str:
    spec = call.required("spec", dict)
    if spec.get("spec_type") == "from_file":
        stage = str(spec.get("stage", "")).removeprefix("@")
        return f"@{identifier(stage)} SPECIFICATION_FILE = {literal(str(spec.get('spec_file', '')))}"
    return f"SPECIFICATION {literal(checked('spec_text', spec.get('spec_text'), str))}"


def _granted(call: Call) -> str:
    """Write the object of GRANT and REVOKE: a role, or privileges on an object."""
    privileges = [call.path["privilege"]] if "privilege" in call.path else call.body.get("privileges")
    if not privileges:
        return _securable(call)
    listed = ", ".join(words(checked("privileges", privilege, str)) for privilege in privileges)
    return f"{listed} ON {_securable(call)}"


def _securable(call: Call) -> str:
    """Write the object that the path or the body names."""
    if "securable_type" in call.path:
        kind, names = words(call.path["securable_type"]), [call.path["securable_name"]]
    else:
        kind, securable = words(call.required("securable_type")), call.body.get("securable") or {}
        parts = (checked("securable", securable, dict).get(part) for part in ("database", "schema", "name"))
        names = [checked("securable", part, str) for part in parts if part is not None]
    return kind if kind == "ACCOUNT" else f"{kind} {'.'.join(map(identifier, names))}"


def _logs(call: Call) -> str:
    service = literal(call.statement("{database}.{schema}.{name}"))
    container = literal(call.query.get("containerName", ""))
    lines = f", {_integer(call.query, 'numLines')}" if "numLines" in call.query else ""
    return f"SYSTEM$GET_SERVICE_LOGS({service}, {_integer(call.query, 'instanceId')}, {container}{lines})"


def _status(call: Call) -> str:
    service = literal(call.statement("{database}.{schema}.{name}"))
    timeout = f", {_integer(call.query, 'timeout')}" if "timeout" in call.query else ""
    return f"SYSTEM$GET_SERVICE_STATUS({service}{timeout})"


_PARTS: Mapping[str, Callable[[Call], str]] = {
    "create": lambda call: _mode(call)[0],
    "if_not_exists": lambda call: _mode(call)[1],
    "if_exists": _if_exists,
    "kind": _kind,
    "new": lambda call: identifier(call.required("name")),
    "properties": _properties,
    "like": lambda call: f"LIKE {literal(call.query['like'])}" if "like" in call.query else "",
    "exactly": _exactly,
    "pattern": lambda call: f"PATTERN = {literal(call.query['pattern'])}" if "pattern" in call.query else "",
    "listing": _listing,
    "compute_pool": lambda call: identifier(call.required("compute_pool")),
    "specification": _specification,
    "asynchronous": lambda call: flag("async", call.body["is_async_job"]) if call.body.get("is_async_job") else "",
    "granted": _granted,
    "grant_option": lambda call: "WITH GRANT OPTION" if call.body.get("grant_option") else "",
    "cascade": lambda call: "CASCADE" if call.query.get("deleteMode") == "cascade" else "",
    "logs": _logs,
    "status": _status,
}
