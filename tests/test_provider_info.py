import json
import tomllib
from importlib import import_module
from pathlib import Path

import airflow
import jsonschema
import pytest

from airflow_provider_mljobs import __version__
from airflow_provider_mljobs.gateway.payloads import DEFAULT_GRACE_SECONDS
from airflow_provider_mljobs.gateway.watcher.status_loop import DEFAULT_LOG_STATEMENTS_PER_MINUTE
from airflow_provider_mljobs.jobs.outcome.results import DEFAULT_MAX_XCOM_BYTES
from airflow_provider_mljobs.jobs.outcome.sightings import MAX_UNSEEN_SECONDS
from airflow_provider_mljobs.jobs.spec.job import NODE_MEMORY_MARGIN
from airflow_provider_mljobs.provider_info import get_provider_info

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def modules(node):
    """Yield the modules that a provider's description names."""
    if isinstance(node, dict):
        yield from node.get("python-modules", ())
        for value in node.values():
            yield from modules(value)
    elif isinstance(node, list):
        for value in node:
            yield from modules(value)


def test_airflow_accepts_the_description():
    """The description matches Airflow's schema."""
    schema = json.loads((Path(airflow.__file__).with_name("provider_info.schema.json")).read_text())

    jsonschema.validate(get_provider_info(), schema)


@pytest.mark.parametrize("module", list(modules(get_provider_info())))
def test_named_modules_exist(module):
    """Each module in the description can be imported."""
    assert module == import_module(module).__name__


@pytest.mark.parametrize("decorator", get_provider_info()["task-decorators"], ids=lambda decorator: decorator["name"])
def test_named_decorators_exist(decorator):
    """Each class path in the description leads to something callable."""
    module, name = decorator["class-name"].rsplit(".", 1)

    assert callable(getattr(import_module(module), name))


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("log_statements_per_minute", DEFAULT_LOG_STATEMENTS_PER_MINUTE),
        ("max_unseen_seconds", MAX_UNSEEN_SECONDS),
        ("max_xcom_bytes", DEFAULT_MAX_XCOM_BYTES),
        ("node_memory_margin", NODE_MEMORY_MARGIN),
        ("payload_grace_seconds", DEFAULT_GRACE_SECONDS),
    ],
)
def test_defaults_are_those_of_the_code(option, expected):
    """The defaults of the configuration are those of the code."""
    assert expected == float(get_provider_info()["config"]["mljobs"]["options"][option]["default"])


def test_the_distribution_leads_airflow_to_the_description():
    """The entry point names the function; the names and versions match."""
    module, function = PROJECT["entry-points"]["apache_airflow_provider"]["provider_info"].split(":")

    assert get_provider_info is getattr(import_module(module), function)
    assert PROJECT["name"] == get_provider_info()["package-name"]
    assert [__version__] == get_provider_info()["versions"]
