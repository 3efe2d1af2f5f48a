"""The checks of an account, and the probe job."""
