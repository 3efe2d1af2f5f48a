"""The documentation is true: its code runs, its SQL is accepted, its tables are those of the code."""

import inspect
import re
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag

from tests import emulator_table

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^ *```(\w+)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)


def blocks(page, language):
    """Return the code blocks of a page in one language."""
    texts = [inspect.cleandoc("\n" + text) for kind, text in FENCE.findall(page.read_text()) if kind == language]
    return [text for text in texts if "<" not in text or language == "python"]


def of(language):
    """Return a parameter per page that has blocks in the language."""
    return [pytest.param(page, id=page.stem) for page in PAGES if blocks(page, language)]


@pytest.mark.parametrize("page", of("python"))
def test_python_runs(airflow, page, tmp_path, monkeypatch):
    """The blocks of a page are one DAG file that imports without an error; every DAG in it succeeds."""
    monkeypatch.chdir(ROOT)
    airflow.query(
        "CREATE OR REPLACE TABLE LOAN_APPLICATIONS AS SELECT * FROM (VALUES (0, 1.0, 1.0, 600, 20, 1), "
        "(1, 2.0, 1.0, 700, 40, 0), (2, 3.0, 1.0, 650, 30, 1), (3, 4.0, 2.0, 500, 50, 0)) "
        "AS T(APPLICATION_ID, ANNUAL_INCOME, LOAN_AMOUNT, CREDIT_SCORE, AGE, DEFAULTED)"
    )
    file = tmp_path / f"{page.stem}.py"
    file.write_text("\n\n".join(blocks(page, "python")))

    bag = DagBag(file)
    states = {dag_id: airflow.run(dag).state for dag_id, dag in bag.dags.items()}

    assert {} == bag.import_errors
    assert dict.fromkeys(states, "success") == states


# What the SQL of the pages names.
NAMED = """
    CREATE DATABASE IF NOT EXISTS ML;
    CREATE WAREHOUSE IF NOT EXISTS ML_WH;
    CREATE ROLE IF NOT EXISTS ML_RUNNER;
    CREATE OR REPLACE NETWORK RULE ML.PUBLIC.PYPI TYPE = HOST_PORT MODE = EGRESS VALUE_LIST = ('pypi.org');
    CREATE OR REPLACE EXTERNAL ACCESS INTEGRATION PYPI_ACCESS ALLOWED_NETWORK_RULES = (ML.PUBLIC.PYPI) ENABLED = TRUE;
"""


@pytest.mark.parametrize("page", of("sql"))
def test_sql_is_accepted(airflow, page):
    """The embedded Snowflake accepts the SQL of a page."""
    from snowflake import connector

    with connector.connect(**airflow.snowflake.connection_kwargs) as connection:
        connection.execute_string(NAMED)
        cursors = connection.execute_string("\n".join(blocks(page, "sql")))

    assert [] == [cursor.query for cursor in cursors if cursor.sqlstate not in {None, "00000"}]


def test_make_targets_exist():
    """Every `make` that a page mentions is in the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    mentioned = {name for page in PAGES for name in re.findall(r"(?:\$ |`)make (\w+)", page.read_text())}

    assert set() == mentioned - targets


def test_links_lead_somewhere():
    """Every relative link of a page leads to a file."""
    broken = [
        (page.name, target)
        for page in [*PAGES, ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
        if not (page.parent / target).exists()
    ]

    assert [] == broken


def test_operator_parameters_are_documented():
    """The reference has a row for every parameter of the operator, with the right "templated"."""
    from airflow_provider_mljobs.operators import MLJobOperator

    parameters = set(inspect.signature(MLJobOperator.__init__).parameters) - {"self", "kwargs"}
    table = (ROOT / "docs/reference.md").read_text().partition("## `MLJobOperator`")[2].partition("###")[0]
    rows = re.findall(r"^\| (`.*?`) \| (yes|no) \|", table, re.MULTILINE)
    documented = {name: templated for names, templated in rows for name in re.findall(r"`(\w+)`", names)}

    assert {name: "yes" if name in MLJobOperator.template_fields else "no" for name in parameters} == documented


def test_error_tree_is_documented():
    """The reference shows the tree that is drawn in the module."""
    from airflow_provider_mljobs import exceptions

    drawn = inspect.cleandoc("\n" + (exceptions.__doc__ or "").partition("::\n")[2]).strip()

    assert drawn in (ROOT / "docs/reference.md").read_text()


def test_emulated_statements_are_documented():
    """The emulator's page lists every form that the code answers, and no other; `make docs` writes it."""
    assert emulator_table.render() == emulator_table.documented(emulator_table.PAGE.read_text())


def evidence():
    """Return the rows of the emulator's table of evidence: subject, behaviour, evidence, source and test."""
    table = emulator_table.PAGE.read_text().partition("## Evidence\n")[2].partition("## ")[0]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines() if row.startswith("| ")]
    return [pytest.param(*row[2:], id=row[1][:60]) for row in rows[1:]]


@pytest.mark.parametrize(("kind", "source", "test"), evidence())
def test_emulated_behaviour_has_a_source_and_a_test(kind, source, test):
    """A documented behaviour has a link to Snowflake's documentation, any other one its reason; a test shows each."""
    file, *parts = test.strip("`").split("::")
    code = (ROOT / "tests" / "emulator" / file).read_text()

    assert kind in {"documented", "recorded", "believed"}
    assert "https://docs.snowflake.com/en/" in source or (kind != "documented" and source)
    assert [] == [part for part in parts if not re.search(rf"(?:class|def) {part}[(:]", code)]


def test_architecture_describes_every_room():
    """ARCHITECTURE.md has a paragraph for each folder of the package."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    package = ROOT / "airflow_provider_mljobs"
    rooms = {path.parent.relative_to(package).as_posix() for path in package.rglob("*.py")} - {"."}

    assert set() == {room for room in rooms if f"\n- **`{room}/`** " not in text}


def test_files_that_the_architecture_names_exist():
    """Every path that ARCHITECTURE.md or CONTRIBUTING.md names is one of the repository or of the package."""
    pages = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"]
    named = {path for page in pages for path in re.findall(r"`([\w./]+(?:\.(?:py|js|md|toml)|/))`", page.read_text())}
    roots = (ROOT, ROOT / "airflow_provider_mljobs")

    assert set() == {path for path in named if not any((root / path).exists() for root in roots)}
