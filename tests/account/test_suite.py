"""The suite for accounts, run on the embedded Snowflake: green as it is, red where Snowflake deviates."""

import json
import os
import re
import signal
from collections import Counter
from pathlib import Path

import pytest

from airflow_provider_mljobs.emulator.results import Column, Result
from airflow_provider_mljobs.emulator.settings import Fault
from tests.account.__main__ import main
from tests.account.account import CONNECTION, Account, Settings, SetupError
from tests.account.checks import QUICK, TIERS, Check, all_checks
from tests.account.embedded import settings_of
from tests.account.golden import read
from tests.account.masks import Mask
from tests.account.suite import estimate, run

ROOT = Path(__file__).parents[2]
CHECKS = all_checks()
# Checks that are ahead of the embedded Snowflake, each with the reason; empty it as the reasons go.
AHEAD: dict[str, str] = {}


@pytest.fixture
def plant(server):
    """Return a function that makes the embedded Snowflake deviate until the end of the test."""
    yield server.faults.add

    server.faults.clear()


def test_cheap_checks(report):
    """The checks find the embedded Snowflake as believed, but for those that are ahead of it."""
    assert {} == {number: texts for number, texts in report.deviations.items() if number not in AHEAD}
    assert {} == report.broken


def test_recording(account, tmp_path):
    """A check writes its answers: statement, columns with types, rows and errors, with date, region and version."""
    run([CHECKS["C-03"]], account, tmp_path)

    (recording,) = read("C-03", tmp_path)
    pools = recording.answers["compute_pools"]
    missing = recording.answers["describe_missing"].refusal
    assert "recorded: account in AWS_LOCAL" == recording.provenance
    assert ("AWS_LOCAL", "9.0.0") == (recording.region, recording.version)
    assert ["<POOL>"] == pools.cells("name")
    assert "TEXT" == next(column.type for column in pools.columns if column.name == "name")
    assert (2003, "02000") == (missing.errno, missing.sqlstate)
    assert "Service '<DATABASE>.<SCHEMA>.NO_SUCH_JOB' does not exist or not authorized." in missing.text


def test_catalogue_of_errors(report):
    """The last check of the statements records the errors of all checks before it in one table."""
    catalogue = report.trials["C-78"].answers["catalogue"]

    assert ["check", "step", "errno", "sqlstate", "text"] == catalogue.names
    assert ("C-14", "name_taken", 2002) in {row[:3] for row in catalogue.rows}
    assert ("C-78", "syntax", 1003) in {row[:3] for row in catalogue.rows}


def test_second_recording(account, tmp_path):
    """A second run in the same region replaces the recording, and leaves those of other sources."""
    file = tmp_path / "C-13.json"
    documented = {"provenance": "documented: https://example.org", "date": "2026-01-01", "answers": {}}
    file.write_text(json.dumps({"recordings": [documented]}))

    for _ in range(2):
        run([CHECKS["C-13"]], account, tmp_path)

    recordings = read("C-13", tmp_path)
    assert ["documented: https://example.org", "recorded: account in AWS_LOCAL"] == [
        recording.provenance for recording in recordings
    ]


@pytest.mark.parametrize(
    ("fault", "number", "deviation"),
    [
        pytest.param(
            Fault(matching="SHOW COMPUTE POOLS", effect="answer", answer=Result((Column("pool"),), [("P",)])),
            "C-03",
            "compute_pools: lacks the columns ['name', 'instance_family', 'max_nodes']",
            id="columns",
        ),
        pytest.param(
            Fault(matching="DESCRIBE SERVICE", effect="error", errno=393939, message="Nothing here."),
            "C-03",
            "describe_missing: reaches the user as GatewayError, not NotFoundOrNotAuthorizedError",
            id="number",
        ),
        pytest.param(
            Fault(matching="SHOW ENDPOINTS", effect="error", errno=2003, message="Gone."),
            "C-03",
            "endpoints_missing: has no 'does not exist or not authorized' in: Gone.",
            id="text",
        ),
        pytest.param(Fault(matching="LIST .*PATTERN", effect="empty"), "C-71", "whole: has 0 rows, not 1", id="rows"),
        pytest.param(
            Fault(matching="CURRENT_ROLE", effect="answer", answer=Result((Column("x", "boolean"),), [(False,)])),
            "C-01",
            "role: is False, not True",
            id="value",
        ),
        pytest.param(
            Fault(matching="GET_ML_JOB_RUNTIME", effect="answer", answer=Result((Column("image"),), [("a/b",)])),
            "C-12",
            "image: is 'a/b', not like",
            id="image",
        ),
    ],
)
def test_planted_deviation(account, plant, tmp_path, fault, number, deviation):
    """A planted column, error number, text, row or value turns its check red, and the recording says so."""
    plant(fault)

    report = run([CHECKS[number]], account, tmp_path)

    (recording,) = read(number, tmp_path)
    assert not report.is_green
    assert any(text.startswith(deviation) for text in report.deviations[number]), report
    assert report.deviations[number] == recording.deviations


def test_broken_check(account, tmp_path):
    """A check that breaks is reported with its place, and the next check runs."""

    def broken(account):
        account.note("before", 1)
        raise KeyError("name")

    report = run([Check("C-00", QUICK, "Broken.", broken), CHECKS["C-13"]], account, tmp_path)

    assert "KeyError: 'name' (broken, line" in report.broken["C-00"]
    assert 1 == read("C-00", tmp_path)[0].answers["before"].value
    assert ["C-13"] == report.passed


class Blind(Mask):
    """A mask that masks nothing."""

    def __call__(self, text):
        """Return the text."""
        return text

    def cell(self, column, text):
        """Return the text of a cell."""
        return text


def test_name_in_a_recording(account, tmp_path):
    """A recording in which a name is still readable isn't written."""

    def leaking(account):
        account.note("value", account.settings.pool)

    account_mask = account.mask
    account.mask = Blind(account_mask.names)
    try:
        report = run([Check("C-00", QUICK, "Leaking.", leaking)], account, tmp_path)
    finally:
        account.mask = account_mask

    assert "The recording of C-00 still holds a name" in report.broken["C-00"]
    assert [] == list(tmp_path.iterdir())


def test_missing_setting(account, tmp_path):
    """A check without its setting isn't run, and the report names the variable."""
    report = run([CHECKS["C-25"]], account, tmp_path)

    assert {"C-25": "MLJOBS_ACCOUNT_EAI is not set"} == report.skipped
    assert report.is_green


def test_grants_of_the_second_role(server, tmp_path):
    """The privileges that a run grants to the second role are revoked at its end; those that it had stay."""
    for statement in (
        "CREATE ROLE OTHER",
        "GRANT ROLE OTHER TO USER MLJOBS",
        "GRANT USAGE ON COMPUTE POOL ML_POOL TO ROLE OTHER",
    ):
        _query(server, statement)

    with Account(settings_of(server, second_role="OTHER")) as account:
        run([CHECKS["C-04"]], account, tmp_path)

    rows = _query(server, "SHOW GRANTS TO ROLE OTHER")
    assert {("USAGE", "ML_POOL")} == {(row["privilege"], row["name"]) for row in rows}


class TestSchema:
    """The schema of a run is the only thing that it leaves in the account, for as long as it takes."""

    def test_after_an_error(self, server):
        """An error or Ctrl-C drops the jobs and the schema."""
        account = Account(settings_of(server))

        with pytest.raises(KeyboardInterrupt):
            _interrupted(account)

        schemas = _query(server, "SHOW SCHEMAS LIKE 'MLJOBS_CONTRACT_%'")
        assert account.schema.schema.value not in [row["name"] for row in schemas]
        assert [] == [row for row in _query(server, "SHOW JOB SERVICES IN ACCOUNT") if row["name"] == "LEFT_BEHIND"]

    def test_second_interrupt(self, server, capsys):
        """A second Ctrl-C doesn't interrupt the clean-up."""
        account = Account(settings_of(server))

        with pytest.raises(KeyboardInterrupt):
            _interrupted(account, lambda: os.kill(os.getpid(), signal.SIGINT))

        assert "Dropping the schema of the suite; please wait." in capsys.readouterr().out
        assert [] == _query(server, f"SHOW SCHEMAS LIKE '{account.schema.schema.value}'")

    def test_refused_clean_up(self, server, plant, capsys):
        """A clean-up that Snowflake refuses is printed as SQL."""
        with Account(settings_of(server)) as account:
            plant(Fault(matching="^DROP SCHEMA", effect="error", errno=3001, message="Insufficient privileges."))

        still_to_do = f"DROP SCHEMA IF EXISTS {account.schema} CASCADE;  -- Insufficient privileges."
        assert f"Still to do by hand: {still_to_do}" in capsys.readouterr().out

    def test_refused_login(self, server):
        """A connection that can't log in is refused with Snowflake's reason."""
        connection = json.loads(server.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"]) | {"password": "another"}

        with pytest.raises(SetupError, match=r"can't log in: .*Incorrect username or password"):
            Account(settings_of(server, connection=json.dumps(connection))).__enter__()

    def test_without_a_database(self, server, plant):
        """A connection without a database is refused before anything is made."""
        plant(Fault(matching="CURRENT_AVAILABLE_ROLES", effect="rewrite", column="CURRENT_DATABASE()", value=None))

        with pytest.raises(SetupError, match="names no database"):
            Account(settings_of(server)).__enter__()


def _interrupted(account, at_end=lambda: None):
    with account:
        account.start("LEFT_BEHIND", "sleep 600")
        account._undo.callback(at_end)
        raise KeyboardInterrupt


def _query(server, statement):
    from snowflake import connector

    with connector.connect(**server.connection_kwargs) as connection, connection.cursor(connector.DictCursor) as cursor:
        return cursor.execute(statement).fetchall()


class TestSettings:
    """Settings from the environment, and the command."""

    def test_missing(self):
        """Connection and pool are required."""
        with pytest.raises(SetupError, match="MLJOBS_ACCOUNT_CONNECTION and MLJOBS_ACCOUNT_POOL must be set"):
            Settings.from_environment({})

    def test_optional(self):
        """Optional settings that are empty count as not set."""
        environment = {"MLJOBS_ACCOUNT_CONNECTION": "{}", "MLJOBS_ACCOUNT_POOL": "P", "MLJOBS_ACCOUNT_EAI": ""}

        settings = Settings.from_environment(environment)

        assert ("P", None) == (settings.pool, settings.eai)

    def test_connections_file(self, tmp_path, monkeypatch):
        """A name is looked up in the connector's connections.toml, and becomes an Airflow connection."""
        from snowflake.connector.config_manager import CONFIG_MANAGER

        monkeypatch.setenv("SNOWFLAKE_CONNECTIONS", '[lab]\naccount = "a"\nuser = "u"\npassword = "p"\nrole = "r"\n')
        monkeypatch.setattr(CONFIG_MANAGER, "conf_file_cache", None)

        connection = json.loads(Settings(connection="lab", pool="P").airflow_connection)

        assert {
            "conn_type": "snowflake",
            "login": "u",
            "password": "p",
            "schema": None,
            "extra": {"account": "a", "role": "r"},
        } == connection

    def test_connections_file_with_a_key(self, monkeypatch):
        """The key of a named connection and its passphrase get Airflow's names."""
        from snowflake.connector.config_manager import CONFIG_MANAGER

        text = '[key]\naccount = "a"\nuser = "u"\nprivate_key_path = "/k.p8"\nprivate_key_passphrase = "p"\n'
        monkeypatch.setenv("SNOWFLAKE_CONNECTIONS", text)
        monkeypatch.setattr(CONFIG_MANAGER, "conf_file_cache", None)

        connection = json.loads(Settings(connection="key", pool="P").airflow_connection)

        assert ("p", {"account": "a", "private_key_file": "/k.p8"}) == (connection["password"], connection["extra"])

    def test_unknown_connection(self, monkeypatch):
        """A name that connections.toml lacks is refused, with the names that it has."""
        from snowflake.connector.config_manager import CONFIG_MANAGER

        monkeypatch.setenv("SNOWFLAKE_CONNECTIONS", '[lab]\naccount = "a"\n')
        monkeypatch.setattr(CONFIG_MANAGER, "conf_file_cache", None)

        with pytest.raises(SetupError, match="which has 'lab'"):
            Settings(connection="prod", pool="P").airflow_connection  # noqa: B018 (the property is asked for)

    def test_without_an_account(self, monkeypatch, capsys):
        """Without a connection the command says how to try it on the embedded Snowflake, and runs nothing."""
        monkeypatch.delenv("MLJOBS_ACCOUNT_CONNECTION", raising=False)

        assert 2 == main([])
        assert "make test-account OPTIONS=--emulator" in capsys.readouterr().out

    def test_without_a_confirmation(self, server, monkeypatch, capsys):
        """The cost is printed first; nothing is started without CONFIRM=1."""
        monkeypatch.setenv("MLJOBS_ACCOUNT_CONNECTION", server.environment["AIRFLOW_CONN_SNOWFLAKE_DEFAULT"])
        monkeypatch.setenv("MLJOBS_ACCOUNT_POOL", "ML_POOL")
        monkeypatch.delenv("CONFIRM", raising=False)
        before = server.statements.logins

        assert 2 == main(["--tier", "quick"])
        assert "credits on CPU_X64_S" in capsys.readouterr().out
        assert before == server.statements.logins

    def test_page(self):
        """The page for volunteers has each variable, and each tier with its minutes of a node."""
        page = (ROOT / "docs" / "account.md").read_text("utf-8")
        variables = {f"MLJOBS_ACCOUNT_{name.upper()}" for check in CHECKS.values() for name in check.needs}
        minutes = Counter()
        for check in CHECKS.values():
            minutes[check.tier] += check.node_minutes

        assert {CONNECTION, "MLJOBS_ACCOUNT_POOL", *variables} == set(re.findall(r"MLJOBS_ACCOUNT_[A-Z_]+", page))
        assert {tier: round(minutes[tier]) for tier in TIERS} == {
            tier: int(number) for tier, number in re.findall(r"^\| `(\w+)` \|.*\| (\d+)\b", page, re.MULTILINE)
        }

    def test_estimate(self, account):
        """The estimate counts the checks that can run with the settings."""
        checks = [Check("C-00", QUICK, "", None, node_minutes=60.0), Check("C-01", QUICK, "", None, ("eai",), 600.0)]

        assert estimate(checks, account).startswith("1 checks keep a node busy for about 60 minutes: 0.11 credits")
