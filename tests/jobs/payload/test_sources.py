from pathlib import Path

import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.jobs.names import Identifier, Namespace
from airflow_provider_mljobs.jobs.payload.git import GitSource
from airflow_provider_mljobs.jobs.payload.sources import (
    Place,
    StageCopy,
    Start,
    is_on_stage,
    locate,
    staged,
    validate_source,
)

ML = Place(namespace=Namespace(Identifier("DB"), Identifier("ML")))
URL = "https://github.com/acme/models"


def script(*command):
    """Return the start of a Python file."""
    return Start(kind="script", command=command)


def command(*words):
    """Return the start of a program."""
    return Start(kind="command", command=words)


@pytest.mark.parametrize(
    ("source", "entrypoint", "start"),
    [
        ("source", "main.py", script("main.py")),
        ("source", Path("pkg/a.py"), script("pkg/a.py")),
        ("source", ["main.py", "--x"], script("main.py", "--x")),
        ("source", ["torchrun", "main.py", "--x"], command("torchrun", "main.py", "--x")),
        ("source", ("./run.sh",), command("./run.sh")),
        ("source/main.py", None, script("main.py")),
        ("source/main.py", "main.py", script("main.py")),
        ("source/main.py", ["main.py", "--x"], script("main.py", "--x")),
        ("source/main.py", ["torchrun", "main.py"], command("torchrun", "main.py")),
        ("source/run.sh", ["bash", "run.sh"], command("bash", "run.sh")),
    ],
    ids=str,
)
def test_a_python_file_or_a_command_is_started(write, source, entrypoint, start):
    """A list is a command, as for subprocess; one that begins with a Python file runs that."""
    write("source", {"main.py": "", "run.sh": "", "pkg/a.py": ""})
    local = locate(write("", {}) / source, entrypoint)

    assert start == local.start
    assert {"run.sh" if "run.sh" in source else "main.py"} <= set(local.files())


@pytest.mark.parametrize(
    ("source", "entrypoint", "error", "message"),
    [
        ("nowhere", None, PayloadError, "does not exist (looked at /"),
        (
            "source",
            None,
            InvalidJobSpecError,
            "is a directory: entrypoint must name the file to start, e.g. 'train.py'",
        ),
        ("source", "", InvalidJobSpecError, "is a directory: entrypoint must name the file to start, e.g. 'train.py'"),
        ("source", "train.py", PayloadError, "entrypoint 'train.py' is not a file in source "),
        (
            "source",
            "torchrun main.py",
            PayloadError,
            " A command is written as a list: entrypoint=['torchrun', 'main.py'].",
        ),
        ("source", "pkg.py", PayloadError, "entrypoint 'pkg.py' is not a file in source"),
        ("source", "../other.py", InvalidJobSpecError, "entrypoint '../other.py' is outside of source"),
        ("source", "/etc/x.py", InvalidJobSpecError, "is outside of source"),
        (
            "source",
            "run.sh",
            InvalidJobSpecError,
            (
                "entrypoint 'run.sh' is not a Python file: its name must end in .py. Start anything else with a "
                "command, which is a list, e.g. ['bash', 'run.sh']."
            ),
        ),
        ("source/run.sh", None, InvalidJobSpecError, "entrypoint 'run.sh' is not a Python file"),
        ("other.py", "main.py", InvalidJobSpecError, "entrypoint 'main.py' is not the file that source"),
        ("other.py", ["main.py"], InvalidJobSpecError, "entrypoint 'main.py' is not the file that source"),
    ],
)
def test_sources_that_can_not_start_are_refused(write, source, entrypoint, error, message):
    """The message for a source that can't start names the mistake in it or its entrypoint."""
    root = write("", {"source/main.py": "", "source/run.sh": "", "source/pkg.py/a.py": "", "other.py": ""})

    with pytest.raises(error) as caught:
        locate(root / source, entrypoint)

    assert message in str(caught.value)


@pytest.mark.parametrize(
    "entrypoint",
    [3, [], [""], ["a", 1], {"a": 1}, b"main.py", {"main.py"}],
    ids=repr,
)
@pytest.mark.parametrize("source", ["source", "@code/", GitSource(URL, "main")], ids=str)
def test_what_can_be_no_entrypoint_is_refused(source, entrypoint):
    """An invalid entrypoint is refused when the DAG is parsed, for any kind of source."""
    with pytest.raises(InvalidJobSpecError) as caught:
        validate_source(source, entrypoint)

    assert (
        "entrypoint must be a Python file of the source, e.g. 'train.py', or a command as a list of texts, e.g. "
        f"['torchrun', 'train.py']; got {entrypoint!r}."
    ) == str(caught.value)


@pytest.mark.parametrize("word", ["a\0b", "\udc00"], ids=repr)
def test_commands_are_text(word):
    """A command with text that no process accepts is refused."""
    with pytest.raises(InvalidJobSpecError, match=r"^entrypoint holds"):
        validate_source("source", ["bash", word])


@pytest.mark.parametrize(
    ("source", "entrypoint"),
    [
        ("nowhere/at/all", "train.py"),
        (Path("train.py"), None),
        ("@stage/train/", "train.py"),
        ("@stage/train.py", None),
        ("snow://notebook/DB.ML.N/versions/live/", ["python", "n.py"]),
        (GitSource(URL, "main"), "train.py"),
    ],
    ids=str,
)
def test_sources_are_validated_without_a_look_at_them(source, entrypoint):
    """A source is validated without disk and connection, because other machines parse the DAG as well."""
    assert validate_source(source, entrypoint) is None


@pytest.mark.parametrize("source", [None, "", 3, ["a"], b"a"], ids=repr)
def test_what_can_be_no_source_is_refused(source):
    """The message for an invalid source lists the kinds of sources."""
    with pytest.raises(InvalidJobSpecError) as caught:
        validate_source(source, None)

    assert (
        "source must be a function, a file, a directory, an address in Snowflake ('@…' or 'snow://…'), or a GitSource; "
        f"got {source!r}."
    ) == str(caught.value)


def test_an_entrypoint_that_patterns_leave_out_is_refused(write):
    """The message for an excluded entrypoint names the pattern and its file."""
    source = write("source", {"pkg/train.py": "", "pkg/.gitignore": "# big\ntrain.*\n"})

    with pytest.raises(PayloadError) as caught:
        locate(source, "pkg/train.py").files()

    assert (
        "entrypoint 'pkg/train.py' doesn't travel: pattern 'train.*' in "
        f"{str(source / 'pkg/.gitignore')!r} excludes it."
    ) == str(caught.value)


def test_an_entrypoint_in_a_cache_is_refused(write):
    """The message for an entrypoint in a cache names no pattern."""
    source = write("source", {"__pycache__/train.py": ""})

    with pytest.raises(PayloadError, match="doesn't travel: it is a file of git or of Python's caches"):
        locate(source, "__pycache__/train.py").files()


def test_conda_environments_are_refused(write):
    """A conda environment is refused, as by the ML runtime, unless a pattern excludes it."""
    files = {"train.py": "", "environment.yml": ""}
    source = write("source", files)

    with pytest.raises(PayloadError) as caught:
        locate(source, "train.py").files()

    assert (
        f"source {str(source)!r} has an environment.yml, but ML jobs take no conda environments. Write a "
        "requirements.txt; if environment.yml is for something else, exclude it in .mljobsignore."
    ) == str(caught.value)
    assert {"train.py", ".mljobsignore"} == set(
        locate(write("other", {**files, ".mljobsignore": "/environment.yml"}), "train.py").files()
    )


@pytest.mark.parametrize(
    ("source", "entrypoint", "location", "start"),
    [
        ("@code", "train.py", "@DB.ML.CODE/", script("train.py")),
        ("@code/", "a/../train.py", "@DB.ML.CODE/", script("train.py")),
        ("@prod.ml.code/v1 2/train", "train.py", "@PROD.ML.CODE/v1 2/train/", script("train.py")),
        ('@"my code"/train/', ["bash", "run.sh"], '@DB.ML."my code"/train/', command("bash", "run.sh")),
        ("@code/train.py", None, "@DB.ML.CODE/train.py", script("train.py")),
        ("@code/train.py/", "train.py", "@DB.ML.CODE/train.py/", script("train.py")),
        ("@code/a/train.py", ["train.py", "--x"], "@DB.ML.CODE/a/train.py", script("train.py", "--x")),
        (
            "snow://notebook/DB.ML.N/versions/live",
            "n.py",
            "snow://notebook/DB.ML.N/versions/live/",
            script("n.py"),
        ),
        (
            'snow://workspace/USER$.PUBLIC."My work"/versions/live/train.py',
            None,
            'snow://workspace/USER$.PUBLIC."My work"/versions/live/train.py',
            script("train.py"),
        ),
    ],
)
def test_sources_on_stages(source, entrypoint, location, start):
    """Sources on stages are written as Snowflake takes them: qualified, and directories with a slash."""
    copy = StageCopy(source=location, target="input/source")

    assert is_on_stage(source)
    assert (copy, start) == staged(source, entrypoint, ML)


@pytest.mark.parametrize(
    ("source", "entrypoint", "message"),
    [
        ("@code/train/", None, "source '@code/train/' is a directory: entrypoint must name the file to start"),
        ("@code/", "/train.py", "entrypoint '/train.py' is outside of source '@code/'."),
        ("@code/", "../train.py", "entrypoint '../train.py' is outside of source '@code/'."),
        ("@code/", "run.sh", "entrypoint 'run.sh' is not a Python file"),
        ("@code/train.py", "other.py", "entrypoint 'other.py' is not the file that source '@code/train.py' names."),
        ("@~/train.py", None, "source '@~/train.py' is the stage of a user or a table. Name a stage: "),
        ("@%t/train.py", None, "source '@%t/train.py' is the stage of a user or a table"),
        ("@a.b.c.d/train.py", None, "source 'a.b.c.d' is not a name of at most 3 parts."),
        ("@code/../x/", "a.py", "'../x' can't be a path on a stage"),
        (
            "snow://",
            "a.py",
            "source 'snow://' is no valid address: write snow://<kind>/<name>/versions/<version>/",
        ),
        ("snow://notebook/", "a.py", "source 'snow://notebook/' is no valid address"),
        ("snow://notebook/n/../m", "a.py", "source 'snow://notebook/n/../m' is no valid address"),
        ("snow://notebook/n/it's", "a.py", "is no valid address"),
    ],
)
def test_places_that_can_not_be_are_refused(source, entrypoint, message):
    """An invalid address in Snowflake is refused before anything is sent."""
    with pytest.raises(InvalidJobSpecError) as caught:
        validate_source(source, entrypoint)

    assert str(caught.value).startswith(message) or message in str(caught.value)


def test_stages_without_database_and_schema_need_some():
    """An unqualified stage needs database and schema of the task or its connection."""
    with pytest.raises(InvalidJobSpecError, match=r"source 'code' has no database and schema. Write it as"):
        staged("@code/", "train.py", Place())


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"url": "file:///mnt/repository"},
        {"url": "http://127.0.0.7:8080/r.git", "secret": "s"},
        {"url": "http://localhost/r.git", "secret": "s"},
        {"url": "http://intranet/r.git"},
        {"ref": "feature/x-1.2_3"},
        {"ref": "0a1b2c3"},
        {"ref": "refs/pull/7/head"},
        {"ref": "HEAD"},
        {"path": "a/b"},
        {"path": "./a/"},
        {"secret": 'db.ml."git hub"'},
        {"url": "{{ var.value.url }}", "ref": "{{ params.ref }}", "path": "{{ x }}", "secret": "{{ y }}"},
    ],
    ids=str,
)
def test_git_sources(fields):
    """Git sources are public or private, on any branch, and their fields may be templates."""
    source = GitSource(**{"url": URL, "ref": "main"} | fields)

    assert fields.items() <= vars(source).items()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"url": 3}, "GitSource: url must be a text, got 3."),
        ({"ref": None}, "GitSource: ref must be a text, got None."),
        ({"path": None}, "GitSource: path must be a text, got None."),
        ({"secret": 3}, "GitSource: secret must be a text, got 3."),
        (
            {"url": "git@github.com:acme/models.git"},
            (
                "GitSource: url of 'github.com:acme/models.git' must begin with https://: the job has no key for ssh. "
                "For credentials name a Snowflake secret: secret='db.schema.name'."
            ),
        ),
        ({"url": "ssh://git@github.com/acme"}, "GitSource: url of 'github.com/acme' must begin with https://"),
        ({"url": "github.com/acme"}, "GitSource: url of 'github.com/acme' must begin with https://"),
        ({"url": ""}, "GitSource: url of '' must begin with https://"),
        ({"url": "-upload-pack=x"}, "GitSource: url of '-upload-pack=x' must begin with https://"),
        (
            {"url": "https://me:hunter2@github.com/acme"},
            (
                "GitSource: the url of host 'github.com' holds credentials, and the job's specification would "
                "show them. Put them into a Snowflake secret and name it: secret='db.schema.name'."
            ),
        ),
        ({"url": "https://hunter2@github.com/acme"}, "GitSource: the url of host 'github.com' holds credentials"),
        ({"url": "https://[bad/acme"}, "GitSource: url 'https://[bad/acme' is no valid address."),
        ({"url": "https:///acme"}, "GitSource: url 'https:///acme' is no address of a repository. Write one with host"),
        ({"url": "file://host/acme"}, "GitSource: url 'file://host/acme' is no address of a repository"),
        ({"url": f"{URL}?token=x"}, f"GitSource: url '{URL}?token=***' is no address of a repository"),
        ({"url": f"{URL}#v1"}, f"GitSource: url '{URL}#v1' is no address of a repository"),
        ({"url": f"{URL} x"}, f"GitSource: url '{URL} x' is no address of a repository"),
        (
            {"url": "http://github.com/acme", "secret": "s"},
            "GitSource: url 'http://github.com/acme' would send the secret unencrypted; use https://.",
        ),
        ({"ref": ""}, "GitSource: ref '' can't be a branch, a tag or a commit."),
        ({"ref": "--upload-pack=x"}, "GitSource: ref '--upload-pack=x' can't be a branch"),
        ({"ref": "main:evil"}, "GitSource: ref 'main:evil' can't be a branch"),
        ({"ref": "main~1"}, "GitSource: ref 'main~1' can't be a branch"),
        ({"ref": "a..b"}, "GitSource: ref 'a..b' can't be a branch"),
        ({"ref": "a b"}, "GitSource: ref 'a b' can't be a branch"),
        ({"ref": "a.lock"}, "GitSource: ref 'a.lock' can't be a branch"),
        ({"path": "../x"}, "GitSource: path '../x' is outside of the repository."),
        ({"path": "/x"}, "GitSource: path '/x' is outside of the repository."),
        ({"secret": "a b"}, "GitSource: secret 'a b' is not a name of at most 3 parts."),
    ],
    ids=str,
)
def test_what_can_be_no_git_source_is_refused(fields, message):
    """An invalid git source is refused when it is created, without credentials in the message."""
    with pytest.raises(InvalidJobSpecError) as caught:
        GitSource(**{"url": URL, "ref": "main"} | fields)

    assert str(caught.value).startswith(message)
    assert "hunter2" not in str(caught.value)
