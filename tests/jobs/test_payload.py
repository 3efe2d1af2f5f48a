import io
import json
import os
import tempfile
import zipfile
from pathlib import Path

import pytest

from airflow_provider_mljobs.exceptions import InvalidJobSpecError, PayloadError
from airflow_provider_mljobs.jobs.payload import Payload, validate_requirements

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


def archive(payload):
    """Open a payload's archive."""
    return zipfile.ZipFile(io.BytesIO(payload.archive))


def manifest(payload):
    """Return what a payload says of itself."""
    return json.loads(archive(payload).read("mljob.json"))


def write(directory, files):
    """Write files and return their directory."""
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


def test_arguments_arrive_byte_for_byte(run, script):
    """No value is expanded, folded or cut between the task and the script's sys.argv."""
    ended = run(Payload.of_source(script(ECHO), None, NASTY), X="expanded")

    assert 0 == ended.code
    assert NASTY == ended.record["value"]["args"]


def test_env_vars_arrive_byte_for_byte(run, script):
    """The same holds for environment variables, one by one and with all in one."""
    env_vars = {f"V{index}": value for index, value in enumerate(NASTY)} | {"ALL": "|".join(NASTY)}
    text = f"import os\n__return__ = {{name: os.environ[name] for name in {sorted(env_vars)}}}"
    ended = run(Payload.of_source(script(text), None), env_vars, X="expanded")

    assert env_vars == ended.record["value"]


def test_child_processes_inherit_the_environment(run, script):
    """Variables that travelled encoded are real variables; those that carried them are gone."""
    text = """
import os, subprocess
__return__ = subprocess.check_output(["env", "-0"], text=True).split("\\0")
"""
    ended = run(Payload.of_source(script(text), None, ["x"]), {"A": "$(B)", "B": "b"})

    assert {"A=$(B)", "B=b"} <= set(ended.record["value"])
    assert not [line for line in ended.record["value"] if line.startswith("MLJOBS_")]


def test_large_arguments_travel_in_the_archive(run, script):
    """The specification is part of one statement, so it never grows beyond what a statement takes."""
    large = ["$(X)" * 20_000, "b"]
    payload = Payload.of_source(script(ECHO), None, large)

    assert payload.arguments is None
    assert large == run(payload).record["value"]["args"]


def test_numbers_and_paths_are_written_as_text(script):
    """A script's arguments are text."""
    assert '["3","0.5","a/b"]' == Payload.of_source(script(""), None, [3, 0.5, Path("a/b")]).arguments


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["ok", "a\0b"], "args[1] holds a NUL character"),
        (["ok", "\udc00"], "args[1] holds half a surrogate pair"),
        ([None], "args[0] is of type NoneType; a script takes text and numbers. Write it as a string."),
        ([["a"]], "args[0] is of type list"),
        ("--depth 3", "args must be a list of arguments, got '--depth 3'."),
        (3, "args must be a list of arguments, got 3."),
        ({"depth": 3}, "args must be a list of arguments, got {'depth': 3}."),
    ],
)
def test_arguments_that_can_not_arrive_are_refused(script, args, message):
    """Each message names the argument."""
    with pytest.raises(InvalidJobSpecError) as caught:
        Payload.of_source(script(""), None, args)

    assert str(caught.value).startswith(message)


def test_the_same_files_give_the_same_bytes(tmp_path):
    """Neither times nor modes nor the order of creation nor the place of a directory change the archive."""
    files = {"main.py": "1", "b/c.py": "2", "a.txt": "3"}
    one = write(tmp_path / "one", files)
    other = write(tmp_path / "other", dict(reversed(files.items())))
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
    (other / "main.py").chmod(0o700)

    assert Payload.of_source(one, "main.py") == Payload.of_source(other, "main.py")


def test_files_are_sorted_in_the_archive(tmp_path):
    """The archive starts itself and has the source below app/, in a fixed order."""
    source = write(tmp_path / "source", {"main.py": "", "b/c.py": "", "a.txt": "", "B.txt": ""})

    assert [
        "__main__.py",
        "app/B.txt",
        "app/a.txt",
        "app/b/c.py",
        "app/main.py",
        "mljob.json",
    ] == archive(Payload.of_source(source, "main.py")).namelist()


def test_hidden_files_travel_and_caches_do_not(tmp_path):
    """What a directory holds is sent as it is, but for what Python makes by itself."""
    hidden = {".env": "", ".config/a": "", "pkg/.keep": ""}
    source = write(tmp_path / "source", {"main.py": "", **hidden, "__pycache__/a.pyc": "", "pkg/__pycache__/b.pyc": ""})
    names = archive(Payload.of_source(source, "main.py")).namelist()

    assert {f"app/{name}" for name in hidden} <= set(names)
    assert not [name for name in names if "__pycache__" in name]


def test_a_file_travels_alone(tmp_path):
    """The files beside a source file aren't part of it."""
    source = write(tmp_path / "source", {"main.py": "", "secret.txt": "", "requirements.txt": "numpy"})
    payload = Payload.of_source(source / "main.py", None)

    assert ["__main__.py", "app/main.py", "mljob.json"] == archive(payload).namelist()
    assert [] == manifest(payload)["pip_requirements"]


def test_binary_files_travel_unchanged(tmp_path):
    """Whatever is in a file arrives."""
    source = write(tmp_path / "source", {"main.py": ""})
    content = bytes(range(256))
    (source / "model.bin").write_bytes(content)

    assert content == archive(Payload.of_source(source, "main.py")).read("app/model.bin")


def test_file_names_that_are_no_text_are_refused(tmp_path):
    """The archive can't hold them; the message names the file."""
    (tmp_path / "main.py").touch()
    (tmp_path / "caf\udce9.txt").touch()

    with pytest.raises(PayloadError) as caught:
        Payload.of_source(tmp_path, "main.py")

    assert "caf\\udce9.txt' has a name that is no UTF-8 text" in str(caught.value)


def test_links_within_the_source_are_followed(tmp_path):
    """A link to a file or a directory of the source arrives as what it leads to."""
    source = write(tmp_path / "source", {"main.py": "1", "v2/model.txt": "2"})
    (source / "start.py").symlink_to("main.py")
    (source / "current").symlink_to("v2")
    packed = archive(Payload.of_source(source, "start.py"))

    assert b"1" == packed.read("app/start.py")
    assert b"2" == packed.read("app/current/model.txt")


@pytest.mark.parametrize("target", ["/etc/hostname", "/etc", "../other/secret.txt", "../other"])
def test_links_that_leave_the_source_are_refused(tmp_path, target):
    """Nothing is sent that the author of the DAG can't see in the source."""
    source = write(tmp_path / "source", {"main.py": "", "a/b.txt": ""})
    write(tmp_path / "other", {"secret.txt": ""})
    (source / "link").symlink_to(target)

    with pytest.raises(PayloadError) as caught:
        Payload.of_source(source, "main.py")

    assert f"{str(source / 'link')!r} is a symbolic link to" in str(caught.value)
    assert "outside of the source" in str(caught.value)


def test_links_in_a_circle_are_refused(tmp_path):
    """A directory that holds itself has no end."""
    source = write(tmp_path / "source", {"main.py": "", "a/b.txt": ""})
    (source / "a" / "up").symlink_to("..")

    with pytest.raises(PayloadError) as caught:
        Payload.of_source(source, "main.py")

    assert "a symbolic link to a directory that it lies in" in str(caught.value)


@pytest.fixture
def readable_directory():
    """Make a directory that other users can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.mark.parametrize("name", ["data", "data/secret.txt"])
def test_unreadable_files_and_directories_are_named(readable_directory, name):
    """A payload isn't sent without what could not be read."""
    source = write(readable_directory / "source", {"main.py": "", "data/secret.txt": ""})
    (source / name).chmod(0)
    user = os.geteuid()
    # Root could read it.
    os.seteuid(65534 if user == 0 else user)
    try:
        with pytest.raises(PayloadError) as caught:
            Payload.of_source(source, "main.py")
    finally:
        os.seteuid(user)
        (source / name).chmod(0o700)

    assert f"{str(source / name)!r} of the payload can't be read: Permission denied." == str(caught.value)


@pytest.mark.parametrize(
    ("source", "entrypoint", "error", "message"),
    [
        ("nowhere", None, PayloadError, "does not exist (looked for it at"),
        ("source", None, InvalidJobSpecError, "is a directory: entrypoint must name the file to start."),
        ("source", "", InvalidJobSpecError, "is a directory: entrypoint must name the file to start."),
        ("source", "train.py", PayloadError, "entrypoint 'train.py' is not a file in source"),
        ("source", "pkg", PayloadError, "entrypoint 'pkg' is not a file in source"),
        ("source", "../other.py", InvalidJobSpecError, "entrypoint '../other.py' is outside of source"),
        ("source", "/etc/hostname", InvalidJobSpecError, "entrypoint '/etc/hostname' is outside of source"),
        ("source", "run.sh", InvalidJobSpecError, "entrypoint 'run.sh' is not a Python file: its name must end in .py"),
        ("source/run.sh", None, InvalidJobSpecError, "entrypoint 'run.sh' is not a Python file"),
        ("other.py", "main.py", InvalidJobSpecError, "entrypoint 'main.py' is not the file that source"),
    ],
)
def test_sources_that_can_not_start_are_refused(tmp_path, source, entrypoint, error, message):
    """Each message says what is wrong with the source or its entrypoint."""
    write(tmp_path, {"source/main.py": "", "source/run.sh": "", "source/pkg/a.py": "", "other.py": ""})

    with pytest.raises(error) as caught:
        Payload.of_source(tmp_path / source, entrypoint)

    assert message in str(caught.value)


@pytest.mark.parametrize("entrypoint", ["pkg/main.py", "./pkg/main.py", "pkg/../pkg/main.py"])
def test_an_entrypoint_may_lie_below(tmp_path, entrypoint):
    """It is written relative to the source, in any way."""
    source = write(tmp_path / "source", {"pkg/main.py": ""})

    assert "pkg/main.py" == manifest(Payload.of_source(source, entrypoint))["entrypoint"]


def test_requirements_of_the_source_come_before_those_of_the_task(tmp_path):
    """A requirements.txt is read without its comments; the task adds to it."""
    text = "\ufeffnumpy\t# arrays\r\n\n# comment\n  -r more.txt\nscipy --hash=a \\\n  --hash=b\n"
    source = write(tmp_path / "source", {"main.py": "", "requirements.txt": text})
    payload = Payload.of_source(source, "main.py", pip_requirements=["lightgbm==4.*"])

    assert [
        "numpy # arrays",
        "  -r more.txt",
        "scipy --hash=a \\",
        "  --hash=b",
        "lightgbm==4.*",
    ] == manifest(payload)["pip_requirements"]


def test_requirements_that_are_no_text_are_refused(tmp_path):
    """Binary rubbish in a requirements.txt is the payload's fault."""
    source = write(tmp_path / "source", {"main.py": ""})
    (source / "requirements.txt").write_bytes(b"\xff\xfe\x00")

    with pytest.raises(PayloadError) as caught:
        Payload.of_source(source, "main.py")

    assert "is no UTF-8 text" in str(caught.value)


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
    """One string isn't a list of its characters, and one requirement can't hold two lines."""
    packers = (
        lambda: validate_requirements(requirements),
        lambda: Payload.of_source(script(""), None, pip_requirements=requirements),
        lambda: Payload.of_function(lambda: 1, pip_requirements=requirements),
    )
    for pack in packers:
        with pytest.raises(InvalidJobSpecError) as caught:
            pack()

        assert str(caught.value).startswith(message)


def test_arguments_of_functions_are_lists_too():
    """A text isn't taken for a list of its characters."""
    with pytest.raises(InvalidJobSpecError) as caught:
        Payload.of_function(write, "ab")

    assert "args must be a list of arguments, got 'ab'." == str(caught.value)
