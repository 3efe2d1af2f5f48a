import base64
import contextlib
import dataclasses
import io
import json
import re
import shutil
import socket
import zipfile
from pathlib import Path

import pytest

from airflow_provider_mljobs.jobs.payload.archive import Payload
from airflow_provider_mljobs.jobs.payload.git import GitSource
from airflow_provider_mljobs.jobs.values.arguments import Arguments
from tests.git_server import ENVIRONMENT, git, has_backend, serving

PASSWORD = 'it\'s a "$(secret)" \\n %s'
MAIN = """
import os, subprocess
print("argument:", *__import__("sys").argv[1:])
__return__ = {
    "files": sorted(name for name in os.listdir() if name != ".git"),
    "commit": os.environ["MLJOBS_GIT_COMMIT"],
    "config": subprocess.run(["git", "config", "--list"], capture_output=True, text=True).stdout,
    "version": open("version").read(),
}
"""


@dataclasses.dataclass
class Repository:
    """A repository with a branch and two commits on ``main``; the first is tagged."""

    path: Path

    @property
    def url(self):
        """Return the address of the repository."""
        return self.path.as_uri()

    def commit(self, revision):
        """Return the commit of a branch or a tag."""
        return git(self.path, "rev-parse", f"{revision}^{{commit}}")


@pytest.fixture
def repository(write):
    """Make a repository."""
    path = write("repositories/models", {"main.py": MAIN, "version": "1", "churn/main.py": MAIN, "churn/version": "c1"})
    git(path, "init", "--quiet", "--initial-branch=main")
    for version in ("1", "2"):
        (path / "version").write_text(version)
        git(path, "add", ".")
        git(path, "commit", "--quiet", "--message", version)
        if version == "1":
            git(path, "tag", "--annotate", "v1", "--message", "v1")
    git(path, "branch", "feature/x", "main~1")
    return Repository(path)


@pytest.fixture
def serve(repository):
    """Serve the repository by HTTP on this machine."""
    if not has_backend():
        pytest.skip("this git has no http-backend")
    with contextlib.ExitStack() as running:
        yield lambda: running.enter_context(serving(repository.path.parent))


@pytest.fixture
def server(serve):
    """Serve the repository."""
    return serve()


@pytest.fixture
def url(server):
    """Return the address of the repository."""
    return f"http://127.0.0.1:{server.server_port}/models"


@pytest.fixture
def clone(run, tmp_path):
    """Run a git source; ``secret`` are the files of its secret in the container."""

    def clone(source, entrypoint="main.py", secret=None, **environment):
        payload = Payload.of_source(source, entrypoint)
        if secret is not None:
            directory = tmp_path / "the secret"
            directory.mkdir()
            for name, text in secret.items():
                (directory / name).write_text(text)
            payload = with_secret(payload, directory)
        return run(payload, Arguments.of_script(["x"]), **(ENVIRONMENT | environment))

    return clone


def with_secret(payload, directory):
    """Return a payload whose secret is in a directory of the test."""
    old, new = zipfile.ZipFile(io.BytesIO(payload.archive)), io.BytesIO()
    with zipfile.ZipFile(new, "w") as archive:
        for name in old.namelist():
            content = old.read(name)
            if name == "mljob.json":
                manifest = json.loads(content)
                manifest["git"]["secret_directory"] = str(directory)
                content = json.dumps(manifest)
            archive.writestr(name, content)
    return dataclasses.replace(payload, archive=new.getvalue())


@pytest.mark.parametrize(
    ("ref", "version"), [("main", "2"), ("HEAD", "2"), ("v1", "1"), ("refs/tags/v1", "1"), ("feature/x", "1")]
)
def test_branches_and_tags_are_cloned(clone, repository, ref, version):
    """A branch or tag is cloned; the commit is in the result and in the log."""
    ended = clone(GitSource(repository.url, ref))
    commit = repository.commit(ref)

    assert 0 == ended.code, ended.errors
    assert (["churn", "main.py", "version"], version, commit) == tuple(
        ended.record["value"][key] for key in ("files", "version", "commit")
    )
    assert ended.output.startswith(f"Cloned {repository.url} at {commit}\n")
    assert "argument: x\n" in ended.output


@pytest.mark.parametrize("length", [40, 7])
def test_commits_are_cloned(clone, repository, length):
    """A commit is cloned by its hash or the beginning of one, even if the server sends no bare commits."""
    commit = repository.commit("v1")

    assert commit == clone(GitSource(repository.url, commit[:length])).record["value"]["commit"]


def test_a_directory_of_a_repository_may_be_the_payload(clone, repository):
    """A directory of a repository becomes the working directory."""
    value = clone(GitSource(repository.url, "main", path="churn/"), ["main.py"]).record["value"]

    assert (["main.py", "version"], "c1") == (value["files"], value["version"])


def test_commands_run_in_a_repository(clone, repository):
    """A command runs in the repository."""
    assert "argument: x\n" in clone(GitSource(repository.url, "main"), ["python", "main.py"]).output


def test_public_repositories_need_no_secret(clone, url, repository):
    """A public repository is cloned over HTTP without a secret."""
    assert repository.commit("main") == clone(GitSource(url, "main")).record["value"]["commit"]


@pytest.mark.parametrize(
    ("secret", "credentials"),
    [
        ({"username": "some body\n", "password": f"{PASSWORD}\n"}, f"some body:{PASSWORD}"),
        ({"secret_string": PASSWORD}, f"x-access-token:{PASSWORD}"),
        ({"access_token": PASSWORD}, f"oauth2:{PASSWORD}"),
    ],
    ids=["PASSWORD", "GENERIC_STRING", "OAUTH2"],
)
def test_secrets_open_private_repositories(clone, server, url, secret, credentials):
    """Git reads the secret's files: its value is in no argument, configuration or log."""
    server.credentials = "Basic " + base64.b64encode(credentials.encode()).decode()
    ended = clone(GitSource(url, "main", secret="db.ml.github"), secret=secret)

    assert 0 == ended.code, ended.errors
    assert "credential" not in ended.record["value"]["config"]
    assert f"remote.origin.url={url}" in ended.record["value"]["config"]
    assert "secret" not in ended.output + ended.errors + ended.record["value"]["config"]


def test_secrets_are_for_the_repositorys_host_only(clone, serve, server, url):
    """A host to which git is redirected doesn't get the credentials."""
    other = serve()
    server.moved_to, other.credentials = f"http://127.0.0.1:{other.server_port}", "Basic x"
    ended = clone(GitSource(url, "main", secret="s"), secret={"username": "me", "password": "pw"})

    assert 1 == ended.code
    assert {None} == set(other.seen)


def test_secrets_are_not_kept(clone, server, url):
    """A credential helper of the image doesn't get the credentials."""
    server.credentials = "Basic " + base64.b64encode(b"me:pw").decode()
    helper = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "credential.helper", "GIT_CONFIG_VALUE_0": "!echo kept >&2;"}
    ended = clone(GitSource(url, "main", secret="s"), secret={"username": "me", "password": "pw"}, **helper)

    assert 0 == ended.code, ended.errors
    assert "kept" not in ended.output + ended.errors


def free_port():
    """Return a port without a listener."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def refusal(ended):
    """Return the message of a failed clone, without git's output."""
    assert 1 == ended.code
    assert "mljob_launcher.errors.LauncherError" == ended.record["metadata"]["type"]
    return ended.record["metadata"]["message"].split(" Git: ")[0]


def test_hosts_that_can_not_be_reached(clone):
    """The message for an unreachable host advises an external access integration."""
    port = free_port()

    assert (
        f"'127.0.0.1:{port}' can't be reached. A container reaches a host only through an external access integration "
        "whose network rule names it: pass it as external_access_integrations."
    ) == refusal(clone(GitSource(f"http://127.0.0.1:{port}/models", "main")))


def test_hosts_without_an_address(clone):
    """A host name that can't be resolved counts as unreachable, as in a container without external access."""
    assert "'git.invalid' can't be reached." in refusal(clone(GitSource("https://git.invalid/models", "main")))


def test_private_repositories_without_a_secret(clone, server, url):
    """A private repository without a secret fails at once: git asks for no password."""
    server.credentials = "Basic x"

    assert (
        f"{url!r} needs credentials. Name a Snowflake secret that may read it: GitSource(…, "
        "secret='db.schema.name')." == refusal(clone(GitSource(url, "main")))
    )


def test_secrets_that_open_nothing(clone, server, url):
    """The message for refused credentials doesn't hold them."""
    server.credentials = "Basic x"
    ended = clone(GitSource(url, "main", secret="s"), secret={"secret_string": "hunter2"})

    assert (
        f"{url!r} refuses the secret's credentials. Name a Snowflake secret that may read it: "
        "GitSource(…, secret='db.schema.name')."
    ) == refusal(ended)
    assert "hunter2" not in ended.output + ended.errors + json.dumps(ended.record)


def test_secrets_that_are_not_there(clone, repository, tmp_path):
    """The message for missing credentials names their directory."""
    assert (
        f"{tmp_path / 'the secret'} has no credentials for {repository.url!r}: neither username and password nor "
        "secret_string nor access_token. Name a secret of type PASSWORD, GENERIC_STRING or OAUTH2."
    ) == refusal(clone(GitSource(repository.url, "main", secret="s"), secret={}))


@pytest.mark.parametrize("ref", ["no-such-branch", "deadbeef", "0123456789" * 4])
def test_refs_that_are_not_there(clone, repository, ref):
    """The message for a missing ref names it, whether it looks like a branch or a commit."""
    assert f"{repository.url!r} has no branch, tag or commit {ref!r}." == refusal(clone(GitSource(repository.url, ref)))


def test_repositories_that_are_not_there(clone, url, tmp_path):
    """A missing repository may also be a private one: hosts answer the same for both."""
    for missing in (f"{url}x", (tmp_path / "nowhere").as_uri()):
        message = refusal(clone_again(clone, tmp_path, missing))

        assert f"Repository {missing!r} doesn't exist, or needs credentials: " in message


def clone_again(clone, tmp_path, url):
    """Run a second job in the same test."""
    for place in ("stage", "result"):
        shutil.rmtree(tmp_path / place, ignore_errors=True)
    return clone(GitSource(url, "main"))


def test_directories_that_are_not_there(clone, repository):
    """The message for a missing directory names the ref, because another one may have it."""
    ended = clone(GitSource(repository.url, "v1", path="fraud"))

    assert f"{repository.url!r} has no directory 'fraud' at 'v1'." == refusal(ended)


def test_entrypoints_that_are_not_there(clone, repository):
    """The message for a missing entrypoint lists the files."""
    assert (
        f"Entrypoint 'train.py' is not in source {repository.url!r} at 'main', which has: .git/, "
        "churn/, main.py, version."
    ) == refusal(clone(GitSource(repository.url, "main"), "train.py"))


def test_containers_without_git(clone, repository, tmp_path):
    """The message for a container without git names the parameter to change."""
    ended = clone(GitSource(repository.url, "main"), PATH=str(tmp_path))

    assert (
        f"Can't clone {repository.url!r}: this container has no git. Choose a runtime_environment that has it."
        == refusal(ended)
    )


def test_other_troubles_are_told_in_gits_words(clone, repository):
    """Other errors of git are shown as git prints them."""
    (repository.path / ".git" / "HEAD").write_text("ref: refs/heads/none")
    for file in (repository.path / ".git" / "objects").rglob("*"):
        if file.is_file():
            file.unlink()
    ended = clone(GitSource(repository.url, "main"))

    assert 1 == ended.code
    assert re.search(r" Git: .+", ended.record["metadata"]["message"])
