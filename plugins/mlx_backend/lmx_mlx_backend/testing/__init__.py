"""For authors of model architectures: what serving needs of one, tried with random weights."""

import pytest

pytest.register_assert_rewrite("lmx_mlx_backend.testing.conformance")

from lmx_mlx_backend.testing.check import check_architecture  # noqa: E402
from lmx_mlx_backend.testing.conformance import ArchitectureConformance  # noqa: E402

__all__ = ["ArchitectureConformance", "check_architecture"]
