"""Runs in the environment of Snowflake's ML client: submits on command, and prints the seconds of each submit.

Gets the connection as JSON and the directory to submit as arguments; each line on stdin is one submit of ``directory``
or ``file``, each line on stdout the seconds that it took.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from snowflake.ml.jobs import submit_directory, submit_file
from snowflake.snowpark import Session


def main() -> None:
    """Submit until stdin ends."""
    session = Session.builder.configs(json.loads(sys.argv[1])).create()
    source = Path(sys.argv[2])
    print("ready", flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        if line.strip() == "directory":
            submit_directory(str(source), "ML_POOL", entrypoint="main.py", stage_name="ML_CLIENT", session=session)
        else:
            submit_file(str(source / "main.py"), "ML_POOL", stage_name="ML_CLIENT", session=session)
        print(time.perf_counter() - started, flush=True)


if __name__ == "__main__":
    main()
