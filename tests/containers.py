"""Containers of the embedded Snowflake without a server."""

import sys
from pathlib import Path

from airflow_provider_mljobs.emulator.containers.instance import Instance, InstancePlan, JobLog
from tests.budget import budget, wait_until


class Container:
    """A running instance with its log and its exit code."""

    def __init__(self, plan, path):
        self.plan = plan
        self.log = JobLog(path)
        self.exits = []
        self.instance = Instance.start(plan, self.log, self._exit)

    def _exit(self, code):
        self.exits.append((code, self.log.tail()))

    def finish(self):
        """Wait for the end; return exit code and output."""
        assert self.instance.wait(budget()) is not None
        ((code, text),) = self.exits

        assert code == self.instance.poll()
        return code, text

    def wait_for(self, text):
        """Wait until the program has printed something."""
        wait_until(lambda: text in self.log.tail())


def make_plan(directory, *command, **changes):
    """Describe a container that runs a command."""
    return InstancePlan(
        **{
            "directory": directory,
            "image": "/db/schema/images/any:1",
            "command": command,
            "args": (),
            "env": {},
            "mounts": (),
            "token": "s3cret",
            "connection": {
                "host": "127.0.0.1",
                "port": "4242",
                "protocol": "http",
                "account": "EMBEDDED",
                "database": "DB",
                "schema": "SC",
            },
            "python": Path(sys.executable),
            **changes,
        }
    )
