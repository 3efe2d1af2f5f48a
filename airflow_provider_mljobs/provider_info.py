"""What Airflow reads about the provider when it starts: data, and nothing that costs an import."""

from __future__ import annotations

from typing import Any

from airflow_provider_mljobs import __version__


def get_provider_info() -> dict[str, Any]:
    """Return the provider's description for Airflow's provider manager."""
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
                        "For how many seconds Snowflake may be unreachable before a waiting task gives up its job. "
                        "The job itself is left running.",
                        "float",
                        "600",
                        "1800",
                    ),
                    "max_unseen_seconds": _option(
                        "For how many seconds neither its service nor the job history may show a job before it "
                        "counts as lost. It is looked for again and again meanwhile, at least three times.",
                        "float",
                        "120",
                        "600",
                    ),
                    "max_finish_seconds": _option(
                        "For how many seconds a task may read the log, the result and the files of its job once the "
                        "job is over. Then it fails, and nothing of the job is removed.",
                        "float",
                        "900",
                        "3600",
                    ),
                    "deployment": _option(
                        "What this Airflow is called in the COMMENT of its jobs; [api] base_url by default. Airflows "
                        "that share a Snowflake schema must be called differently: each cleans up its own.",
                        "string",
                        "",
                        "production",
                    ),
                    "log_statements_per_minute": _option(
                        "How many statements a minute the logs of all jobs together may cost that one process watches "
                        "with one connection. They are read in turn; 0 leaves all logs to the end of their jobs.",
                        "float",
                        "300",
                        "60",
                    ),
                    "max_xcom_bytes": _option(
                        "A larger return value stays on the stage, and XCom gets a reference to it.",
                        "integer",
                        "1000000",
                        "100000",
                    ),
                    "result_retention_days": _option(
                        "For how many days the collector (airflow mljobs gc, MLJobHook.collect) leaves the result of a "
                        "job that is gone on the stage. 0 keeps it for ever: XCom may refer to it. What payloads have "
                        "saved is never removed.",
                        "float",
                        "0",
                        "90",
                    ),
                    "allow_pickle": _option(
                        "Whether MLJobHook.open loads pickles that a job has written. They can run any code in the "
                        "worker.",
                        "boolean",
                        "False",
                        "True",
                    ),
                    "payload_grace_seconds": _option(
                        "For how many seconds a payload on a stage may be taken to be in use. It is removed some three "
                        "times as long after its upload. 0 gives each job a payload of its own, which goes with it.",
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
