"""Structured output: token masks from schemas, patterns and grammars."""
