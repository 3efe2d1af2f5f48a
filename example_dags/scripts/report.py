"""Print a short report; the global ``__return__`` is the task's return value."""

from __future__ import annotations

import argparse
import os

parser = argparse.ArgumentParser()
parser.add_argument("--title", required=True)
parser.add_argument("--lines", type=int, default=1)
arguments = parser.parse_args()

print(arguments.title)
for number in range(1, arguments.lines + 1):
    print(f"line {number}")

__return__ = {"title": arguments.title, "lines": arguments.lines, "greeting": os.environ["GREETING"]}
