"""How to chat with a `tiny_lm` whose files have no chat template: Jinja, as in other models."""

TEMPLATE = """{% for message in messages %}{{ message.role }}: {{ message.content }}
{% endfor %}assistant:"""
