"""What ``/api/v0`` adds to the objects of the OpenAI dialect."""

from __future__ import annotations

from attrs import frozen

from lmx_kernel import __version__
from lmx_kernel.interfaces import Kernel
from lmx_kernel.types import ModelCard, Usage
from lmx_lmstudio_api.model_facts import statuses
from lmx_lmstudio_api.speed import DraftCounts, generation_s, stop_reason, tokens_per_s
from lmx_lmstudio_api.v0.objects import Details, Stats


@frozen
class DetailsOfAnswer:
    """Says how one answer was made.

    :param card: of the model that answers.
    :param max_tokens: of the request.
    """

    kernel: Kernel
    card: ModelCard
    max_tokens: int | None

    def after(self, usage: Usage, reason: str, stop: str) -> Details:
        """Return it when the answer has ended.

        :param reason: why its last candidate ended, as :class:`~lmx_kernel.types.Finished` has it.
        """
        status = statuses(self.kernel).get(self.card.id)
        return {
            "stats": self._stats(usage, reason, stop),
            "model_info": {
                "arch": self.card.architecture,
                "quant": self.card.quantization or "",
                "format": self.card.format,
                "context_length": status.context_length if status else self.card.context_length,
            },
            "runtime": {
                "name": f"lmx-{self.card.backend}",
                "version": __version__,
                "supported_formats": [self.card.format],
            },
        }

    def _stats(self, usage: Usage, reason: str, stop: str) -> Stats:
        stats: Stats = {
            "tokens_per_second": tokens_per_s(usage),
            "time_to_first_token": usage.first_token_s or 0.0,
            "generation_time": generation_s(usage),
            "stop_reason": stop_reason(reason, stop, usage, self.max_tokens),
        }
        if (drafts := DraftCounts.of(usage)) is not None:
            stats["total_draft_tokens_count"] = drafts.total
            stats["accepted_draft_tokens_count"] = drafts.accepted
            stats["rejected_draft_tokens_count"] = drafts.rejected
            stats["ignored_draft_tokens_count"] = 0
        if usage.draft_model:
            stats["draft_model"] = usage.draft_model
        return stats
