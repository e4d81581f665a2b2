"""Anthropic's dialect of the HTTP API: messages, their tokens, models."""
