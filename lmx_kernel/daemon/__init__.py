"""A kernel that serves: start, stop, and what runs beside the requests."""
