"""The checks of this Airflow: the versions of its packages, its name, its triggerers."""

from __future__ import annotations

from functools import partial
from importlib import metadata
from platform import python_version
from typing import TYPE_CHECKING

from airflow_provider_mljobs import __version__
from airflow_provider_mljobs.jobs.checkup import Check, Finding, missing, ok, unseen
from airflow_provider_mljobs.task.airflow_internals import is_in_task, triggerer_heartbeat
from airflow_provider_mljobs.task.settings import deployment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_DISTRIBUTION = "airflow-provider-mljobs"
# The connector comes with the Snowflake provider.
_ALSO_SHOWN = ("snowflake-connector-python",)


def airflow_checks() -> list[Check]:
    """Return the checks of this Airflow."""
    return [
        Check("versions", partial(versions, metadata.requires(_DISTRIBUTION) or ())),
        Check("triggerer", triggerer),
        Check("deployment", name),
    ]


def versions(requirements: Iterable[str], installed: Callable[[str], str] = metadata.version) -> Finding:
    """Compare the installed packages with the provider's requirements.

    :param requirements: lines as in a package's metadata, e.g. ``apache-airflow<4,>=3.3``.
    :param installed: returns the version of an installed package, or raises a PackageNotFoundError.
    """
    from packaging.requirements import Requirement

    seen, refused = [f"Python {python_version()}", f"{_DISTRIBUTION} {__version__}"], []
    for requirement in sorted(map(Requirement, requirements), key=lambda each: each.name.lower()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = installed(requirement.name)
        except metadata.PackageNotFoundError:
            refused.append(f"{requirement.name}{requirement.specifier}")
            continue
        seen.append(f"{requirement.name} {version}")
        if not requirement.specifier.contains(version, prereleases=True):
            refused.append(f"{requirement.name}{requirement.specifier}")
    text = ", ".join([*seen, *(f"{other} {installed(other)}" for other in _ALSO_SHOWN)])
    if refused:
        wanted = " ".join(f"'{each}'" for each in refused)
        return missing(f"{text}. The provider needs {', '.join(refused)}.", setting=f"pip install {wanted}")
    return ok(f"{text}.")


def triggerer() -> Finding:
    """Look for a live triggerer, in which tasks with ``deferrable=True`` wait."""
    if is_in_task():
        return unseen("A task can't see Airflow's triggerers; run: airflow mljobs doctor")
    alive, heartbeat = triggerer_heartbeat()
    if alive:
        return ok("A triggerer is alive.")
    since = "none has ever run" if heartbeat is None else f"the last heartbeat was at {heartbeat:%Y-%m-%d %H:%M:%S %Z}"
    return missing(
        f"No triggerer is alive, {since}. Deferrable tasks would wait for ever.", setting="airflow triggerer"
    )


def name() -> Finding:
    """Check that this Airflow has a name, by which it recognises its jobs."""
    if own := deployment():
        return ok(f"This Airflow is {own!r}.")
    return missing(
        "This Airflow has no name, so the collector can't recognise its jobs.",
        setting="AIRFLOW__MLJOBS__DEPLOYMENT=production",
    )
