"""The page "ML Jobs": what the API server answers to it. Imported at the first request, and nowhere else."""
