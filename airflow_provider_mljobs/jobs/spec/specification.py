"""The author's service specifications, and overrides of the provider's own: read, checked and merged."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, UnreadableError
from airflow_provider_mljobs.jobs.spec.documents import below, excerpt, plain, select
from airflow_provider_mljobs.jobs.untrusted import read_json, read_yaml
from airflow_provider_mljobs.jobs.values.escaping import validate_text

_OVERRIDES = "spec_overrides"
_TOP = ("spec", "capabilities", "serviceRoles")
_TAG = re.compile(r"\{\{(?P<expression>.*?)\}\}|\{%(?P<statement>.*?)%\}", re.DOTALL)
_VARIABLE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(?:\|(.*))?", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_BOUND = re.compile(r"-?\s*(?:set|for)\s+([A-Za-z_][A-Za-z0-9_]*)")
_DEFAULT = re.compile(r"(?:^|\|)\s*default\b")


def parse(source: object) -> dict[str, Any]:
    """Read a service specification."""
    if isinstance(source, str):
        try:
            document = read_yaml(source, "spec")
        except UnreadableError as error:
            raise InvalidJobSpecError(str(error)) from error
    elif isinstance(source, Mapping):
        document = plain(source, "")
    else:
        raise InvalidJobSpecError(f"spec must be a dict or a text in YAML, got {excerpt(source)}.")
    if not isinstance(document, dict):
        raise InvalidJobSpecError(f"spec must be a mapping with the key 'spec', got {excerpt(document)}.")
    return document


def merge(
    document: Mapping[str, Any],
    overrides: object,
    *,
    protected: Collection[str] = (),
    required_containers: Collection[str] = (),
) -> dict[str, Any]:
    """Merge overrides into a specification: as RFC 7386 merges JSON, except that lists of named items merge by name.

    ``None`` removes a key. Items that share a name, as a volume mounted twice, are merged in order. Other lists are
    replaced.

    :param protected: volumes that can't be changed, removed, or mounted elsewhere.
    :param required_containers: containers that can't be removed.
    """
    patch = plain(overrides, _OVERRIDES)
    if not isinstance(patch, dict):
        raise InvalidJobSpecError(f"{_OVERRIDES} must be a dict in the shape of a specification, got {excerpt(patch)}.")
    if unknown := [key for key in patch if key not in _TOP]:
        raise InvalidJobSpecError(
            f"{below(_OVERRIDES, unknown[0])} is unknown: {_OVERRIDES} has the shape of a specification, e.g. "
            "{'spec': {'containers': [{'name': 'main', …}]}}."
        )
    _refuse_removals(patch, protected, required_containers)
    _refuse_protected(patch, protected)
    merged: dict[str, Any] = _merged(plain(document, "spec"), patch, _OVERRIDES)
    return merged


def is_template(text: str) -> bool:
    """Whether a text is a template for Snowflake to fill in."""
    return _TAG.search(text) is not None


def template_variables(text: str) -> tuple[str, ...]:
    """Return the variables without a default, in order."""
    bound = {match[1] for tag in _TAG.finditer(text) if (match := _BOUND.match(tag["statement"] or ""))}
    expressions = (_VARIABLE.fullmatch((tag["expression"] or "").strip("-+")) for tag in _TAG.finditer(text))
    needed = (match[1] for match in expressions if match and not _DEFAULT.search(match[2] or ""))
    return tuple(dict.fromkeys(name for name in needed if name not in bound))


def validate_using(using: object, *, template: str | None = None) -> None:
    """Refuse values that Snowflake's templates can't use.

    :param using: the values of variables: numbers, booleans, lists and dicts; a string must be alphanumeric or JSON.
    :param template: the template, to find variables without a value, and values without a variable.
    """
    if not isinstance(using, Mapping):
        raise InvalidJobSpecError(f"using must map names of variables to values, got {excerpt(using)}.")
    for name, value in using.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidJobSpecError(
                f"{excerpt(name)} in using can't be the name of a variable: use letters, digits and '_', a letter "
                "first."
            )
        _validate_value(plain(value, f"using[{name!r}]"), f"using[{name!r}]")
    if template is not None:
        _compare(using, template)


def _validate_value(value: Any, path: str) -> None:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    validate_text(text, path)
    if not re.fullmatch(r"[A-Za-z0-9]+", text) and not _is_json(text):
        raise InvalidJobSpecError(
            f"{path} {excerpt(value)} is neither alphanumeric nor JSON, as Snowflake's templates require; write it as "
            "a JSON string, e.g. '\"/db/schema/repository/image:1.0\"'."
        )


def _is_json(text: str) -> bool:
    try:
        read_json(text, "The value")
    except UnreadableError:
        return False
    return True


def _compare(using: Mapping[str, Any], template: str) -> None:
    needed = template_variables(template)
    if missing := [name for name in needed if name not in using]:
        raise InvalidJobSpecError(f"using has no value for {', '.join(missing)}, which the template needs.")
    names = {name for tag in _TAG.finditer(template) for name in _NAME.findall(tag[0])}
    if unknown := [name for name in using if name not in names]:
        raise InvalidJobSpecError(
            f"using has a value for {', '.join(unknown)}, which the template doesn't have; names are case-sensitive."
        )


def _refuse_removals(patch: Mapping[str, Any], protected: Collection[str], required: Collection[str]) -> None:
    for pattern, needed in (
        ("spec", (*required, *protected)),
        ("spec.containers", required),
        ("spec.volumes", protected),
        ("spec.containers[].volumeMounts", protected),
    ):
        for path, value in select(patch, pattern, _OVERRIDES):
            if needed and value in (None, []):
                raise InvalidJobSpecError(f"{path} can't be removed: the job needs {', '.join(needed)}.")


def _refuse_protected(patch: Mapping[str, Any], protected: Collection[str]) -> None:
    for pattern, change in (("spec.volumes[]", "changed"), ("spec.containers[].volumeMounts[]", "mounted elsewhere")):
        for path, item in select(patch, pattern, _OVERRIDES):
            if isinstance(item, dict) and item.get("name") in protected:
                raise InvalidJobSpecError(
                    f"{path}: volume {item['name']} belongs to the provider and can't be {change}; choose another name."
                )


def _merged(base: Any, patch: Any, path: str) -> Any:
    if isinstance(base, dict | list) and not isinstance(patch, type(base)):
        kind = "mapping" if isinstance(base, dict) else "list"
        raise InvalidJobSpecError(f"{path} must be a {kind}, as it is in the specification; got {excerpt(patch)}.")
    if isinstance(patch, dict):
        merged = dict(base) if isinstance(base, dict) else {}
        for key, value in patch.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = _merged(merged.get(key), value, below(path, key))
        return merged
    if patch and isinstance(base, list) and base and all(_is_named(item) for item in base):
        return _merged_by_name(base, patch, path)
    return patch


def _merged_by_name(base: list[Any], patch: list[Any], path: str) -> list[Any]:
    for index, item in enumerate(patch):
        if not _is_named(item):
            raise InvalidJobSpecError(
                f"{path}[{index}] needs a name to be merged by; the specification has "
                f"{', '.join(each['name'] for each in base)}."
            )
    merged = dict(_numbered(base))
    for index, (key, item) in enumerate(_numbered(patch)):
        merged[key] = _merged(merged.get(key), item, f"{path}[{index}]")
    return list(merged.values())


def _is_named(item: Any) -> bool:
    return isinstance(item, dict) and isinstance(item.get("name"), str)


def _numbered(items: list[Any]) -> Iterator[tuple[tuple[str, int], Any]]:
    seen: dict[str, int] = {}
    for item in items:
        seen[item["name"]] = seen.get(item["name"], 0) + 1
        yield (item["name"], seen[item["name"]]), item
