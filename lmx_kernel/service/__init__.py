"""LMX as a service of its user: started with the session, and again when it fails."""
