"""The kinds of services that may run in the account, which two of its parameters list.

Source: "ALLOWED_SPCS_WORKLOAD_TYPES" in https://docs.snowflake.com/en/sql-reference/parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mljobs.emulator.access.grants import ACCOUNT
from airflow_provider_mljobs.emulator.errors import SnowflakeError
from airflow_provider_mljobs.emulator.options import parse_options
from airflow_provider_mljobs.emulator.registry import Extension, Statement
from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.spcs.errors import disallowed_workload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_mljobs.emulator.parsing import Parser
    from airflow_provider_mljobs.emulator.registry import Context
    from airflow_provider_mljobs.emulator.spcs.state_file import StateFile

_ALLOWED, _DISALLOWED = "ALLOWED_SPCS_WORKLOAD_TYPES", "DISALLOWED_SPCS_WORKLOAD_TYPES"
_ALL = "ALL"
_DEFAULTS = {_ALLOWED: _ALL, _DISALLOWED: ""}
_KINDS = frozenset({"USER", "NOTEBOOK", "STREAMLIT", "MODEL_SERVING", "ML_JOB", _ALL})
_OBJECT = "Account parameter"
_STATUS = (Column("status"),)


class Workloads:
    """The kinds of services that may run.

    :param state: where the parameters survive a restart.
    """

    def __init__(self, state: StateFile) -> None:
        self._state = state
        self._values = _DEFAULTS | dict(state.objects(_OBJECT))

    def check(self, kind: str) -> None:
        """Raise if services of a kind may not run; a disallowed kind may not, even if it is allowed."""
        allowed, disallowed = (_words(self._values[name]) for name in (_ALLOWED, _DISALLOWED))
        if disallowed & {kind, _ALL} or not allowed & {kind, _ALL}:
            raise disallowed_workload(kind)

    def parameters(self) -> Iterator[tuple[str, str, str, str]]:
        """Yield name, value, default and level of each parameter."""
        for name, default in _DEFAULTS.items():
            yield name, self._values[name], default, "" if self._values[name] == default else "ACCOUNT"

    @property
    def extension(self) -> Extension:
        """The statements."""
        names = f"{{ {_ALLOWED} | {_DISALLOWED} }}"
        return Extension(
            statements=(
                Statement(("ALTER", "ACCOUNT", "SET"), self.set, _STATUS, f"ALTER ACCOUNT SET {names} = '<kind>, …'"),
                Statement(("ALTER", "ACCOUNT", "UNSET"), self.unset, _STATUS, f"ALTER ACCOUNT UNSET {names}"),
            )
        )

    def set(self, context: Context, parser: Parser) -> Result:
        """Run ``ALTER ACCOUNT SET``."""
        options = parse_options(parser, _DEFAULTS, "ACCOUNT")
        parser.expect_end()
        values = {name: ",".join(sorted(_words(str(value)))) for name, value in options.items()}
        for name, value in values.items():
            if unknown := _words(value) - _KINDS:
                # The number is from memory.
                text = f"invalid value [{min(unknown)}] for parameter '{name}'"
                raise SnowflakeError(1008, "22023", f"SQL compilation error:\n{text}")
        return self._change(context, values)

    def unset(self, context: Context, parser: Parser) -> Result:
        """Run ``ALTER ACCOUNT UNSET``."""
        name = parser.identifier()
        parser.expect_end()
        if name not in _DEFAULTS:
            raise parser.error()
        return self._change(context, {name: _DEFAULTS[name]})

    def _change(self, context: Context, values: dict[str, str]) -> Result:
        context.session.rights.require(ACCOUNT, "OWNERSHIP")
        self._values |= values
        for name, value in values.items():
            self._state.save_object(_OBJECT, name, value)
        self._state.flush()
        return Result.status("Statement executed successfully.")


def _words(text: str) -> set[str]:
    return {word.strip().upper() for word in text.split(",") if word.strip()}
