"""What the settings of a model say where a request leaves something open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.models.layers import Values, part
from lmx_kernel.types import ChatPrompt, EmbeddingPrompt, GenerationRequest, SamplingRequest

REPRODUCIBLE = "lmx_reproducible"
NOT_REPRODUCIBLE = (
    "lmx_reproducible: this model's answers may differ in near-ties, depending on what runs beside "
    "them; set reproducible = true for it, in its table [[model]] or by PATCH /admin/models/ID, "
    "and load it again"
)


@frozen(kw_only=True)
class RequestDefaults:
    """The settings of a model that complete requests, looked up once.

    :ivar max_tokens_limit: the most that a request may ask for; None for any number.
    """

    sampling: Mapping[str, Any]
    template_options: Mapping[str, Any]
    max_tokens: int | None
    max_tokens_limit: int | None
    stop: tuple[str, ...]
    reasoning_tokens: int | None
    reproducible: bool

    @classmethod
    def of(cls, values: Values) -> RequestDefaults:
        """Return those among the settings of a model."""
        sampling = part(values, "sampling")
        bias = {int(token): number for token, number in (sampling.get("logit_bias") or {}).items()}
        return cls(
            sampling=sampling | {"logit_bias": bias or None},
            template_options=part(values, "template_options"),
            max_tokens=values["max_tokens"].value,
            max_tokens_limit=values["max_tokens_limit"].value,
            stop=tuple(values["stop"].value),
            reasoning_tokens=values["reasoning_tokens"].value,
            reproducible=values["reproducible"].value,
        )

    def complete(self, request: GenerationRequest) -> GenerationRequest:
        """Return ``request`` with these settings wherever it leaves something open.

        :raises InvalidRequestError: it must be reproducible, and the model is not loaded for that.
        """
        prompt, reasoning_tokens = request.prompt, request.reasoning_tokens
        if request.reproducible and not self.reproducible:
            raise InvalidRequestError(NOT_REPRODUCIBLE, param=REPRODUCIBLE)
        if isinstance(prompt, EmbeddingPrompt):
            return request
        if isinstance(prompt, ChatPrompt):
            if self.template_options:
                prompt = evolve(prompt, options={**self.template_options, **prompt.options})
            if reasoning_tokens is None:
                reasoning_tokens = self.reasoning_tokens
        return evolve(
            request,
            prompt=prompt,
            sampling=SamplingRequest(**{**self.sampling, **request.sampling.given}),
            max_tokens=self._max_tokens(request.max_tokens),
            stop=request.stop or self.stop,
            reasoning_tokens=reasoning_tokens,
        )

    def _max_tokens(self, asked: int | None) -> int | None:
        wanted, most = self.max_tokens if asked is None else asked, self.max_tokens_limit
        return most if wanted is None else wanted if most is None else min(wanted, most)
