"""What clients send of models, loads and downloads. A field that is not listed is ignored."""

from __future__ import annotations

from typing import Annotated

from attrs import frozen
from msgspec import Meta, Raw

from lmx_kernel.dialect.fields import INT32_MAX, ModelName
from lmx_kernel.dialect.refused import ABSENT, refused

ContextLength = Annotated[int, Meta(ge=16, le=INT32_MAX)]


@frozen(kw_only=True)
class LoadModelBody:
    """The body of ``POST /api/v1/models/load``.

    :ivar context_length: tokens that one request may use; absent keeps what a loaded model has, and
        otherwise leaves it to the config.
    :ivar eval_batch_size: the engine chooses for itself; what is asked for changes nothing, as with
        the next two.
    :ivar echo_load_config: whether the answer has how the model is loaded.
    """

    model: ModelName
    context_length: ContextLength | None = None
    eval_batch_size: int | None = None
    flash_attention: bool | None = None
    offload_kv_cache_to_gpu: bool | None = None
    num_experts: Annotated[Raw, refused()] = ABSENT
    echo_load_config: bool | None = None


@frozen(kw_only=True)
class UnloadModelBody:
    """The body of ``POST /api/v1/models/unload``.

    :ivar instance_id: a loaded model's id, or another name of it.
    """

    instance_id: ModelName


@frozen(kw_only=True)
class DownloadModelBody:
    """The body of ``POST /api/v1/models/download``.

    :ivar model: ``publisher/name`` on the hub, or the address of its page.
    :ivar quantization: such as Q4_K_M, where there are several.
    """

    model: ModelName
    quantization: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
