"""Walks the order in which the settings of a model count, on a kernel with any backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmx_kernel.models.maker_sampling import OFF
from lmx_kernel.testing.harness import RunningKernel
from lmx_kernel.types import (
    GenerationRequest,
    LoadOverrides,
    Sampling,
    SamplingRequest,
    TextPrompt,
)

IN_CONFIG: dict[str, Any] = dict.fromkeys(OFF, 0.25) | {"top_k": 5}
IN_API: dict[str, Any] = dict.fromkeys(OFF, 0.5) | {"top_k": 6}
IN_REQUEST: dict[str, Any] = dict.fromkeys(OFF, 0.75) | {"top_k": 7}
LOADING = {"context_length": (128, 96, 64), "parallel": (4, 3, 2), "ttl_s": (50.0, 60.0, 70.0)}
"""In the config, by the API, by the load."""


def config_for(model: str, **keys: str) -> str:
    """Return a table ``[[model]]`` with every value that :func:`check_order` expects in one.

    :param keys: more of it, as TOML.
    """
    values = {f"sampling.{name}": value for name, value in IN_CONFIG.items()}
    values |= {key: of_config for key, (of_config, *_) in LOADING.items()} | keys
    lines = "".join(f"{key} = {value}\n" for key, value in values.items())
    return f'[[model]]\nmatch = "{model}"\n{lines}'


async def check_order(stage: RunningKernel, plain: str, made: str, owned: str) -> None:
    """Check every field of sampling, and how a model is loaded, by request, API, config, the
    model's file and LMX.

    :param plain: a model whose files say nothing of sampling.
    :param made: one whose files do.
    :param owned: as ``made``, with the table of :func:`config_for`.
    """
    kernel = stage.kernel
    lmx = {name: getattr(Sampling(), name) for name in OFF}
    maker = kernel.find(made).sampling.given
    assert maker, f"the files of {made} say nothing"
    await _check_sampling(stage, plain, lmx, "LMX")
    await _check_sampling(stage, made, maker, "model's file")
    await _check_sampling(stage, owned, IN_CONFIG, "config table 1")
    by_api = {key: of_api for key, (_, of_api, _) in LOADING.items()}
    await kernel.model_settings.change(owned, {"sampling": IN_API, **by_api})
    await _check_sampling(stage, owned, IN_API, "api")
    request = await _sent(stage, owned, SamplingRequest(**IN_REQUEST))
    assert request.sampling.given == IN_REQUEST
    await kernel.unload(owned)
    await kernel.load(owned, LoadOverrides())
    assert _loaded(stage, owned) == by_api
    by_load = {key: of_load for key, (*_, of_load) in LOADING.items()}
    await kernel.load(owned, LoadOverrides(**by_load))  # type: ignore[arg-type]
    assert _loaded(stage, owned) == by_load
    await kernel.unload(owned)
    await kernel.model_settings.reset(owned)
    await _check_sampling(stage, owned, IN_CONFIG, "config table 1")
    assert _loaded(stage, owned) == {key: of_config for key, (of_config, *_) in LOADING.items()}


async def _check_sampling(
    stage: RunningKernel, model: str, expected: Mapping[str, Any], source: str
) -> None:
    request = await _sent(stage, model, SamplingRequest())
    settings = stage.kernel.model_settings.show(model).settings
    assert request.sampling.given == expected
    for name, value in expected.items():
        one = settings[f"sampling.{name}"]
        assert (one.value, one.source) == (value, source), name


async def _sent(stage: RunningKernel, model: str, sampling: SamplingRequest) -> GenerationRequest:
    """Return a request as the worker got it, after its answer."""
    request = GenerationRequest(
        model=model, prompt=TextPrompt("hi"), sampling=sampling, max_tokens=2
    )
    with await stage.kernel.generate(request) as answer:
        async for _ in answer:
            pass
    sent = getattr(answer, "request")  # noqa: B009 - an answer of the kernel's own has it
    assert isinstance(sent, GenerationRequest)
    return sent


def _loaded(stage: RunningKernel, model: str) -> dict[str, Any]:
    instance = stage.instance(model)
    options = instance.spec.options
    return {
        "context_length": options.context_length,
        "parallel": options.parallel,
        "ttl_s": instance.ttl_s,
    }
