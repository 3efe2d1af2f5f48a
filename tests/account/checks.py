"""Checks: each is a function whose docstring states what the provider believes of Snowflake."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

QUICK, JOBS, MANAGED, MULTI, GPU, SLOW = TIERS = ("quick", "jobs", "managed", "multi", "gpu", "slow")


@dataclass(frozen=True)
class Check:
    """A belief, and the function that asks a Snowflake about it.

    :param number: its number, e.g. ``C-03``.
    :param tier: the tier that it belongs to.
    :param needs: the optional settings without which it can't run, e.g. ``gpu_pool``.
    :param node_minutes: the node minutes that it takes, for the estimate of the cost.
    :param only_accounts: why the embedded Snowflake can't be asked; empty if it can.
    """

    number: str
    tier: str
    belief: str
    run: Callable
    needs: tuple[str, ...] = ()
    node_minutes: float = 0.0
    only_accounts: str = ""


_CHECKS: dict[str, Check] = {}


def check(number, tier, *needs, node_minutes=0.0, only_accounts=""):
    """Register a function of an :class:`~tests.account.account.Account` as a check."""

    def register(run):
        if number in _CHECKS:
            raise ValueError(f"There are two checks {number}")
        belief = " ".join(inspect.getdoc(run).split())
        _CHECKS[number] = Check(number, tier, belief, run, needs, node_minutes, only_accounts)
        return run

    return register


def all_checks():
    """Return all checks, by number."""
    # Imported here: these modules register their checks with this one.
    from tests.account import jobs, logs, managed, multi, quick, states  # noqa: F401

    return dict(sorted(_CHECKS.items()))
