"""The ports of a Ray cluster in a job, by the variables that name them: those of Snowflake's ML runtime."""

from __future__ import annotations

# Of the head alone.
HEAD_PORTS = {
    "HEAD_CLIENT_SERVER_PORT": 10001,
    "HEAD_GCS_PORT": 12001,
    "HEAD_DASHBOARD_GRPC_PORT": 12002,
    "HEAD_DASHBOARD_PORT": 12003,
}
# Of every instance.
INSTANCE_PORTS = {
    "OBJECT_MANAGER_PORT": 12011,
    "NODE_MANAGER_PORT": 12012,
    "RUNTIME_ENV_AGENT_PORT": 12013,
    "DASHBOARD_AGENT_GRPC_PORT": 12014,
    "DASHBOARD_AGENT_LISTEN_PORT": 12015,
    "MIN_WORKER_PORT": 12031,
    "MAX_WORKER_PORT": 13000,
}
PORTS = {**HEAD_PORTS, **INSTANCE_PORTS}
