"""The provider's description for Airflow: plain data, since Airflow imports it at each start."""

from __future__ import annotations

from typing import Any

from airflow_provider_mljobs import __version__


def get_provider_info() -> dict[str, Any]:
    """Return the description for Airflow's provider manager."""
    integration = "Snowflake ML Jobs"
    return {
        "package-name": "airflow-provider-mljobs",
        "name": integration,
        "description": "Run Snowflake ML Jobs (job services of Snowpark Container Services) as Airflow tasks.",
        "versions": [__version__],
        "integrations": [
            {
                "integration-name": integration,
                "external-doc-url": "https://docs.snowflake.com/en/developer-guide/snowflake-ml/ml-jobs/overview",
                "tags": ["service"],
            }
        ],
        "operators": [{"integration-name": integration, "python-modules": ["airflow_provider_mljobs.operators"]}],
        "sensors": [{"integration-name": integration, "python-modules": ["airflow_provider_mljobs.sensors"]}],
        "hooks": [{"integration-name": integration, "python-modules": ["airflow_provider_mljobs.hooks"]}],
        "triggers": [{"integration-name": integration, "python-modules": ["airflow_provider_mljobs.triggers"]}],
        "task-decorators": [{"name": "mljob", "class-name": "airflow_provider_mljobs.decorators.mljob_task"}],
        "extra-links": [
            f"airflow_provider_mljobs.links.{link}" for link in ("SnowsightLink", "RayDashboardLink", "MLJobLink")
        ],
        "cli": ["airflow_provider_mljobs.cli.definition.get_mljobs_cli_commands"],
        "config": {
            "mljobs": {
                "description": "Settings of the Snowflake ML Jobs provider.",
                "options": {
                    "max_unreachable_seconds": _option(
                        "How many seconds a waiting task tolerates that Snowflake is unreachable before it fails. Its "
                        "job keeps running.",
                        "float",
                        "600",
                        "1800",
                    ),
                    "max_unseen_seconds": _option(
                        "How many seconds a job may be missing from both its service and the job history before it "
                        "counts as lost. The task checks at least three times.",
                        "float",
                        "120",
                        "600",
                    ),
                    "max_finish_seconds": _option(
                        "How many seconds a task has to read the log, the result and the list of files after its job "
                        "has ended. After that it fails, and nothing of the job is removed.",
                        "float",
                        "900",
                        "3600",
                    ),
                    "max_log_lag_seconds": _option(
                        "How many seconds a task waits for the end of its job's log, if the log has left its node "
                        "before it was read and the event table doesn't have its end yet. After that the task's log "
                        "has the query for the missing lines.",
                        "float",
                        "180",
                        "0",
                    ),
                    "deployment": _option(
                        "Name of this Airflow in the COMMENT of its jobs; [api] base_url by default. Airflows that "
                        "share a Snowflake schema need different names: each cleans up only its own jobs.",
                        "string",
                        "",
                        "production",
                    ),
                    "log_statements_per_minute": _option(
                        "Maximum number of statements per minute that a process sends over one connection to read the "
                        "logs of running jobs. With 0 a log is read only after its job has ended.",
                        "float",
                        "300",
                        "60",
                    ),
                    "max_xcom_bytes": _option(
                        "Maximum size of a return value in XCom. XCom has a reference to a larger one on the stage.",
                        "integer",
                        "1000000",
                        "100000",
                    ),
                    "result_retention_days": _option(
                        "How many days the collector (airflow mljobs gc, MLJobHook.collect) keeps the result of a "
                        "dropped job on the stage. 0 keeps it forever, because XComs may refer to it. Files saved by "
                        "payloads are never removed.",
                        "float",
                        "0",
                        "90",
                    ),
                    "allow_pickle": _option(
                        "Whether MLJobHook.open may load pickles written by a job. A pickle can run any code in the "
                        "worker.",
                        "boolean",
                        "False",
                        "True",
                    ),
                    "node_memory_margin": _option(
                        "Share of a node's memory that a job doesn't request, because a job that requests more than "
                        "its node has never starts. The job can use all of the memory: its limit is the whole node.",
                        "float",
                        "0.1",
                        "0",
                    ),
                    "payload_grace_seconds": _option(
                        "How many seconds tasks may share an uploaded payload. It is removed about three times that "
                        "long after its upload. With 0 each job has its own payload, which is removed with the job.",
                        "float",
                        "86400",
                        "3600",
                    ),
                },
            }
        },
    }


def _option(description: str, kind: str, default: str, example: str) -> dict[str, str]:
    return {
        "description": description,
        "version_added": "0.1.0",
        "type": kind,
        "example": example,
        "default": default,
    }
