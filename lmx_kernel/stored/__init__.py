"""Stored answers: kept in an SQLite file, and computed whoever is connected."""
