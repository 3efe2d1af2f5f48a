"""Chromium for the tests that need a browser: ``python -m tests.ui.chromium`` installs it if it can."""

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome")
# No requests to other hosts, and the same behaviour in each run.
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find():
    """Return the program's path, or nothing."""
    chosen = os.environ.get("CHROMIUM")
    return chosen or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched():
    """Start a Chromium with a profile of its own."""
    from playwright.sync_api import sync_playwright

    program = find()
    assert program, "There is no Chromium here. Run: make test-ui"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        yield browser
        browser.close()


def main():
    """Install Debian's package unless there is a Chromium."""
    if find():
        return
    if os.getuid() or not shutil.which("apt-get"):
        sys.exit("The tests of the UI need Chromium. Install it, or name a program: make test-ui CHROMIUM=/path/to/it")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        subprocess.run(["apt-get", "--quiet", "--quiet", *command], env=environment, check=True)


if __name__ == "__main__":
    main()
