import lmx_kept

from lmx_mlx_backend.testing import ArchitectureConformance


class TestKept(ArchitectureConformance):
    architecture = lmx_kept
    config = {  # noqa: RUF012
        "model_type": "kept",
        "vocab_size": 320,
        "hidden_size": 32,
        "num_hidden_layers": 2,
    }
