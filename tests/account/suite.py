"""Runs checks on an account, records their answers, and reports the deviations."""

import time
import traceback
from dataclasses import dataclass, field

from airflow_provider_mljobs.jobs.outcome.credits import credits_per_hour
from tests.account.account import Trial
from tests.account.golden import RECORDED, Recording, today, write

# The smallest family on which ML jobs are usual.
_FAMILY = "CPU_X64_S"


@dataclass
class Report:
    """The outcome of a run: the deviations by check, the checks that broke, and those that were not run."""

    passed: list[str] = field(default_factory=list)
    deviations: dict[str, tuple[str, ...]] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    trials: dict[str, Trial] = field(default_factory=dict)

    @property
    def is_green(self):
        """Whether all checks that ran found Snowflake as believed."""
        return not self.deviations and not self.broken

    def __str__(self):
        lines = [f"{number}: {text}" for number, texts in self.deviations.items() for text in texts]
        lines += [f"{number} broke: {text}" for number, text in self.broken.items()]
        lines += [f"{number} was not run: {text}" for number, text in self.skipped.items()]
        counts = f"{len(self.passed)} as believed, {len(self.deviations)} deviate, {len(self.broken)} broke"
        return "\n".join([*lines, f"{counts}, {len(self.skipped)} not run."])


def chosen(checks, tiers, numbers=None):
    """Return the checks of some tiers, or those with some numbers."""
    if numbers:
        return [checks[number] for number in numbers]
    return [check for check in checks.values() if check.tier in tiers]


def estimate(checks, account):
    """Return a sentence about the cost of some checks."""
    checks = [check for check in checks if not _missing(check, account)]
    minutes = sum(check.node_minutes for check in checks)
    price = minutes / 60 * credits_per_hour(_FAMILY, 1)
    return (
        f"{len(checks)} checks keep a node busy for about {minutes:.0f} minutes: {price:.2f} credits on {_FAMILY}, "
        "more on a larger family, and the pool's own idle time until it suspends. The warehouse of the connection runs "
        "as long. One schema, MLJOBS_CONTRACT_<random>, is made and dropped."
    )


def run(checks, account, output, *, say=lambda text: None):
    """Run checks on an open account and write their recordings.

    :param output: the directory of the recordings.
    :param say: is called with a line for each check.
    """
    report = Report()
    for check in checks:
        if missing := _missing(check, account):
            report.skipped[check.number] = missing
            say(f"{check.number}  not run   {check.belief}")
            continue
        began = time.monotonic()
        outcome = _run_one(check, account, output, report)
        say(f"{check.number}  {outcome:10}{check.belief}  ({time.monotonic() - began:.1f} s)")
    return report


def _run_one(check, account, output, report):
    account.trial = report.trials[check.number] = trial = Trial(check.number)
    for step in (lambda: check.run(account), lambda: _record(check, account, output)):
        try:
            step()
        except Exception as error:  # noqa: BLE001 (one check that breaks must not end the others)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            report.broken[check.number] = f"{type(error).__name__}: {error} ({frame.name}, line {frame.lineno})"
    if trial.deviations:
        report.deviations[check.number] = tuple(trial.deviations)
        return "deviates"
    if check.number in report.broken:
        return "broke"
    report.passed.append(check.number)
    return "ok"


def _record(check, account, output):
    """Write the answers of a check, also of one that broke on the way."""
    recording = Recording(
        provenance=f"{RECORDED}account in {account.region}",
        date=today(),
        region=account.region,
        version=account.version,
        answers=account.trial.answers,
        deviations=tuple(account.trial.deviations),
    )
    write(check, recording, account.mask, output)


def _missing(check, account):
    """Return why a check can't be run; empty if it can."""
    if check.only_accounts and account.settings.is_embedded:
        return f"on the embedded Snowflake: {check.only_accounts}"
    names = [f"MLJOBS_ACCOUNT_{name.upper()}" for name in check.needs if getattr(account.settings, name) is None]
    return f"{' and '.join(names)} is not set" if names else ""
