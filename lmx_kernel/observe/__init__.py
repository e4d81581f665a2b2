"""What is told, counted and written of what happens."""
