"""Figures of LMX for Prometheus."""
