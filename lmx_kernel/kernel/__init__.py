"""From a config and installed packages to a kernel."""
