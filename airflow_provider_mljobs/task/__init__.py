"""One try of a task: from an operator's arguments to a job's result."""
