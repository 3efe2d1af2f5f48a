"""Prepares a statement's text for the parser: binds, IDENTIFIER, variables and session functions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.access.rights import account_role
from airflow_provider_mljobs.emulator.errors import SnowflakeError, not_supported
from airflow_provider_mljobs.emulator.identity import LOCATOR, ORGANIZATION, REGION
from airflow_provider_mljobs.emulator.parsing import Parser, Token, parse_name, tokenize, unescape

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow_provider_mljobs.emulator.access.grants import Principal
    from airflow_provider_mljobs.emulator.access.rights import Rights
    from airflow_provider_mljobs.emulator.registry import Context

VERSION = "9.0.0"
# SCOPED is Snowpark's word; the others have no meaning.
_SCOPES = {"SCOPED", "LOCAL", "GLOBAL"}
# TABLE('…') in FROM names a table just as IDENTIFIER('…') does.
_NAMERS = {"IDENTIFIER", "TABLE"}
_ENDS = {
    "FROM", "WHERE", "GROUP", "HAVING", "QUALIFY", "ORDER", "LIMIT", "OFFSET", "FETCH", "UNION", "EXCEPT", "MINUS",
    "INTERSECT", "INTO",
}  # fmt: skip


@dataclass(frozen=True)
class Prepared:
    """A statement ready to be parsed.

    :param text: with named binds, and with values in place of session functions and variables.
    :param binds: the values by name.
    :param titles: how Snowflake names the columns of the outermost SELECT that have no name: their text in upper case.
    """

    text: str
    binds: Mapping[str, object]
    titles: Sequence[str]


def literal(value: str | None) -> str:
    """Write a text as a SQL literal."""
    return "NULL" if value is None else "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def session_functions(context: Context) -> dict[str, str]:
    """Return the values of the session functions, as SQL."""
    session = context.session
    schemas = f'["{session.database}.{session.schema}"]' if session.schema else "[]"
    return {
        "CURRENT_DATABASE": literal(session.database),
        "CURRENT_SCHEMA": literal(session.schema),
        "CURRENT_SCHEMAS": literal(schemas),
        "CURRENT_WAREHOUSE": literal(session.warehouse),
        "CURRENT_ROLE": literal(session.role),
        "CURRENT_PRIMARY_ROLE": literal(session.role),
        "CURRENT_ROLE_TYPE": literal("ROLE"),
        "CURRENT_SECONDARY_ROLES": literal(_secondary(session.rights)),
        "CURRENT_AVAILABLE_ROLES": literal(json.dumps(_account_roles(session.rights.available))),
        "CURRENT_USER": literal(session.user),
        "CURRENT_SESSION": literal(str(session.id)),
        "CURRENT_ACCOUNT": literal(LOCATOR),
        "CURRENT_ACCOUNT_NAME": literal(LOCATOR),
        "CURRENT_ORGANIZATION_NAME": literal(ORGANIZATION),
        "CURRENT_REGION": literal(REGION),
        "CURRENT_CLIENT": literal("EMBEDDED"),
        "CURRENT_IP_ADDRESS": literal("127.0.0.1"),
        "CURRENT_VERSION": literal(VERSION),
        "CURRENT_STATEMENT": literal(""),
        "CURRENT_TRANSACTION": "NULL",
    }


def _account_roles(roles: Iterable[Principal]) -> list[str]:
    return sorted(role.name for role in roles if role.kind == "ROLE")


def _secondary(rights: Rights) -> str:
    """Write the secondary roles as CURRENT_SECONDARY_ROLES does."""
    roles = _account_roles(rights.available - {account_role(rights.role)}) if rights.secondary else []
    return json.dumps({"roles": ",".join(roles), "value": "ALL" if rights.secondary else ""})


def prepare(context: Context, sql: str, binds: Sequence[object] | None) -> Prepared:
    """Replace binds, names, variables and session functions; raises if a bind or variable is missing."""
    tokens = tokenize(sql)
    writer = _Writer(context, tokens, binds)
    text = []
    position = 0
    for start, end, replacement in writer.replacements():
        text.append(sql[position:start])
        text.append(replacement)
        position = end
    text.append(sql[position:])
    return Prepared("".join(text), writer.named, titles(sql, tokens))


class _Writer:
    """Walks over the tokens and yields their replacements."""

    def __init__(self, context: Context, tokens: Sequence[Token], binds: Sequence[object] | None) -> None:
        self._context = context
        self._tokens = [*tokens, *[Token("end", "", len(tokens[-1].text) + tokens[-1].start if tokens else 0)] * 5]
        self._binds = binds
        self._used = 0
        self._functions = session_functions(context)
        self.named: dict[str, object] = {}

    def replacements(self) -> Iterator[tuple[int, int, str]]:
        """Yield start, end and new text, in order."""
        index = 0
        while self._tokens[index].kind != "end":
            length, text = self._replace(index)
            if text is not None:
                yield self._tokens[index].start, self._tokens[index + length - 1].end, text
            index += length

    def _replace(self, index: int) -> tuple[int, str | None]:
        token, following = self._tokens[index], self._tokens[index + 1]
        if token.keyword in _SCOPES and following.keyword in {"TEMP", "TEMPORARY"}:
            return 1, ""
        if token.kind == "bind":
            return 1, self._bind(token)
        if token.keyword in _NAMERS and following.text == "(":
            return self._identifier(index)
        if token.text == "$" and following.start == token.end and following.kind in {"number", "word"}:
            return 2, f'"COLUMN{following.text}"' if following.kind == "number" else self._variable(following.text)
        if token.keyword in self._functions and following.text == "(" and self._tokens[index + 2].text == ")":
            return 3, self._functions[token.keyword]
        if token.kind == "stage":
            raise not_supported("reading a stage in a query")
        return self._table(index) if token.keyword == "TABLE" else (1, None)

    def _value(self, token: Token) -> tuple[str, object]:
        """Return a bind's name and value; a client that only asks for a description sends no values."""
        if token.text == "?":
            self._used += 1
        number = self._used if token.text == "?" else int(token.text[1:])
        if self._binds is None:
            return f"b{number}", None
        if number > len(self._binds):
            raise SnowflakeError(100037, "22018", f"SQL compilation error:\nBind variable {token.text} not set.")
        return f"b{number}", self._binds[number - 1]

    def _bind(self, token: Token) -> str:
        name, value = self._value(token)
        self.named[name] = value
        return f":{name}"

    def _identifier(self, index: int) -> tuple[int, str | None]:
        """Replace ``IDENTIFIER(?)``, ``IDENTIFIER('…')`` and ``IDENTIFIER($v)`` by the name."""
        argument, closing, behind = self._tokens[index + 2 : index + 5]
        if argument.text == "$" and closing.kind == "word" and behind.text == ")":
            return 5, str(parse_name(unescape(self._variable(closing.text))))
        if closing.text != ")":
            return 1, None
        if argument.kind == "bind":
            _, value = self._value(argument)
            return 4, '"?"' if self._binds is None else str(parse_name(str(value)))
        if argument.kind == "string":
            return 4, str(parse_name(unescape(argument.text)))
        return 1, None

    def _table(self, index: int) -> tuple[int, str | None]:
        """Put IF NOT EXISTS before the name of a new table; Snowpark sends it behind the name."""
        end = index + 2
        while self._tokens[end].text == ".":
            end += 2
        if [token.keyword for token in self._tokens[end : end + 3]] != ["IF", "NOT", "EXISTS"]:
            return 1, None
        name = "".join(token.text for token in self._tokens[index + 1 : end])
        return end + 3 - index, f"TABLE IF NOT EXISTS {name}"

    def _variable(self, name: str) -> str:
        value = self._context.session.variables.get(name.upper())
        if value is None:
            raise SnowflakeError(
                2211, "02000", f"SQL compilation error: error line 1\nSession variable '${name.upper()}' does not exist"
            )
        return value


def titles(sql: str, tokens: Sequence[Token]) -> list[str]:
    """Return the text of each item of the outermost SELECT, in upper case; empty if there is none."""
    depth, start, items = 0, -1, []
    for index, token in enumerate(tokens):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(token.text, 0)
        if depth:
            continue
        if start < 0:
            start = _first_item(tokens, index) if token.keyword == "SELECT" else -1
        elif token.text in {",", ";"} or _ends_items(tokens, index):
            items.append(sql[start : token.start])
            start = token.end
            if token.text != ",":
                return [text.strip().upper() for text in items]
    return [text.strip().upper() for text in [*items, sql[start:]]] if start >= 0 else []


def _ends_items(tokens: Sequence[Token], index: int) -> bool:
    """Return whether a clause begins here; WITHIN GROUP (ORDER BY …) belongs to an item."""
    within = index > 0 and tokens[index - 1].keyword == "WITHIN"
    return tokens[index].keyword in _ENDS and not within


def _first_item(tokens: Sequence[Token], index: int) -> int:
    """Return where the items begin: behind DISTINCT, ALL and TOP n."""
    words = Parser("")
    words.tokens = list(tokens)
    words.position = index + 1
    if not words.accept("DISTINCT"):
        words.accept("ALL")
    if words.looking_at("TOP") and words.peek(1).kind == "number":
        words.position += 2
    return words.current.start if words.current.kind != "end" else -1
