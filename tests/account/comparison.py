"""Compares the embedded Snowflake's answer to a statement with a recorded one."""

import re

# Only accounts of edition Business Critical have these.
_OF_AN_EDITION = {"privatelink_ingress_url", "privatelink_repository_url"}


def differences(recorded, own):
    """Return the differences in columns, types, errors and the shape of texts; what wasn't recorded isn't compared."""
    if (recorded.refusal is None) != (own.refusal is None):
        return [f"{_outcome(own)} instead of {_outcome(recorded)}"]
    if recorded.refusal is not None:
        return _of_refusals(recorded.refusal, own.refusal)
    return [*_of_columns(recorded, own), *_of_status(recorded, own)]


def _outcome(answer):
    return f"the columns {answer.names}" if answer.refusal is None else f"error {answer.refusal.errno}"


def _of_refusals(recorded, own):
    pairs = (("errno", recorded.errno, own.errno), ("sqlstate", recorded.sqlstate, own.sqlstate))
    problems = [f"{name} {ours} instead of {theirs}" for name, theirs, ours in pairs if theirs and ours != theirs]
    if recorded.text and shape(recorded.text) != shape(own.text):
        problems.append(f"text {own.text!r} instead of {recorded.text!r}")
    return problems


def _of_columns(recorded, own):
    theirs = [name for name in recorded.names if name not in _OF_AN_EDITION]
    if theirs != own.names:
        more = [name for name in own.names if name not in theirs]
        less = [name for name in theirs if name not in own.names]
        order = "" if more or less else f"; the order is {own.names} instead of {theirs}"
        return [f"has the columns {more} in addition, and lacks {less}{order}"]
    types = {column.name: column.type for column in own.columns}
    return [
        f"{column.name} is {types[column.name]} instead of {column.type}"
        for column in recorded.columns
        if column.name in types and column.type not in {None, types[column.name]}
    ]


def _of_status(recorded, own):
    """Compare the text of a statement that answers with its status."""
    if recorded.names == ["status"] and recorded.rows and own.rows and shape(recorded.value) != shape(own.value):
        return [f"text {own.value!r} instead of {recorded.value!r}"]
    return []


def shape(text):
    """Return a text without names, numbers and white space, which differ from run to run."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"|<[A-Z_]+>|\b[A-Z][A-Z0-9_]+\b|\d+", "…", str(text))
    return re.sub(r"(?:[….!]|\s)+", " ", text).strip().lower()
