"""Metrics of LMX for Prometheus."""
