import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.names import ANYWHERE, Identifier, Namespace
from airflow_provider_mljobs.jobs.spec.refusals import check
from airflow_provider_mljobs.jobs.spec.secrets import parse_secrets

DB, ML = Identifier("DB"), Identifier("ML")


@pytest.mark.parametrize(
    ("place", "given", "expected"),
    [
        (
            "API_KEY",
            "wandb",
            {"snowflakeSecret": "DB.ML.WANDB", "envVarName": "API_KEY", "secretKeyRef": "secret_string"},
        ),
        (
            "PASSWORD",
            {"snowflakeSecret": "s.login", "secretKeyRef": "password"},
            {"snowflakeSecret": "DB.S.LOGIN", "envVarName": "PASSWORD", "secretKeyRef": "password"},
        ),
        ("/secrets/feed", 'd.s."my feed"', {"snowflakeSecret": 'D.S."my feed"', "directoryPath": "/secrets/feed"}),
        ("/secrets//feed/", "feed", {"snowflakeSecret": "DB.ML.FEED", "directoryPath": "/secrets/feed"}),
        (
            "/secrets",
            {"snowflakeSecret": {"objectName": "feed"}},
            {"snowflakeSecret": "DB.ML.FEED", "directoryPath": "/secrets"},
        ),
        (
            "/secrets",
            {"snowflakeSecret": {"objectReference": "feed"}},
            {"snowflakeSecret": {"objectReference": "feed"}, "directoryPath": "/secrets"},
        ),
    ],
    ids=["variable", "key", "directory", "slashes", "object name", "reference"],
)
def test_secrets(place, given, expected):
    """A name is a variable, an absolute path a directory; the secret is always qualified."""
    entries = parse_secrets({place: given}, Namespace(DB, ML))

    assert [expected] == entries
    check({"spec": {"containers": [{"name": "main", "image": "/db/schema/repository/image:1.0", "secrets": entries}]}})


def test_order():
    """The entries keep the order of the argument, so that it always gives the same specification."""
    entries = parse_secrets({"B": "b", "/a": "a", "A": "b"}, Namespace(DB, ML))

    assert ["B", "/a", "A"] == [entry.get("envVarName", entry.get("directoryPath")) for entry in entries]


def test_no_secrets():
    """No secrets give no entries."""
    assert [] == parse_secrets({})


def test_what_is_known_of_secrets_while_parsing():
    """A name without a database and schema gets those of the connection later."""
    parse_secrets({"API_KEY": "wandb"})

    with pytest.raises(InvalidJobSpecError, match="no database and schema"):
        parse_secrets({"API_KEY": "wandb"}, ANYWHERE)


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        (
            ["a"],
            "secrets must map variables or directories to secrets, e.g. {'API_KEY': 'db.schema.secret'}; got a list.",
        ),
        ("a", "secrets must map variables or directories to secrets, e.g. {'API_KEY': 'db.schema.secret'}; got 'a'."),
        (
            {"A": None},
            "secrets['A'] must be the name of a secret, or a dict with snowflakeSecret and secretKeyRef; got nothing",
        ),
        (
            {"A": ""},
            "secrets is not valid: secrets['A'].snowflakeSecret.objectName must be the name of a secret, got ''.",
        ),
        ({"A": "my secret"}, "secrets['A'] 'my secret' is not a name of at most 3 parts."),
        ({"A": "a.b.c.d"}, "secrets['A'] 'a.b.c.d' is not a name of at most 3 parts."),
        ({"A": {}}, "secrets is not valid: secrets['A'].snowflakeSecret is missing."),
        (
            {"A": {"snowflakeSecret": {"objectName": "a", "objectReference": "b"}}},
            "secrets['A'].snowflakeSecret needs either objectName or objectReference; it has both.",
        ),
        (
            {"A": {"snowflakeSecret": "a", "secretKeyRef": "token"}},
            "secrets['A'].secretKeyRef must be 'username', 'password', 'secret_string' or 'access_token'; got 'token'.",
        ),
        (
            {"A": {"snowflakeSecret": "a", "key": 1}},
            "secrets['A'].key is unknown; use snowflakeSecret, secretKeyRef.",
        ),
        (
            {"A": {"snowflakeSecret": "a", "envVarName": "B"}},
            "secrets['A'].envVarName can't stand here: the key of the secret is its place.",
        ),
        (
            {"A": {"snowflakeSecret": {1}}},
            "secrets['A'].snowflakeSecret is {1}, of type set, and a specification can't hold that",
        ),
        ({"A B": "a"}, "'A B' in secrets can't be the name of an environment variable."),
        ({"secrets/feed": "a"}, "'secrets/feed' in secrets can't be the name of an environment variable."),
        ({1: "a"}, "1 in secrets can't be the name of an environment variable."),
        (
            {"SNOWFLAKE_HOST": "a"},
            "'SNOWFLAKE_HOST' in secrets is set by Snowflake or by the provider; remove it.",
        ),
        ({"MLJOBS_ARGS": "a"}, "'MLJOBS_ARGS' in secrets is set by Snowflake or by the provider; remove it."),
        (
            {"/a": {"snowflakeSecret": "a", "secretKeyRef": "password"}},
            "secrets['/a'] can't have secretKeyRef: the directory gets a file for each key.",
        ),
        (
            {"/a/../b": "a"},
            "secrets is not valid: the path must be an absolute path without '.' and '..', e.g. /data, got",
        ),
        (
            {"/snowflake/session": "a"},
            "'/snowflake/session' in secrets can't be mounted: the platform uses /snowflake.",
        ),
        ({"/a": "a", "/a/": "b"}, "'/a/' is in secrets twice; put one secret there."),
        ({f"A{n}": "a" for n in range(51)}, "secrets has 51 entries; Snowflake takes 50."),
    ],
)
def test_secrets_that_no_job_can_have(secrets, message):
    """The message about an invalid secret names its variable or directory."""
    with pytest.raises(InvalidJobSpecError) as caught:
        parse_secrets(secrets)

    assert message in str(caught.value)
