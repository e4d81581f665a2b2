"""The Ollama dialect of LMX."""
