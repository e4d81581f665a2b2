"""The check that LMX offers for an architecture, on a tiny config."""

from lmx_mlx_backend.testing import check_architecture
from lmx_tiny import tiny_lm


def test_tiny_lm():
    check_architecture(tiny_lm, {"model_type": "tiny_lm", "hidden_size": 64})
