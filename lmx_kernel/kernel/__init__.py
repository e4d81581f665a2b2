"""Builds a kernel from the config and the installed plugins."""
