"""Downloads models from the Hugging Face hub, and nothing in them that could run."""
