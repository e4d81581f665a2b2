"""What HTTP dialects have in common; for the plugins that implement one."""
