"""The kernel of LMX, a private LLM inference server whose every capability is a plugin."""

from importlib.metadata import version

__version__ = version("lmx-kernel")
