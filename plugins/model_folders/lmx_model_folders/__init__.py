"""Finds models on disk: LMX's own folder, the Hugging Face cache, LM Studio's folder, any other."""
