"""Findings about privileges.

Snowflake answers alike for an object that doesn't exist and one that the role can't see, so an absent object proves
nothing. An absent privilege in SHOW GRANTS does, if the grants of all inherited roles could be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_mljobs.gateway.doctor import statements
from airflow_provider_mljobs.jobs.checkup import Finding, State, missing, unseen
from airflow_provider_mljobs.jobs.grants import lacking as absent

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_provider_mljobs.gateway.doctor.account import Account
    from airflow_provider_mljobs.jobs.grants import Name

    Privileges = tuple[str, Name, tuple[str, ...]]


def lacking(account: Account, *needs: Privileges) -> Finding | None:
    """Return the finding about privileges that the role doesn't have; ``None`` if it has all.

    :param needs: kind, name and privileges; without privileges any one will do, as for the parents of an object.
    """
    texts, grants, invisible = [], [], []
    for kind, name, privileges in needs:
        owned = account.grants.privileges(kind, name)
        if not absent(owned, privileges):
            continue
        # A second look, from the side of the object, before a privilege counts as missing.
        owned |= account.privileges_on(kind, name)
        if less := absent(owned, privileges):
            texts.append(f"{' and '.join(less)} on {kind.lower()} {name}")
            if not owned:
                invisible.append(f"{kind.lower()} {name}")
            grants.append(statements.grant(less, kind, name, account.session.role))
    if not texts:
        return None
    detail = f"Role {account.session.role} lacks {', '.join(texts)}."
    if invisible:
        detail += f" Check the name, too: the role can't see whether {' and '.join(invisible)} exists."
    return proven(account, detail, *grants)


def first(refusal: Finding | None, look: Callable[[], Finding]) -> Finding:
    """Look further unless a privilege is proven missing; what that look misses outranks an unproven privilege."""
    if refusal is not None and refusal.state is State.MISSING:
        return refusal
    finding = look()
    return finding if refusal is None or finding.state is State.MISSING else refusal


def proven(account: Account, detail: str, *grants: str) -> Finding:
    """Return the finding about absent grants, which is proven only if all grants could be read."""
    if account.grants.unread:
        return unseen(f"Unproven, because not all grants can be read. If jobs fail: {'; '.join(grants)};")
    return missing(detail, *grants)
