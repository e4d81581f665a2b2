"""LMX as a service of the user: systemd and launchd."""
