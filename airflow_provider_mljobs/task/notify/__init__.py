"""Reports of a task's job to Airflow: assets, lineage and metrics."""
