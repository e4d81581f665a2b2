"""Requests to all that a worker's loop needs to run them, in threads beside the loop."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from attrs import field, frozen

from lmx_kernel.engine.protocol import Engine, LogitsProcessor, Tokenizer
from lmx_kernel.errors import InternalError, InvalidRequestError, LmxError, ModelUnusableError
from lmx_kernel.text.constraints.lookup import find_engine
from lmx_kernel.text.constraints.protocol import (
    ConstraintEngine,
    ConstraintPlan,
    is_constrained,
)
from lmx_kernel.text.formats.protocol import Format, PlainFormat, find_format
from lmx_kernel.text.lent_templates import lent_template
from lmx_kernel.text.prompt import PromptEncoder
from lmx_kernel.text.template import ChatTemplate
from lmx_kernel.types import ChatPrompt, EmbeddingPrompt, EncodedPrompt, GenerationRequest
from lmx_kernel.worker import messages as wire
from lmx_kernel.worker.channel import Channel
from lmx_kernel.worker.logits import make_processors
from lmx_kernel.worker.promise import Promise

THREADS = 2
"""For each of the two kinds of requests."""

PROMPT_END = 64
"""Tokens of the prompt that a format sees the text of."""


@frozen(kw_only=True)
class Prepared:
    """A request that passed every check.

    :param tokens: of its prompt.
    :param inputs: of each text that is to be embedded instead.
    :param prompt_end: the end of the prompt's text.
    :param format: what its answers are written in.
    :param constraints: what they may be; None for any text.
    :param processors: what changes their logits, by name.
    :param prediction: tokens that an answer will probably have.
    """

    request: GenerationRequest
    tokens: list[int] = field(factory=list)
    inputs: list[list[int]] = field(factory=list)
    prompt_end: str = ""
    format: Format = field(factory=PlainFormat)
    constraints: ConstraintPlan | None = None
    processors: dict[str, LogitsProcessor] = field(factory=dict)
    prediction: list[int] = field(factory=list)

    @property
    def size(self) -> int:
        """Tokens that were read."""
        return len(self.tokens) + sum(map(len, self.inputs))


@frozen
class ChatChoice:
    """What is known of a model's conversations beside its files: what its owner chose.

    :param template: Jinja source; "" for the model's own.
    :param format: the name of a chat format; "" for the one that fits the template.
    :param architecture: of the model; a plugin may have a template for it, if the model has none.
    """

    template: str = ""
    format: str = ""
    architecture: str = ""

    def template_for(self, tokenizer: Tokenizer) -> str:
        """Return the template to use instead of the model's own; "" for its own."""
        if self.template or tokenizer.chat_template:
            return self.template
        return lent_template(self.architecture)

    def check(self) -> None:
        """Compile the template.

        :raises ModelUnusableError: it does not compile.
        """
        try:
            if self.template:
                ChatTemplate(self.template, {})
        except InvalidRequestError as error:
            raise ModelUnusableError(f"chat_template: {error.message}") from error


class Preparer:
    """Tokenises and checks requests, and has the constraints of their answers compiled.

    Compiling may take seconds, so requests with constraints have threads of their own.
    """

    def __init__(
        self,
        engine: Engine,
        channel: Channel,
        constraint_settings: Mapping[str, Any],
        chat: ChatChoice,
        promise: Promise,
    ) -> None:
        self._promise = promise
        self._tokenizer = engine.tokenizer
        template = chat.template_for(engine.tokenizer)
        self._format = find_format(template or engine.tokenizer.chat_template, chat.format)
        self._encoder = PromptEncoder(engine.tokenizer, engine.limits, self._format, template)
        self._constraints: ConstraintEngine | None = None
        self._constraint_settings = constraint_settings
        self._lookup = threading.Lock()
        self._channel = channel
        self._quick, self._slow = ThreadPoolExecutor(THREADS), ThreadPoolExecutor(THREADS)
        self._requests: dict[int, Future[Prepared | None]] = {}

    def submit(self, message: wire.Prepare) -> None:
        """Begin to prepare a request; the kernel is told how it went."""
        pool = self._slow if _is_slow(message.request) else self._quick
        self._requests[message.id] = pool.submit(self._prepare, message)

    def when_prepared(self, request_id: int, call: Callable[[], None]) -> None:
        """Call when a request is prepared, refused or dropped, or at once if it was already."""
        preparing = self._requests.get(request_id)
        if preparing is not None:
            preparing.add_done_callback(lambda _: call())

    def find(self, request_id: int) -> Prepared | None:
        """Return a request that was prepared; None if it was refused or dropped."""
        preparing = self._requests.get(request_id)
        return preparing.result() if preparing is not None else None

    def drop(self, request_id: int) -> None:
        """Forget a request; an unknown one is ignored."""
        preparing = self._requests.pop(request_id, None)
        if preparing is not None:
            preparing.cancel()

    def _prepare(self, message: wire.Prepare) -> Prepared | None:
        try:
            prepared = self._checked(message.request)
            prompt = self._returned_prompt(prepared)
        except LmxError as error:
            self._refuse(message.id, error)
        # Templates and formats are other people's code; one request must not cost all of them.
        except Exception:  # noqa: BLE001
            traceback.print_exc()
            self._refuse(message.id, InternalError("the request could not be prepared"))
        else:
            self._channel.send(
                wire.Prepared(message.id, prepared.size, prompt, self._promise.fingerprint)
            )
            return prepared
        return None

    def _refuse(self, request_id: int, error: LmxError) -> None:
        self._channel.send(
            wire.Refused(request_id, error.code, error.message, error.param, error.figures)
        )

    def _checked(self, request: GenerationRequest) -> Prepared:
        if isinstance(request.prompt, EmbeddingPrompt):
            inputs = self._encoder.encode_inputs(request, request.prompt.inputs)
            return Prepared(request=request, inputs=inputs)
        self._promise.check(request)
        tokens = self._encoder.encode(request)
        pieces = (self._tokenizer.token_bytes[token] for token in tokens[-PROMPT_END:])
        prompt_end = b"".join(pieces).decode(errors="replace")
        return Prepared(
            request=request,
            tokens=tokens,
            prompt_end=prompt_end,
            format=self._format if isinstance(request.prompt, ChatPrompt) else PlainFormat(),
            constraints=self._constrain(request, prompt_end),
            processors=make_processors(request.logits_processors, self._tokenizer),
            prediction=self._predicted(request),
        )

    def _returned_prompt(self, prepared: Prepared) -> EncodedPrompt | None:
        if not prepared.request.returns_prompt:
            return None
        return EncodedPrompt(self._encoder.text(prepared.request), tuple(prepared.tokens))

    def _predicted(self, request: GenerationRequest) -> list[int]:
        text = request.prediction
        return self._tokenizer.encode(text, add_special=False, parse_special=False) if text else []

    def _constrain(self, request: GenerationRequest, prompt_end: str) -> ConstraintPlan | None:
        """Return what answers may be; the plugin for it is loaded by the first request that asks.

        :raises InvalidRequestError: it cannot be guaranteed.
        """
        if not _is_slow(request):
            return None
        with self._lookup:
            if self._constraints is None:
                self._constraints = find_engine(
                    self._tokenizer, self._format, self._constraint_settings
                )
        return self._constraints.plan(request, prompt_end)


def _is_slow(request: GenerationRequest) -> bool:
    """Return whether constraints are compiled for a request; a prompt is counted without them."""
    return request.max_tokens != 0 and is_constrained(request)
