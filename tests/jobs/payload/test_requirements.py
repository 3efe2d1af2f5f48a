"""Credentials in requirements: refused with advice, and never repeated in a message."""

import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError
from airflow_provider_mljobs.jobs.credentials import starred
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.payload.git import GitSource
from airflow_provider_mljobs.jobs.payload.requirements import validate_requirements
from airflow_provider_mljobs.jobs.spec.job import validate_env_vars
from airflow_provider_mljobs.jobs.spec.refusals import check

SECRET = "pa55wordpa55word"
LINES = [
    f"--index-url https://user:{SECRET}@feed.acme.com/simple",
    f"--extra-index-url=HTTPS://{SECRET}@feed.acme.com/simple",
    f"-i https://{SECRET}:@feed.acme.com/simple",
    f"--find-links https://user%40acme.com:{SECRET}%2F@feed.acme.com/",
    f"-f https://user@acme.com:{SECRET}@feed.acme.com/",
    f"features @ https://user:{SECRET}@feed.acme.com/features-1.0.whl",
    f"-e git+https://{SECRET}@github.com/acme/features#egg=features",
    f"git+https://{SECRET}:x-oauth-basic@github.com/acme/features@v1",
    f"git+ssh://user:{SECRET}@github.com/acme/features",
    f"https://user:${{FEED}}{SECRET}@feed.acme.com/features-1.0.whl",
    f"--index-url https://feed.acme.com/simple?token={SECRET}",
    f"https://acme.blob.core.windows.net/x.whl?sv=2024&se=2030&sig={SECRET}",
    f"https://acme.s3.amazonaws.com/x.whl?X-Amz-Signature={SECRET}&X-Amz-Expires=60",
    f"numpy  # from https://user:{SECRET}@feed.acme.com/simple",
]
HARMLESS = [
    "lightgbm==4.*",
    "--index-url https://feed.acme.com/simple",
    "--index-url https://user:${FEED_TOKEN}@feed.acme.com/simple",
    "git+https://${GITHUB_TOKEN}@github.com/acme/features@v1",
    "git+ssh://git@github.com/acme/features",
    "git+https://github.com/acme/features@v1#subdirectory=python",
    "https://feed.acme.com/x.whl?sig=${SIGNATURE}",
    "features @ https://feed.acme.com/features-1.0.whl#sha256=abc",
]


@pytest.mark.parametrize("line", LINES)
def test_a_requirement_with_credentials_is_refused(line):
    """The message for a requirement with credentials stars them, and shows the two alternatives."""
    with pytest.raises(InvalidJobSpecError) as refused:
        validate_requirements(["numpy", line])

    assert str(refused.value).startswith("pip_requirements[1], '")
    assert "***" in str(refused.value)
    assert SECRET not in str(refused.value)
    assert "secrets={'FEED_TOKEN': 'db.schema.name'} and https://user:${FEED_TOKEN}@…" in str(refused.value)
    assert "secrets={'PIP_INDEX_URL': 'db.schema.name'}" in str(refused.value)


@pytest.mark.parametrize("line", HARMLESS)
def test_a_requirement_without_credentials_is_accepted(line):
    """Names of variables, which pip replaces in the job, and git's user are no credentials."""
    assert [line] == validate_requirements([line])
    assert line == starred(line)


def test_credentials_in_two_lines_are_refused():
    """Credentials in a line continued with a backslash are refused."""
    with pytest.raises(InvalidJobSpecError, match="holds credentials"):
        validate_requirements(["--index-url https://user:\\", f"{SECRET}@feed.acme.com/simple"])


@pytest.mark.parametrize("value", [LINES[0], [LINES[0] + "\nnumpy"], [b"x", LINES[0]], [LINES[0], 1]])
def test_messages_about_other_mistakes_have_no_credentials(value):
    """Credentials in an invalid value are starred."""
    with pytest.raises(InvalidJobSpecError) as refused:
        validate_requirements(value)

    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("file", ["requirements.txt", "more/private.txt", "constraints.txt"])
def test_a_source_whose_requirements_have_credentials_is_refused(write, line, file):
    """Credentials in requirements.txt or a file that it includes are refused; the message names the file."""
    files = {
        "main.py": "",
        "requirements.txt": "numpy\n-r more/first.txt\n--constraint=constraints.txt\n",
        "more/first.txt": "-r private.txt",
        "more/private.txt": "# none",
    }
    source = write("source", {**files, file: f"{files.get(file, '')}\n{line}\n"})

    with pytest.raises(InvalidJobSpecError) as refused:
        Payload.of_source(source, "main.py")

    assert str(refused.value).startswith(f"{file}, '")
    assert SECRET not in str(refused.value)


def test_other_files_of_a_source_are_left_alone(write):
    """Files that pip doesn't read are not checked."""
    source = write("source", {"main.py": "", "requirements.txt": "numpy", "notes.txt": LINES[0]})

    assert Payload.of_source(source, "main.py").digest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PIP_INDEX_URL", f"https://user:{SECRET}@feed.acme.com/simple"),
        ("PIP_EXTRA_INDEX_URL", f"https://a.b/simple https://{SECRET}@feed.acme.com/simple"),
        ("PIP_FIND_LINKS", f"https://feed.acme.com/?token={SECRET}"),
        ("UV_DEFAULT_INDEX", f"https://user:{SECRET}@feed.acme.com/simple"),
        ("UV_INDEX", f"feed=https://user:{SECRET}@feed.acme.com/simple"),
        ("UV_INDEX_FEED_PASSWORD", SECRET),
    ],
)
def test_variables_of_pip_and_uv_with_credentials_are_refused(name, value):
    """Credentials in settings of pip and uv are refused: a specification is readable."""
    container = {"name": "main", "image": "/a/b/c/d:1", "env": {name: value}}

    with pytest.raises(InvalidJobSpecError) as in_variables:
        validate_env_vars({name: value})
    with pytest.raises(InvalidJobSpecError) as in_specification:
        check({"spec": {"containers": [container]}})

    assert f"secrets={{'{name}': 'db.schema.name'}}" in str(in_variables.value)
    assert "spec.containers[0] has credentials of a package index in its env" in str(in_specification.value)
    assert SECRET not in f"{in_variables.value}{in_specification.value}"


def test_variables_without_credentials_are_accepted():
    """Settings of pip without credentials, and variables of other programs, are accepted."""
    validate_env_vars(
        {"PIP_NO_INDEX": "1", "PIP_INDEX_URL": "https://feed.acme.com/simple", "DB": "postgres://u:p@host/db"}
    )


@pytest.mark.parametrize(
    "url", [f"https://user:{SECRET}@[host/x", f"https://h/x?token={SECRET}", f"https://u:{SECRET}@a\u2100b/x"]
)
def test_a_git_address_with_credentials_is_not_repeated(url):
    """An invalid git address with credentials isn't repeated in the message."""
    with pytest.raises(InvalidJobSpecError) as refused:
        GitSource(url, "main")

    assert SECRET not in str(refused.value)


def test_starring_is_linear():
    """Starring a megabyte of beginnings of addresses takes linear time."""
    text = "https://user:password" * 25_000 + "?a&b" * 100_000

    assert text == starred(text)
