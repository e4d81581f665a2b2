"""The config sections of the runtime."""

from __future__ import annotations

from attrs import field, frozen, validators

from lmx_kernel.types import LoadOptions, ModelCard


@frozen(kw_only=True)
class ModelSettings:
    """Section ``[models]``: how models are loaded and watched.

    :ivar context_length: tokens that one request may use, at most what the model was trained for.
    :ivar parallel: requests that run at once in one model.
    :ivar cache_tokens: tokens of all running requests and kept prompts together; 0 is twice the
        context length.
    :ivar load_timeout_s: a load that shows no progress for this long is given up.
    :ivar hang_timeout_s: a worker that shows no sign of life for this long is replaced.
    :ivar rescan_s: how often the model folders are looked at again.
    """

    context_length: int = field(default=8192, validator=validators.ge(16))
    parallel: int = field(default=8, validator=[validators.ge(1), validators.le(256)])
    cache_tokens: int = field(default=0, validator=validators.ge(0))
    load_timeout_s: float = field(default=120.0, validator=validators.gt(0))
    hang_timeout_s: float = field(default=10.0, validator=validators.gt(0))
    rescan_s: float = field(default=10.0, validator=validators.gt(0))

    def options_for(self, card: ModelCard) -> LoadOptions:
        """Return how ``card`` is loaded."""
        context = min(self.context_length, card.context_length)
        return LoadOptions(
            context_length=context,
            parallel=self.parallel,
            cache_tokens=max(self.cache_tokens or 2 * context, context),
        )


@frozen(kw_only=True)
class QueueSettings:
    """Section ``[queue]``: what happens to requests that cannot run at once.

    :ivar max_waiting: requests that may wait for one model; more are refused at once.
    :ivar max_wait_s: a request that has not begun after this long is refused.
    :ivar expected_tokens: room in the cache that an answer of unknown length is admitted with.
        Should it need more and there is none, the youngest answer is paused until there is.
    """

    max_waiting: int = field(default=256, validator=validators.ge(0))
    max_wait_s: float = field(default=300.0, validator=validators.gt(0))
    expected_tokens: int = field(default=512, validator=validators.ge(1))
