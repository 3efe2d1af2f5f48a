"""Errors in the shape of Snowflake's: a number, an SQLSTATE and a text.

Numbers and texts are those of a real account. Where no public source names a number, a comment says so and
``docs/emulator.md`` lists it as a deviation.
"""

from __future__ import annotations

DOES_NOT_EXIST = 2003
NOT_SUPPORTED = "not supported by the embedded Snowflake"


class SnowflakeError(Exception):
    """Raised when a statement or a request fails; the server turns it into Snowflake's error answer.

    :param errno: Snowflake's error number, e.g. 2003.
    :param sqlstate: SQLSTATE, five characters.
    :param message: the text without number and query id, which the client adds.
    """

    def __init__(self, errno: int, sqlstate: str, message: str) -> None:
        super().__init__(errno, sqlstate, message)
        self.errno = errno
        self.sqlstate = sqlstate
        self.message = message

    def __str__(self) -> str:
        return f"{self.errno:06d} ({self.sqlstate}): {self.message}"


def not_supported(feature: str) -> SnowflakeError:
    """Build the error for a feature that a real account has and this emulator lacks."""
    return SnowflakeError(2, "0A000", f"Unsupported feature: {feature} is {NOT_SUPPORTED}.")


def syntax_error(text: str, position: int) -> SnowflakeError:
    """Build the error for text that doesn't parse.

    :param position: the first character that doesn't fit, counted from 0.
    """
    line = text.count("\n", 0, position) + 1
    column = position - (text.rfind("\n", 0, position) + 1)
    rest = text[position:].split(None, 1)
    unexpected = rest[0][:40] if rest else "<EOF>"
    return SnowflakeError(
        1003,
        "42000",
        f"SQL compilation error:\nsyntax error line {line} at position {column} unexpected '{unexpected}'.",
    )


def invalid_property(name: str, statement: str) -> SnowflakeError:
    """Build the error for a property that a statement doesn't have."""
    return SnowflakeError(1420, "22023", f"SQL compilation error:\ninvalid property '{name}' for '{statement}'")


def does_not_exist(kind: str, name: str) -> SnowflakeError:
    """Build the error for an object that doesn't exist or that the role may not see: Snowflake doesn't say which."""
    return SnowflakeError(
        DOES_NOT_EXIST, "02000", f"SQL compilation error:\n{kind} '{name}' does not exist or not authorized."
    )


def nothing_to_use() -> SnowflakeError:
    """Build the error of USE and SHOW … IN for an object that doesn't exist or that the role may not see."""
    text = "SQL compilation error:\nObject does not exist, or operation cannot be performed."
    return SnowflakeError(2043, "02000", text)


def insufficient_privileges(kind: str, name: str) -> SnowflakeError:
    """Build the error for an object that the role sees, but may not use in this way."""
    text = f"SQL access control error:\nInsufficient privileges to operate on {kind} '{name}'."
    return SnowflakeError(3001, "42501", text)


def role_not_assigned(role: str) -> SnowflakeError:
    """Build the error for a role that the user wasn't granted."""
    text = f"Requested role '{role}' is not assigned to the executing user. Specify another role to activate."
    return SnowflakeError(3013, "42501", f"SQL access control error:\n{text}")


def already_exists(name: str) -> SnowflakeError:
    """Build the error for a name that is taken."""
    return SnowflakeError(2002, "42710", f"SQL compilation error:\nObject '{name}' already exists.")


def no_current_database(command: str) -> SnowflakeError:
    """Build the error for an unqualified name in a session without a database."""
    return SnowflakeError(
        90105,
        "22000",
        f"Cannot perform {command}. This session does not have a current database. "
        "Call 'USE DATABASE', or use a qualified name.",
    )


def no_current_schema(command: str) -> SnowflakeError:
    """Build the error for an unqualified name in a session without a schema."""
    return SnowflakeError(
        90106,
        "22000",
        f"Cannot perform {command}. This session does not have a current schema. "
        "Call 'USE SCHEMA', or use a qualified name.",
    )


def no_warehouse() -> SnowflakeError:
    """Build the error for a statement that computes, in a session without a warehouse."""
    return SnowflakeError(
        606,
        "57P03",
        "No active warehouse selected in the current session.  Select an active warehouse with the 'use warehouse' "
        "command.\n",
    )


def invalid_spec(detail: str) -> SnowflakeError:
    """Build the error for a service specification that doesn't validate."""
    return SnowflakeError(395018, "22023", f"Invalid spec: {detail}")


def unknown_function(name: str) -> SnowflakeError:
    """Build the error for a scalar function that doesn't exist."""
    return SnowflakeError(2140, "42601", f"SQL compilation error:\nUnknown function {name}")


def unknown_table_function(name: str) -> SnowflakeError:
    """Build the error for a table function that doesn't exist; clients fall back when they see 2143."""
    return SnowflakeError(2143, "42601", f"SQL compilation error:\nUnknown user-defined table function {name}")


def cancelled() -> SnowflakeError:
    """Build the error of a statement that its user cancelled."""
    return SnowflakeError(604, "57014", "SQL execution canceled")
