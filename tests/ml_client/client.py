"""Snowflake's own ML client, in an environment of its own."""

import base64
import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
ML_PYTHON = ROOT / os.environ.get("ML_VENV", ".venv-ml") / "bin/python"
NO_ML_CLIENT = "snowflake-ml-python isn't installed in .venv-ml: make .venv-ml/.ready"


def has_ml_client():
    """Check whether `make` could install snowflake-ml-python."""
    return any(ML_PYTHON.parents[1].glob("lib/python*/site-packages/snowflake/ml/jobs"))


def run_ml_client(parameters, *job_ids):
    """Run the client's script and return its output.

    :param parameters: those of the connector; credentials don't belong on a command line.
    :param job_ids: jobs whose results to read, instead of the script's own checks.
    """
    command = [ML_PYTHON, Path(__file__).with_name("script.py"), *job_ids]
    text = json.dumps(parameters, default=lambda key: base64.b64encode(key).decode())
    finished = subprocess.run(command, input=text, capture_output=True, text=True, check=False)

    assert 0 == finished.returncode, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])
