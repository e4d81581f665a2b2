"""Monitors the machine that LMX runs on."""
