"""What each path does, one noun a file."""
