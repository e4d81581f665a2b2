"""The kernel of LMX, a private LLM inference server whose every capability is a plugin."""
