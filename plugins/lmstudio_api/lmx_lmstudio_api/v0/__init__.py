"""``/api/v0``: the OpenAI dialect with figures of the run and of the model."""
