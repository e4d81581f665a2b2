"""HTTP: what holds for every dialect, from the socket to the handler."""
