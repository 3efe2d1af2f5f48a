"""Values of arguments and results."""
