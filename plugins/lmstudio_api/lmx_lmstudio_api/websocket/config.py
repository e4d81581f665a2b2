"""Configs as the protocol has them: stacks of layers of keys and values."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

import msgspec
from msgspec import Meta, Struct

from lmx_kernel.dialect.fields import (
    INT32_MAX,
    DraftModelName,
    JsonObject,
    MinP,
    Penalty,
    RepetitionPenalty,
    Seed,
    StopTexts,
    Temperature,
    TopP,
)
from lmx_kernel.errors import UnsupportedFieldError
from lmx_kernel.http.json_body import wrong_field
from lmx_lmstudio_api.v1.model_schema import ContextLength
from lmx_lmstudio_api.websocket.tools import ToolChoiceValue, ToolsValue

COMPLETE_MODE = "completeModeFormatting"
PREDICTION, LOAD = "llm.prediction.", ".load."
T = TypeVar("T")
C = TypeVar("C")


class Checked(Struct, Generic[T], frozen=True):
    """A value with a box that says whether it counts."""

    checked: bool = False
    value: T | None = None


class KeyValue(Struct, frozen=True):
    """One key of a config."""

    key: str
    value: Any = None


class Config(Struct, frozen=True):
    """Keys and values."""

    fields: list[KeyValue] = []


class Layer(Struct, rename="camel", frozen=True):
    """A config, and who it is from."""

    layer_name: str
    config: Config


class ConfigStack(Struct, frozen=True):
    """Configs, of which a later one counts before an earlier one."""

    layers: list[Layer] = []

    @property
    def is_complete_mode(self) -> bool:
        """Whether a text is to be continued as it is, which clients ask for by a template."""
        return any(layer.layer_name == COMPLETE_MODE for layer in self.layers)

    def fields(self) -> dict[str, Any]:
        """Return the values in force, by key."""
        return {
            field.key: field.value
            for layer in self.layers
            if layer.layer_name != COMPLETE_MODE
            for field in layer.config.fields
        }


class Structured(Struct, rename="camel", frozen=True):
    """What an answer must match; ``type`` is none, json or gbnf."""

    type: str = "none"
    json_schema: JsonObject | None = None


class PredictionConfig(Struct, rename="camel", frozen=True):
    """The keys below ``llm.prediction`` that mean something here. Others are for other engines, or
    change nothing that a client can tell.
    """

    temperature: Temperature | None = None
    top_k_sampling: Annotated[float, Meta(ge=-1, le=INT32_MAX)] | None = None
    top_p_sampling: Checked[TopP] | None = None
    min_p_sampling: Checked[MinP] | None = None
    repeat_penalty: Checked[RepetitionPenalty] | None = None
    presence_penalty: Checked[Penalty] | None = msgspec.field(
        default=None, name="llama.presencePenalty"
    )
    frequency_penalty: Checked[Penalty] | None = msgspec.field(
        default=None, name="llama.frequencyPenalty"
    )
    seed: Checked[Seed] | None = None
    max_predicted_tokens: Checked[Annotated[int, Meta(ge=-1, le=INT32_MAX)]] | None = None
    stop_strings: StopTexts | None = None
    structured: Structured | None = None
    tools: ToolsValue | None = None
    tool_choice: ToolChoiceValue | None = None
    system_prompt: str | None = None
    enable_thinking: bool | None = msgspec.field(default=None, name="reasoning.enableThinking")
    reasoning_tokens: Checked[Annotated[int, Meta(ge=0, le=INT32_MAX)]] | None = msgspec.field(
        default=None, name="reasoning.budgetTokens"
    )
    draft_model: DraftModelName | None = msgspec.field(
        default=None, name="speculativeDecoding.draftModel"
    )
    prompt_template: Any = None


class LoadConfig(Struct, rename="camel", frozen=True):
    """The keys of a load that mean something here, for both kinds of models."""

    context_length: ContextLength | None = None
    num_parallel_sessions: Annotated[int, Meta(ge=1, le=1024)] | None = None
    num_experts: int | None = None


def prediction_config(stack: ConfigStack) -> PredictionConfig:
    """Return how an answer is wanted.

    :raises InvalidRequestError: naming the key that is wrong.
    :raises UnsupportedFieldError: naming the key that LMX does not do.
    """
    config = _converted(stack, PREDICTION, PredictionConfig)
    if config.prompt_template is not None:
        key = f"{PREDICTION}promptTemplate"
        raise UnsupportedFieldError(f"{key}: a model's template is its own", param=key)
    return config


def load_config_of(stack: ConfigStack, kind: str) -> LoadConfig:
    """Return how a load is wanted; raises as :func:`prediction_config`."""
    config = _converted(stack, f"{kind}{LOAD}", LoadConfig)
    if config.num_experts:
        key = f"{kind}{LOAD}numExperts"
        raise UnsupportedFieldError(f"{key}: not supported", param=key)
    return config


def on(value: Checked[T] | None) -> T | None:
    """Return a value whose box is checked; None for others, and if there is none."""
    return value.value if value is not None and value.checked else None


def _converted(stack: ConfigStack, prefix: str, cls: type[C]) -> C:
    own = {
        key.removeprefix(prefix): value
        for key, value in stack.fields().items()
        if key.startswith(prefix) and not _is_off(value)
    }
    try:
        return msgspec.convert(own, cls)
    except msgspec.ValidationError as error:
        wrong = wrong_field(str(error))
        param = f"{prefix}{wrong.param or ''}"
        raise type(wrong)(f"{prefix}{wrong.message}", param=param) from None


def _is_off(value: Any) -> bool:
    return isinstance(value, dict) and value.get("checked") is False
