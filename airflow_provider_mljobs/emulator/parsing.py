"""Tokens of Snowflake's SQL and a small parser for the statements that the emulator itself answers.

It parses statements about stages, services, compute pools and sessions, which DuckDB doesn't have. All others go to
the SQL engine as text.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from airflow_provider_mljobs.emulator.errors import SnowflakeError, not_supported, syntax_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Kind = Literal["word", "quoted", "string", "number", "bind", "symbol", "stage", "url", "end"]

# In PUT and GET a file URL may stand without quotes; its slashes and stars begin no comment.
_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<comment>--[^\n]*|//[^\n]*|/\*.*?\*/)
  | (?P<dollar>\$\$.*?\$\$)
  | (?P<string>'(?:[^'\\]|\\.|'')*')
  | (?P<quoted>"(?:[^"]|"")*")
  | (?P<stage>(?:@|snow://)(?:"(?:[^"]|"")*"|[^\s'"(),;])+)
  | (?P<url>(?i:file)://[^\s;]+)
  | (?P<word>[A-Za-z_\x80-\U0010ffff][A-Za-z0-9_$\x80-\U0010ffff]*)
  | (?P<number>\d+(?:\.\d+)?)
  | (?P<bind>\?|:\d+)
  | (?P<symbol>=>|::|!=|<>|<=|>=|\|\||/(?!\*)|[-+*%()\[\]{}.,;:=<>!~^&|$@#])
    """,
    re.VERBOSE | re.DOTALL,
)
_GAPS = {"space", "comment"}
_COMMENT_MARK = re.compile(r"--|//|/\*")
_VISIBLE = re.compile(r"[^\n]")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0"}
_MOST_PARTS = 3
_PLAIN_IDENTIFIER = re.compile(r"[A-Z_][A-Z0-9_$]*")


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a statement: its kind, its text as written, and its position."""

    kind: Kind
    text: str
    start: int

    @property
    def end(self) -> int:
        """The position behind the token."""
        return self.start + len(self.text)

    @property
    def keyword(self) -> str:
        """The word in upper case, or an empty string for any other token."""
        return self.text.upper() if self.kind == "word" else ""


def unescape(literal: str) -> str:
    """Return the value of a string literal as written in SQL: ``'…'`` with escapes, or ``$$…$$`` without."""
    if literal.startswith("$$"):
        return literal[2:-2]

    def replace(match: re.Match[str]) -> str:
        text = match.group()
        if text == "''":
            return "'"
        if text[1] in "ux":
            return chr(int(text[2:], 16))  # noqa: FURB166 (the prefix is a backslash and a letter)
        return _ESCAPES.get(text[1], text[1])

    return re.sub(r"''|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\.", replace, literal[1:-1], flags=re.DOTALL)


def _lexemes(text: str) -> Iterator[re.Match[str]]:
    """Yield tokens, white space and comments in order, up to the first place where no token starts."""
    position = 0
    while match := _TOKEN.match(text, position):
        yield match
        position = match.end()


def _token(match: re.Match[str]) -> Token:
    kind = "string" if match.lastgroup == "dollar" else match.lastgroup
    return Token(kind, match.group(), match.start())  # type: ignore[arg-type]


def tokenize(text: str) -> list[Token]:
    """Split a text into tokens without white space and comments; raises 1003 where no token starts."""
    tokens: list[Token] = []
    end = 0
    for match in _lexemes(text):
        end = match.end()
        if match.lastgroup not in _GAPS:
            tokens.append(_token(match))
    if end < len(text):
        raise syntax_error(text, end)
    return tokens


def without_comments(text: str) -> str:
    """Blank out the comments of a statement; everything else stays at its place."""
    if not _COMMENT_MARK.search(text):
        return text
    pieces: list[str] = []
    end = 0
    for match in _lexemes(text):
        end = match.end()
        pieces.append(_VISIBLE.sub(" ", match.group()) if match.lastgroup == "comment" else match.group())
    return "".join(pieces) + text[end:]


def leading_words(text: str, most: int = 1) -> list[str]:
    """Return the first words of a statement in upper case, behind comments and parentheses.

    :param most: how many words to return at most; fewer stand before a name in quotes, a symbol or a literal.
    """
    tokens = (_token(match) for match in _lexemes(text) if match.lastgroup not in _GAPS)
    words = itertools.takewhile(bool, (token.keyword for token in itertools.dropwhile(_opens, tokens)))
    return list(itertools.islice(words, most))


def _opens(token: Token) -> bool:
    return token.text == "("


def split_statements(text: str) -> list[str]:
    """Split a text at the semicolons between statements; strings, ``$$`` blocks and comments are left whole."""
    statements: list[str] = []
    begin = 0
    for token in tokenize(text):
        if token.kind == "symbol" and token.text == ";":
            statements.append(text[begin : token.start])
            begin = token.end
    statements.append(text[begin:])
    return [statement.strip() for statement in statements if tokenize(statement)]


def quote_identifier(name: str) -> str:
    """Write a name for SQL: bare if Snowflake reads it back unchanged, else quoted."""
    return name if _PLAIN_IDENTIFIER.fullmatch(name) else '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class QualifiedName:
    """A name with the qualifiers that were written, in the stored spelling: upper case unless quoted."""

    name: str
    schema: str | None = None
    database: str | None = None

    @property
    def path(self) -> tuple[str, ...]:
        """The parts that were written, database first."""
        return tuple(part for part in (self.database, self.schema, self.name) if part is not None)

    def __str__(self) -> str:
        return ".".join(quote_identifier(part) for part in self.path)


@dataclass(frozen=True, slots=True)
class StageReference:
    """``@[[db.]schema.]stage[/path]``, with ``~`` for the user stage and ``%t`` for a table stage as names."""

    stage: QualifiedName
    path: str = ""


class Parser:
    """A cursor over the tokens of one statement.

    :param text: the statement.
    :param binds: values for ``?``, in order; ``None`` if the client only wants a description.
    """

    def __init__(self, text: str, binds: Sequence[object] | None = None) -> None:
        self.text = text
        self.tokens = tokenize(text)
        self.position = 0
        self._binds = binds

    @property
    def binds(self) -> Sequence[object] | None:
        """The values for ``?``, for a parser of a part of this text."""
        return self._binds

    @property
    def current(self) -> Token:
        """The token under the cursor; a token of kind ``end`` behind the last one."""
        return self.peek(0)

    @property
    def rest(self) -> str:
        """The text from the cursor to the end, as written."""
        return self.text[self.current.start :]

    def peek(self, offset: int) -> Token:
        """Return the token ``offset`` places ahead."""
        index = self.position + offset
        return self.tokens[index] if index < len(self.tokens) else Token("end", "", len(self.text))

    def looking_at(self, *keywords: str) -> bool:
        """Return whether the next tokens are these words or symbols."""
        return all(
            (token := self.peek(offset)).keyword == word or (token.kind == "symbol" and token.text == word)
            for offset, word in enumerate(keywords)
        )

    def accept(self, *keywords: str) -> bool:
        """Step over these words or symbols if they are next."""
        if not self.looking_at(*keywords):
            return False
        self.position += len(keywords)
        return True

    def expect(self, *keywords: str) -> None:
        """Step over these words or symbols, or raise 1003."""
        for keyword in keywords:
            if not self.accept(keyword):
                raise self.error()

    def at_end(self) -> bool:
        """Return whether only semicolons follow."""
        while self.accept(";"):
            pass
        return self.current.kind == "end"

    def expect_end(self) -> None:
        """Raise 1003 unless only semicolons follow."""
        if not self.at_end():
            raise self.error()

    def error(self) -> SnowflakeError:
        """Build the syntax error for the token under the cursor."""
        return syntax_error(self.text, self.current.start)

    def next(self) -> Token:
        """Step over one token and return it; raises 1003 at the end."""
        token = self.current
        if token.kind == "end":
            raise self.error()
        self.position += 1
        return token

    def bind(self) -> object:
        """Return the value of the ``?`` or ``:n`` under the cursor and step over it."""
        token = self.next()
        if token.kind != "bind":
            self.position -= 1
            raise self.error()
        if self._binds is None:
            return None
        used = sum(1 for earlier in self.tokens[: self.position] if earlier.text == "?")
        index = int(token.text[1:]) if token.text != "?" else used
        if index > len(self._binds):
            raise SnowflakeError(100037, "22018", f"SQL compilation error:\nBind variable {token.text} not set.")
        return self._binds[index - 1]

    def identifier(self) -> str:
        """Return the stored spelling of the identifier under the cursor."""
        token = self.next()
        if token.kind == "quoted":
            return token.text[1:-1].replace('""', '"')
        if token.kind == "word":
            return token.text.upper()
        self.position -= 1
        raise self.error()

    def qualified_name(self, *, literal: bool = False) -> QualifiedName:
        """Return a name of one to three parts, plain or as ``IDENTIFIER(?)`` / ``IDENTIFIER('…')``.

        :param literal: whether the name may also be written as a string, as in ``NAME = 'schema.job'``.
        """
        if self.looking_at("IDENTIFIER", "("):
            self.expect("IDENTIFIER", "(")
            name = parse_name(self.string())
            self.expect(")")
            return name
        if literal and self.current.kind in {"string", "bind"}:
            return parse_name(self.string())
        parts = [self.identifier()]
        while self.accept("."):
            # db..name means db.PUBLIC.name
            parts.append("PUBLIC" if self.looking_at(".") else self.identifier())
        if len(parts) > _MOST_PARTS:
            raise self.error()
        padded = [None] * (_MOST_PARTS - len(parts)) + parts
        return QualifiedName(name=parts[-1], schema=padded[1], database=padded[0])

    def string(self) -> str:
        """Return the value of a string literal or of a bind."""
        if self.current.kind == "bind":
            return str(self.bind())
        token = self.next()
        if token.kind != "string":
            self.position -= 1
            raise self.error()
        return unescape(token.text)

    def integer(self) -> int:
        """Return the value of a whole number, a string that holds one, or a bind."""
        token = self.current
        if token.kind == "number":
            self.position += 1
            text = token.text
        else:
            text = self.string()
        try:
            return int(text)
        except ValueError:
            raise syntax_error(self.text, token.start) from None

    def boolean(self) -> bool:
        """Return TRUE or FALSE, as a word, a string or a bind."""
        token = self.current
        text = self.next().text if token.kind == "word" else self.string()
        if text.upper() not in {"TRUE", "FALSE"}:
            raise syntax_error(self.text, token.start)
        return text.upper() == "TRUE"

    def name_list(self) -> list[str]:
        """Return the identifiers of ``( a, "b" )``."""
        self.expect("(")
        names: list[str] = []
        while not self.accept(")"):
            if names:
                self.expect(",")
            names.append(unescape(self.next().text) if self.current.kind == "string" else self.identifier())
        return names

    def stage(self) -> StageReference:
        """Return a stage with its path: bare, in quotes (``'@s/p'``), as a bind, or ``IDENTIFIER(…)``."""
        if self.current.kind == "stage":
            return parse_stage(self.next().text)
        if self.current.kind in {"string", "bind"}:
            return parse_stage(self.string())
        return StageReference(self.qualified_name())


def parse_name(text: str) -> QualifiedName:
    """Parse a name given as text, e.g. the value of a bind: ``db.sc."my job"``."""
    parser = Parser(text)
    name = parser.qualified_name()
    parser.expect_end()
    return name


_STAGE = re.compile(
    r"""@(?P<name>~|(?:(?:"(?:[^"]|"")*"|[A-Za-z0-9_$]+)\.){0,2}%?(?:"(?:[^"]|"")*"|[A-Za-z0-9_$\x80-\U0010ffff]+))
        (?:/(?P<path>.*))?""",
    re.VERBOSE | re.DOTALL,
)


def parse_stage(text: str) -> StageReference:
    """Parse ``@[[db.]schema.]stage[/path]``; the path keeps its case and may contain any character."""
    if text.strip().lower().startswith("snow://"):
        raise not_supported(f"{text.strip()}: a place in a workspace, notebook, model or the like")
    match = _STAGE.fullmatch(text.strip())
    if match is None:
        raise SnowflakeError(1003, "42000", f"SQL compilation error:\ninvalid stage location '{text}'.")
    name = match["name"]
    path = match["path"] or ""
    # A path may be quoted as a whole in statements such as LIST @s/"a b".
    path = path.replace('"', "")
    if name == "~":
        return StageReference(QualifiedName("~"), path)
    head, percent, tail = name.rpartition("%")
    if percent:
        table = parse_name(head + tail)
        return StageReference(QualifiedName("%" + table.name, table.schema, table.database), path)
    return StageReference(parse_name(name), path)
