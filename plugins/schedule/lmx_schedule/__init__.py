"""Loads and unloads models at a time of day."""
