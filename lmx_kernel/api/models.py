"""For backends, sources of models and routers: what the files of models say."""

from lmx_kernel.engine.footprint import (
    CELLS_STEP,
    PREFIX_SHARE,
    ROWS,
    TransformerShape,
    whole_cells,
)
from lmx_kernel.models.headers import (
    Damaged,
    HeaderBackend,
)
from lmx_kernel.models.labels import (
    as_label,
    is_label,
    label_of,
    stem_of,
)
from lmx_kernel.models.maker_sampling import (
    maker_sampling,
)
from lmx_kernel.models.templates import (
    capabilities_of,
)
from lmx_kernel.routing.decide import (
    estimate_tokens,
)

__all__ = [
    "CELLS_STEP",
    "PREFIX_SHARE",
    "ROWS",
    "Damaged",
    "HeaderBackend",
    "TransformerShape",
    "as_label",
    "capabilities_of",
    "estimate_tokens",
    "is_label",
    "label_of",
    "maker_sampling",
    "stem_of",
    "whole_cells",
]
