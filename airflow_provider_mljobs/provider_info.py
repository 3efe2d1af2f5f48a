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
        "hooks": [{"integration-name": integration, "python-modules": ["airflow_provider_mljobs.hooks"]}],
        "triggers": [{"integration-name": integration, "python-modules": ["airflow_provider_mljobs.triggers"]}],
        "task-decorators": [{"name": "mljob", "class-name": "airflow_provider_mljobs.decorators.mljob_task"}],
        "config": {
            "mljobs": {
                "description": "Settings of the Snowflake ML Jobs provider.",
                "options": {
                    "max_unreachable_seconds": {
                        "description": (
                            "For how many seconds Snowflake may be unreachable before a waiting task gives up its job. "
                            "The job itself is left running."
                        ),
                        "version_added": "0.1.0",
                        "type": "float",
                        "example": "1800",
                        "default": "600",
                    },
                },
            }
        },
    }
