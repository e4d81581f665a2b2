"""Watches the machine that LMX runs on."""
