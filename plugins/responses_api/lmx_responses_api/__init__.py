"""The dialect of OpenAI's Responses for LMX."""
