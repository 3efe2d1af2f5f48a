"""A job under a test's control: it reports, prints and ends on command."""

import json
import os
import socket
import sys

_, port, run, map_index = sys.argv
test = socket.create_connection(("127.0.0.1", int(port)))
instance = os.environ.get("SNOWFLAKE_JOB_INDEX", "0")
test.sendall(json.dumps([run, int(map_index), int(instance)]).encode() + b"\n")
for line in test.makefile():
    what, arguments, options = json.loads(line)
    if what == "end":
        __return__ = arguments[0]
        break
    if what == "fail":
        raise RuntimeError(arguments[0])
    if what == "print":
        print(*arguments, flush=True)
    else:
        from airflow_provider_mljobs import report

        getattr(report, what)(*arguments, **options)
