"""The settings in force for a model: several may set each of them, and the first one counts.

Settings are known by a key each. Those of tables within a table have a dot in theirs, such as
``sampling.temperature``, so that one word of the owner leaves the others as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import attrs
from attrs import frozen

from lmx_kernel.models.maker_sampling import OFF
from lmx_kernel.models.model_table import REST_FIELD, RequestValues
from lmx_kernel.types import LoadOptions, ModelCard, Sampling, SettingValue

NESTED = ("sampling", "template_options", "profiles")
UNSET: dict[str, Any] = {
    "aliases": (),
    "pinned": False,
    "autoload": False,
    "backend": None,
    "chat_template": None,
    "format": None,
    "hidden": False,
    "drafts": None,
    "reproducible": False,
    "max_tokens": None,
    "max_tokens_limit": None,
    "stop": (),
    "reasoning_tokens": None,
    **{f"sampling.{name}": getattr(Sampling(), name) for name in OFF},
}
"""LMX's own values."""

Values = Mapping[str, SettingValue]


@frozen
class Layer:
    """What one of those who may set something has set, by key.

    :ivar source: who it is, as users read it.
    """

    source: str
    values: Mapping[str, Any]


def flat(values: RequestValues) -> dict[str, Any]:
    """Return what is set in ``values``, by key; keys of the backend are in it too."""
    given = attrs.asdict(values, recurse=False)
    given["sampling"] = attrs.asdict(values.sampling)
    found: dict[str, Any] = dict(given.pop(REST_FIELD, {}))
    for name in NESTED:
        found |= {f"{name}.{key}": value for key, value in given.pop(name, {}).items()}
    found |= given
    return {key: value for key, value in found.items() if value is not None and key != "match"}


def maker_layer(card: ModelCard) -> Layer:
    """Return what the model's own files say."""
    given = card.sampling.given
    return Layer("model's file", {f"sampling.{name}": value for name, value in given.items()})


def resolve(layers: Iterable[Layer]) -> dict[str, SettingValue]:
    """Return the value of each key, and who has set it.

    :param layers: whoever counts first comes first.
    """
    found: dict[str, SettingValue] = {}
    for layer in layers:
        for key, value in layer.values.items():
            if key not in found:
                found[key] = SettingValue(value, layer.source)
    return found


def part(values: Values, name: str) -> dict[str, Any]:
    """Return the values of a table within the table, such as ``sampling``."""
    start = f"{name}."
    return {
        key.removeprefix(start): one.value for key, one in values.items() if key.startswith(start)
    }


def load_options(values: Values, card: ModelCard) -> LoadOptions:
    """Return how ``card`` is loaded: no context is longer than the model was trained for. Where
    answers are reproducible, nothing is shared, so each sequence has room for a whole context.
    """
    context, parallel = min(values["context_length"].value, card.context_length), values["parallel"]
    cache_tokens = max(values["cache_tokens"].value or 2 * context, context)
    if values["reproducible"].value:
        cache_tokens = parallel.value * context
    return LoadOptions(context_length=context, parallel=parallel.value, cache_tokens=cache_tokens)
