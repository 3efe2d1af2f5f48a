"""Job specs and service specifications."""
