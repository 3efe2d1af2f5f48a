"""Values on their way into a job and back."""
