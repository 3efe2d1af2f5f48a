"""``python -m tests.account``: compare a Snowflake account with the provider's beliefs."""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

from tests.account.account import CONNECTION, Account, Settings, SetupError
from tests.account.checks import TIERS, all_checks
from tests.account.golden import GOLDEN
from tests.account.suite import chosen, estimate, run

_USAGE = f"""{CONNECTION} isn't set, so there is no account to check; docs/account.md says how to set it.
To try the suite on the embedded Snowflake instead: make test-account OPTIONS=--emulator"""


def main(argv=None):
    """Run the suite; returns 0 if all is as believed, 1 if something deviates, 2 if the suite can't run."""
    options = _parser().parse_args(argv)
    is_embedded = options.emulator or options.realistic
    checks = chosen(all_checks(), options.tier.split(","), options.check)
    if options.list:
        for check in checks:
            print(f"{check.number}  {check.tier:8}{check.belief}")
        return 0
    if not is_embedded and not os.environ.get(CONNECTION):
        print(_USAGE)
        return 2
    # As after Ctrl-C, the schema is dropped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_airflow())
            if is_embedded:
                settings, output = stack.enter_context(_embedded(options))
            else:
                settings, output = Settings.from_environment(), options.output or GOLDEN
            account = Account(settings)
            print(estimate(checks, account))
            if not is_embedded and os.environ.get("CONFIRM") != "1":
                print("Nothing has been started. To go on: make test-account CONFIRM=1")
                return 2
            with account:
                report = run(checks, account, output, say=print)
    except SetupError as error:
        print(error)
        return 2
    except KeyboardInterrupt:
        print("Interrupted; the schema of the suite is dropped.")
        return 2
    print(f"\n{report}\nRecorded in {output}")
    return 0 if report.is_green else 1


def _parser():
    parser = argparse.ArgumentParser(prog="python -m tests.account", description=__doc__)
    parser.add_argument("--tier", default=",".join(TIERS), help="tiers to run, with commas (default: all)")
    parser.add_argument("--check", action="append", help="run only this check, e.g. C-03; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the checks with their beliefs")
    parser.add_argument("--emulator", action="store_true", help="run on the embedded Snowflake")
    parser.add_argument(
        "--realistic", action="store_true", help="run on the embedded Snowflake with a tenth of an account's times"
    )
    parser.add_argument("--output", type=Path, help="directory of the recordings (default: tests/account/golden)")
    return parser


@contextlib.contextmanager
def _airflow():
    """Give Airflow, which reads its configuration on import, a home of its own: nothing is written to the user's."""
    if "airflow" in sys.modules:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="mljobs-airflow-") as home:
        os.environ |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__DAGS_FOLDER": str(Path(home, "dags")),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        }
        yield


@contextlib.contextmanager
def _embedded(options):
    """Serve an embedded Snowflake; its recordings aren't golden, so they go elsewhere."""
    from tests.account.embedded import embedded

    with embedded(realistic=options.realistic) as settings:
        yield settings, options.output or Path(tempfile.mkdtemp(prefix="mljobs-account-"))


if __name__ == "__main__":
    sys.exit(main())
