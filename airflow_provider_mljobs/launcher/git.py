"""Clones a git repository; the credentials of a Snowflake secret are in git's memory only."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from .errors import LauncherError

# A commit, or the beginning of one.
COMMIT = re.compile(r"[0-9a-f]{7,64}")
# Git has one exit code for all of these errors.
UNREACHABLE = re.compile(r"(couldn.t|could not|failed to) (connect|resolve)|timed out|refused", re.IGNORECASE)
NOT_ALLOWED = re.compile(r"authentication failed|could not read (username|password)|error: 40[13]", re.IGNORECASE)
NO_REF = re.compile(r"couldn't find remote ref|not our ref|unadvertised object", re.IGNORECASE)
NO_REPOSITORY = re.compile(r"not found|error: 404|does not exist|does not appear to be a git", re.IGNORECASE)


def clone(source: dict[str, str], directory: Path) -> Path:
    """Clone one commit of a repository, and return the payload's working directory in it."""
    url, ref = source["url"], source["ref"]
    repository = Repository(url, directory / "git", source["secret_directory"])
    try:
        commit = repository.fetch(ref)
    except subprocess.CalledProcessError as error:
        raise LauncherError(explain(error.stderr, source)) from None
    os.environ["MLJOBS_GIT_COMMIT"] = commit
    print(f"Cloned {url} at {commit}", flush=True)
    app = repository.directory / source["path"]
    if not app.is_dir():
        raise LauncherError(f"{url!r} has no directory {source['path']!r} at {ref!r}.")
    return app


class Repository:
    """A clone in the making."""

    def __init__(self, url: str, directory: Path, secret_directory: str) -> None:
        program = shutil.which("git")
        if program is None:
            raise LauncherError(
                f"Can't clone {url!r}: this container has no git. Choose a runtime_environment that has it."
            )
        self.directory = directory
        self.directory.mkdir()
        self._command = [program, "-C", str(directory), *credentials(url, secret_directory)]
        # Git must not wait for a password from a terminal or a program.
        self._environment = {
            **os.environ,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "GIT_LFS_SKIP_SMUDGE": "1",
            "LC_ALL": "C",
        }
        self._git("init", "--quiet")
        self._git("remote", "add", "origin", url)

    def fetch(self, ref: str) -> str:
        """Check out a branch, a tag or a commit, and return the commit."""
        try:
            self._git("fetch", "--quiet", "--depth", "1", "--no-tags", "origin", ref)
            revision = "FETCH_HEAD"
        except subprocess.CalledProcessError:
            if not COMMIT.fullmatch(ref):
                raise
            # Some servers refuse to send a bare commit, and none accepts an abbreviated one: fetch the history.
            self._git("fetch", "--quiet", "origin", "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
            revision = ref
        commit = self._git("rev-parse", "--verify", f"{revision}^{{commit}}")
        self._git("checkout", "--quiet", "--detach", commit)
        return commit

    def _git(self, *arguments: str) -> str:
        command = [*self._command, *arguments]
        process = subprocess.run(command, env=self._environment, check=True, capture_output=True, text=True)
        return process.stdout.strip()


def credentials(url: str, secret_directory: str) -> list[str]:
    """Return options that let git read the secret's files, for this host only."""
    # The empty helper removes those of the image's configuration.
    options = ["-c", "credential.helper="]
    if not secret_directory:
        return options
    files = {path.name: path for path in Path(secret_directory).glob("*") if path.is_file()}
    user, password = "x-access-token", files.get("secret_string")
    if "username" in files and "password" in files:
        user, password = f"$(cat {shlex.quote(str(files['username']))})", files["password"]
    elif "access_token" in files:
        user, password = "oauth2", files["access_token"]
    if password is None:
        raise LauncherError(
            f"{secret_directory} has no credentials for {url!r}: neither username and password nor secret_string nor "
            "access_token. Name a secret of type PASSWORD, GENERIC_STRING or OAUTH2."
        )
    host = urlsplit(url)
    helper = f'!f() {{ printf "username=%s\\npassword=%s\\n" "{user}" "$(cat {shlex.quote(str(password))})"; }}; f'
    return [*options, "-c", f"credential.{host.scheme}://{host.netloc}.helper={helper}"]


def explain(output: str, source: dict[str, str]) -> str:
    """Return a message for an error of git, with the fix."""
    url, ref = source["url"], source["ref"]
    host = urlsplit(url).netloc
    if UNREACHABLE.search(output):
        message = (
            f"{host!r} can't be reached. A container reaches a host only through an external access integration whose "
            "network rule names it: pass it as external_access_integrations."
        )
    elif NOT_ALLOWED.search(output):
        answer = "refuses the secret's credentials" if source["secret_directory"] else "needs credentials"
        message = f"{url!r} {answer}. Name a Snowflake secret that may read it: GitSource(…, secret='db.schema.name')."
    elif NO_REF.search(output) or "Needed a single revision" in output:
        message = f"{url!r} has no branch, tag or commit {ref!r}."
    elif NO_REPOSITORY.search(output):
        message = f"Repository {url!r} doesn't exist, or needs credentials: GitSource(…, secret=…)."
    else:
        message = f"Could not clone {url!r}."
    return f"{message} Git: {output.strip()}"
