"""States, results and failures of jobs."""
