"""Vectors of embeddings as a client asks for them."""

from __future__ import annotations

import math
from array import array

from lmx_kernel.errors import InvalidRequestError


def shortened(vector: array[float], dimensions: int) -> array[float]:
    """Return the first ``dimensions`` numbers of ``vector``, brought to length 1 again.

    :raises InvalidRequestError: it has fewer.
    """
    if dimensions > len(vector):
        raise InvalidRequestError(
            f"dimensions: the model's vectors have {len(vector)} numbers", param="dimensions"
        )
    first = vector[:dimensions]
    length = math.hypot(*first) or 1.0
    return array("f", (number / length for number in first))
