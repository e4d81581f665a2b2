"""The OpenAI dialect of LMX."""
