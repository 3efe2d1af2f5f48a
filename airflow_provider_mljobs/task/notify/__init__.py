"""What is reported to others: assets, lineage and metrics."""
