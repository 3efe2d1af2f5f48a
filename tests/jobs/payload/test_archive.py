import io
import json
import os
import zipfile

import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.jobs.names import Identifier, Namespace
from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.payload.git import GitSource
from airflow_provider_mljobs.jobs.payload.requirements import validate_requirements
from airflow_provider_mljobs.jobs.payload.sources import Place, StageCopy
from airflow_provider_mljobs.jobs.values.arguments import Arguments

ECHO = """
import os, sys
__return__ = {"args": sys.argv[1:], "env": {name: os.environ.get(name) for name in ("A", "B")}}
"""
NASTY = [
    "",
    " a  b ",
    "$$",
    "$(X)",
    "$(HOME)",
    "$$(HOME)",
    "${X}",
    "$HOME",
    "\\n \\ \\\\ \\$",
    'it\'s "quoted" `id`',
    "a\nb\r\nc\rd\n",
    "\ta\t",
    "🚀 größe",
    "a\x85b\u2028c\u2029d\ufeff",
    "\x01\x1b\x7f",
    "--depth=3",
    "*",
    "{{ not_a_template }}",
    "~",
    "null",
    ("0123456789abcdef" * 1280)[:20_480],
]
ML = Place(namespace=Namespace(Identifier("DB"), Identifier("ML")))


def archive(payload):
    """Open a payload's archive."""
    return zipfile.ZipFile(io.BytesIO(payload.archive))


def manifest(payload):
    """Return the manifest of a payload."""
    return json.loads(archive(payload).read("mljob.json"))


def sent(payload):
    """Return the names of a payload's own files."""
    return [name for name in archive(payload).namelist() if not name.startswith(("mljob_launcher/", "inside/"))]


def test_arguments_arrive_byte_for_byte(run, script):
    """No value is expanded, folded or cut between the task and the script's sys.argv."""
    ended = run(Payload.of_source(script(ECHO), None), Arguments.of_script(NASTY), X="expanded")

    assert 0 == ended.code
    assert NASTY == ended.record["value"]["args"]


def test_env_vars_arrive_byte_for_byte(run, script):
    """No environment variable is expanded, folded or cut on its way."""
    env_vars = {f"V{index}": value for index, value in enumerate(NASTY)} | {"ALL": "|".join(NASTY)}
    text = f"import os\n__return__ = {{name: os.environ[name] for name in {sorted(env_vars)}}}"
    ended = run(Payload.of_source(script(text), None), env_vars=env_vars, X="expanded")

    assert env_vars == ended.record["value"]


def test_child_processes_inherit_the_environment(run, script):
    """Child processes inherit encoded variables decoded, and none of the launcher's variables."""
    text = """
import os, subprocess
__return__ = subprocess.check_output(["env", "-0"], text=True).split("\\0")
"""
    ended = run(Payload.of_source(script(text), None), Arguments.of_script(["x"]), {"A": "$(B)", "B": "b"})

    assert {"A=$(B)", "B=b"} <= set(ended.record["value"])
    names = [line.partition("=")[0] for line in ended.record["value"]]
    assert ["MLJOBS_STDOUT"] == [name for name in names if name.startswith("MLJOBS_")]


def test_large_arguments_travel_beside_the_result(run, script):
    """Large arguments travel as a file, because the specification is part of one statement."""
    large = ["$(X)" * 20_000, "b"]
    arguments = Arguments.of_script(large)

    assert arguments.inline is None
    assert large == run(Payload.of_source(script(ECHO), None), arguments).record["value"]["args"]


def test_the_same_files_give_the_same_bytes(write):
    """An archive doesn't depend on times, permissions, the order of creation or the path of its directory."""
    files = {"main.py": "1", "b/c.py": "2", "a.txt": "3"}
    one, other = write("one", files), write("other", dict(reversed(files.items())))
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
    (other / "main.py").chmod(0o600)
    payload = Payload.of_source(one, "main.py", imports=[(one, "pkg")])

    assert payload == Payload.of_source(other, "main.py", imports=[(other, "pkg")])
    assert 32 == len(payload.digest)


def test_other_code_has_another_digest(write):
    """Payloads that differ in any part have different names on the stage."""
    source = write("source", {"main.py": "1", "other.py": "1"})
    payloads = [
        Payload.of_source(source, "main.py"),
        Payload.of_source(source, "other.py"),
        Payload.of_source(source, ["python", "main.py"]),
        Payload.of_source(source, "main.py", pip_requirements=["numpy"]),
        Payload.of_source(source, "main.py", imports=[(source, "pkg")]),
        Payload.of_source("@code/", "main.py", place=ML),
        Payload.of_source(GitSource("https://github.com/acme/models", "main"), "main.py"),
        Payload.of_source(GitSource("https://github.com/acme/models", "v1"), "main.py"),
    ]

    assert len(payloads) == len({payload.digest for payload in payloads})


def test_files_are_sorted_in_the_archive(write):
    """The archive starts itself and has the source below app/, in a fixed order."""
    source = write("source", {"main.py": "", "b/c.py": "", "a.txt": "", "B.txt": ""})

    assert [
        "__main__.py",
        "app/B.txt",
        "app/a.txt",
        "app/b/c.py",
        "app/main.py",
        "mljob.json",
    ] == sent(Payload.of_source(source, "main.py"))


def test_a_file_travels_alone(write):
    """The files beside a source file don't travel."""
    source = write("source", {"main.py": "", "secret.txt": "", "requirements.txt": "numpy"})

    assert ["__main__.py", "app/main.py", "mljob.json"] == sent(Payload.of_source(source / "main.py", None))


def test_binary_files_travel_unchanged(write):
    """Files arrive byte for byte."""
    source = write("source", {"main.py": ""})
    content = bytes(range(256))
    (source / "model.bin").write_bytes(content)

    assert content == archive(Payload.of_source(source, "main.py")).read("app/model.bin")


def test_programs_stay_programs(write):
    """A file that its owner may run is executable in the job; the rest of its mode doesn't travel."""
    source = write("source", {"main.py": "", "run.sh": ""})
    (source / "run.sh").chmod(0o700)
    infos = {info.filename: info.external_attr >> 16 for info in archive(Payload.of_source(source, "main.py")).filelist}

    assert (0o100644, 0o100755) == (infos["app/main.py"], infos["app/run.sh"])


def test_the_entrypoint_of_a_directory_may_lie_below(write):
    """An entrypoint may be any path relative to the source."""
    source = write("source", {"pkg/main.py": ""})
    entrypoints = ["pkg/main.py", "./pkg/main.py", "pkg/../pkg/main.py", source / "pkg/main.py"]

    assert [["pkg/main.py"]] * 4 == [manifest(Payload.of_source(source, start))["command"] for start in entrypoints]


def test_relative_sources_lie_in_the_tasks_folder(write):
    """Relative paths start at the task's folder, which is the DAG file's."""
    write("dags/source", {"main.py": "1"})
    payload = Payload.of_source("source", "main.py", place=Place(folder=write("dags", {})))

    assert b"1" == archive(payload).read("app/main.py")


def test_sources_on_stages_are_copied_by_snowflake():
    """The archive has the address of a source on a stage, and none of its files."""
    payload = Payload.of_source("@code/train/", ["torchrun", "train.py"], place=ML)

    assert ["__main__.py", "mljob.json"] == sent(payload)
    assert (StageCopy(source="@DB.ML.CODE/train/", target="input/source"),) == payload.copies
    assert {"from": "@DB.ML.CODE/train/", "input": "input/source"} == manifest(payload)["stage"]
    assert ("command", ["torchrun", "train.py"]) == (manifest(payload)["kind"], manifest(payload)["command"])


def test_git_sources_are_cloned_by_the_job():
    """The archive has the address of a repository, but not the name of its secret."""
    source = GitSource("https://github.com/acme/models", "v1.2", path="churn", secret="ml.secrets.github")
    payload = Payload.of_source(source, "train.py")

    assert ["__main__.py", "mljob.json"] == sent(payload)
    assert {
        "url": "https://github.com/acme/models",
        "ref": "v1.2",
        "path": "churn",
        "secret_directory": "/run/mljobs/git",
    } == manifest(payload)["git"]


def test_git_sources_whose_templates_are_not_rendered_are_refused():
    """A git source whose templates aren't rendered is refused when it is packed."""
    with pytest.raises(InvalidJobSpecError, match=r"ref '{{ params.ref }}' can't be a branch, a tag or a commit"):
        Payload.of_source(GitSource("https://github.com/acme/models", "{{ params.ref }}"), "train.py")


def test_payloads_that_are_too_large_are_refused(write):
    """The message for a large payload names its largest parts. The file here is a hole of 600 MiB."""
    source = write("source", {"main.py": "", "data/small.csv": "1"})
    with (source / "data" / "large.parquet").open("wb") as file:
        file.truncate(600 * 2**20)

    with pytest.raises(PayloadError) as caught:
        Payload.of_source(source, "main.py")

    assert (
        "The payload has 600 MiB, more than the limit of 512 MiB. Most of it is in data/ (600 MiB), "
        "main.py (0 MiB). Exclude files that the job doesn't need in .mljobsignore, or put data on a stage and read it "
        "from there in the job."
    ) == str(caught.value)


@pytest.mark.parametrize(
    ("requirements", "message"),
    [
        ("numpy", "pip_requirements must be a list of requirements, got 'numpy'."),
        (None, "pip_requirements must be a list of requirements, got None."),
        ([1], "pip_requirements[0] is 1; write one requirement, e.g. 'lightgbm==4.*'."),
        (["a", ""], "pip_requirements[1] is ''; write one requirement, e.g. 'lightgbm==4.*'."),
        (["a\n--index-url=b"], "pip_requirements[0] is 'a\\n--index-url=b'; write one requirement"),
    ],
)
def test_requirements_are_lines(script, requirements, message):
    """Requirements are a list, and each is one line."""
    packers = (
        lambda: validate_requirements(requirements),
        lambda: Payload.of_source(script(""), None, pip_requirements=requirements),
        lambda: Payload.of_source("@code", "a.py", pip_requirements=requirements, place=ML),
        lambda: Payload.of_source(GitSource("https://a.b/c", "main"), "a.py", pip_requirements=requirements),
        lambda: Payload.of_function(lambda: 1, pip_requirements=requirements),
    )
    for pack in packers:
        with pytest.raises(InvalidJobSpecError) as caught:
            pack()

        assert str(caught.value).startswith(message)
