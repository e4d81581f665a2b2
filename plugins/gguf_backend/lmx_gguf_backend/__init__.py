"""GGUF models for LMX: recognised in the kernel without an engine, run by llama.cpp in a worker."""
