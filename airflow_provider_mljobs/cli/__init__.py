"""The command line: ``airflow mljobs …``."""
