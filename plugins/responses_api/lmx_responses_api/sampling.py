"""Sampling as a body of this dialect asks for it."""

from __future__ import annotations

from lmx_kernel.dialect.sampling import make_sampling
from lmx_kernel.types import SamplingRequest
from lmx_responses_api.schema import ResponseBody


def sampling(body: ResponseBody) -> SamplingRequest:
    """Return how the tokens of the answer to ``body`` are sampled."""
    return make_sampling(
        {
            "temperature": body.temperature,
            "top_k": body.top_k,
            "top_p": body.top_p,
            "min_p": body.min_p,
            "repetition_penalty": body.repetition_penalty,
            "presence_penalty": body.presence_penalty,
            "frequency_penalty": body.frequency_penalty,
            "seed": body.seed,
        }
    )
