import os
import socket
import tempfile
from pathlib import Path

import pytest

from airflow_provider_mljobs.exceptions import PayloadError
from airflow_provider_mljobs.jobs.payload.files import tree


def refusal(root):
    """Return the message for a tree that can't travel."""
    with pytest.raises(PayloadError) as caught:
        tree(root)
    return str(caught.value)


def test_hidden_files_travel_and_caches_do_not(write):
    """All files of a directory travel but for Python's caches and git's files."""
    hidden = {".env", ".config/a", "pkg/.keep", "Makefile", ".gitattributes"}
    caches = {"__pycache__/a.txt", "pkg/__pycache__/b.pyc", "old.pyc", "old.pyo", ".git/config", "sub/.git"}

    assert hidden == set(tree(write("source", dict.fromkeys(hidden | caches, ""))))


@pytest.mark.parametrize("file", [".mljobsignore", ".gitignore"])
def test_what_patterns_name_stays_here(write, file):
    """Patterns are those of git: comments, negation, anchors, directories, any depth."""
    patterns = """
# comment
*.log
!keep.log
/build
data/
**/cache/*.bin
notes/*
!notes/readme.md
\\#odd
"""
    stays = {"a.log", "sub/b.log", "build/x", "data/x.csv", "sub/data/keep.log", "q/cache/a.bin", "notes/a", "#odd"}
    travels = {"keep.log", "sub/keep.log", "sub/build/x", "q/cache/a.txt", "notes/readme.md", "data.txt"}
    source = write("source", {**dict.fromkeys(stays | travels, ""), file: patterns})

    assert travels | {file} == set(tree(source))


def test_patterns_of_a_directory_come_after_those_above_it(write):
    """As with git, patterns hold below their file, and the nearest file with a match decides."""
    source = write(
        "source",
        {
            ".gitignore": "*.csv\n",
            "a/.gitignore": "!kept.csv\n/local.txt\n",
            **dict.fromkeys(["x.csv", "a/kept.csv", "a/x.csv", "a/b/kept.csv", "a/local.txt", "local.txt"], ""),
        },
    )

    assert {".gitignore", "a/.gitignore", "a/kept.csv", "a/b/kept.csv", "local.txt"} == set(tree(source))


def test_our_own_patterns_replace_those_of_git(write):
    """A directory with both files has the patterns of .mljobsignore only."""
    files = {".gitignore": "model.bin\n", ".mljobsignore": "docs/\n", "model.bin": "", "docs/a.md": ""}

    assert {".gitignore", ".mljobsignore", "model.bin"} == set(tree(write("source", files)))


@pytest.mark.parametrize(("content", "reason"), [(b"\xff\xfe", "codec can't decode"), (b"!", "Invalid git pattern")])
def test_patterns_that_can_not_be_understood_are_refused(tmp_path, content, reason):
    """Invalid patterns are refused, because ignoring them would send too much or too little."""
    (tmp_path / ".mljobsignore").write_bytes(content)
    message = refusal(tmp_path)

    assert message.startswith(f"{str(tmp_path / '.mljobsignore')!r} has an invalid pattern or no UTF-8: ")
    assert reason in message


def test_what_stays_here_may_be_anything(write):
    """A link out of the source is no error if a pattern excludes it."""
    source = write("source", {".mljobsignore": "venv\npipe", "main.py": ""})
    (source / "venv").symlink_to("/usr")
    os.mkfifo(source / "pipe")

    assert {".mljobsignore", "main.py"} == set(tree(source))


def test_file_names_that_are_no_text_are_refused(tmp_path):
    """The message for a file name that is no UTF-8 names the file."""
    (tmp_path / "caf\udce9.txt").touch()

    assert "caf\\udce9.txt' has a name that is no UTF-8 text. Rename or remove it." in refusal(tmp_path)


def test_links_within_the_source_are_followed(write):
    """A link to a file or directory of the source arrives as a copy of its target."""
    source = write("source", {"main.py": "1", "v2/model.txt": "2"})
    (source / "start.py").symlink_to("main.py")
    (source / "current").symlink_to("v2")
    files = tree(source)

    assert {"main.py", "start.py", "v2/model.txt", "current/model.txt"} == set(files)
    assert (b"1", b"2") == (files["start.py"].read(), files["current/model.txt"].read())


@pytest.mark.parametrize("target", ["/etc/hostname", "/etc", "../other/secret.txt", "../other"])
def test_links_that_leave_the_source_are_refused(write, target):
    """A link out of the source is refused, so that only visible files of the source travel."""
    source = write("source", {"main.py": "", "a/b.txt": ""})
    write("other", {"secret.txt": ""})
    (source / "link").symlink_to(target)
    message = refusal(source)

    assert message.startswith(f"{str(source / 'link')!r} is a symbolic link to")
    assert message.endswith("outside of the source. Copy what the job needs into the source.")


@pytest.mark.parametrize("target", ["nowhere", "link"], ids=["to nothing", "to itself"])
def test_links_to_nothing_are_refused(tmp_path, target):
    """A broken link is refused."""
    (tmp_path / "link").symlink_to(target)

    assert refusal(tmp_path).endswith("which does not exist. Remove the link.")


@pytest.mark.parametrize("links", [{"a/up": ".."}, {"a/x": "../b", "b/y": "../a"}], ids=["up", "to and fro"])
def test_links_in_a_circle_are_refused(write, links):
    """A link to a directory above it is refused."""
    source = write("source", {"a/1.txt": "", "b/2.txt": ""})
    for name, target in links.items():
        (source / name).symlink_to(target)

    assert refusal(source).endswith("a directory that contains it. Remove the link.")


def test_what_is_no_file_is_refused(tmp_path):
    """A named pipe is refused, because reading it would block."""
    os.mkfifo(tmp_path / "pipe")

    assert f"{str(tmp_path / 'pipe')!r} is a named pipe; only files, directories and links to them travel." == refusal(
        tmp_path
    )


def test_sockets_are_refused(tmp_path, monkeypatch):
    """A socket is refused."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("agent")

        assert "agent' is a socket; only files" in refusal(tmp_path)


def test_too_many_files_are_refused(write):
    """Too many files, e.g. a whole environment, are refused. Links let this test make them from few."""
    source = write("source", {"main.py": "", **{f"env/{index}.txt": "" for index in range(1000)}})
    for index in range(51):
        (source / f"link{index:02}").symlink_to("env")
    message = refusal(source)

    assert message.startswith(f"{str(source)!r} has more than 50000 files. Most of them are in ")
    assert "/ (1001 so far), " in message
    assert message.endswith(". Exclude files that the job doesn't need in .mljobsignore.")


@pytest.fixture
def readable_directory():
    """Make a directory that other users can reach, which pytest's is not."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.mark.parametrize("name", ["data", "data/secret.txt", ".mljobsignore"])
def test_unreadable_files_and_directories_are_named(readable_directory, name):
    """A payload with an unreadable file or directory is refused, and the message names it."""
    (readable_directory / "data").mkdir()
    for file in ("data/secret.txt", ".mljobsignore"):
        (readable_directory / file).touch()
    (readable_directory / name).chmod(0)
    user = os.geteuid()
    # Root could read it.
    os.seteuid(65534 if user == 0 else user)
    try:
        with pytest.raises(PayloadError) as caught:
            [file.read() for file in tree(readable_directory).values()]
    finally:
        os.seteuid(user)
        (readable_directory / name).chmod(0o700)

    assert f"Could not read {str(readable_directory / name)!r} for the payload: Permission denied." == str(caught.value)
