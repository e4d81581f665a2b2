"""The documentation of LMX's HTTP API."""
