"""MLX models for LMX: recognised in the kernel without an engine, run by mlx-lm's in a worker."""
