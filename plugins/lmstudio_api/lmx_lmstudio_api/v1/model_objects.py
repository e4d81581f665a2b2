"""What clients are told of models, loads and downloads."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

ModelKind = Literal["llm", "embedding"]


class Quantization(TypedDict):
    """How the weights are stored.

    :ivar bits_per_weight: as the name has it; null if it does not tell.
    """

    name: str
    bits_per_weight: int | None


class InstanceConfig(TypedDict):
    """How a model is loaded.

    :ivar context_length: tokens that one request may use.
    :ivar parallel: requests that run at once.
    """

    context_length: int
    parallel: int


class Instance(TypedDict):
    """A loaded model; its id is the model's, which has one instance at most."""

    id: str
    config: InstanceConfig


class Capabilities(TypedDict):
    """What a model can do beside answering."""

    vision: bool
    trained_for_tool_use: bool


class LocalModel(TypedDict):
    """A model on disk.

    :ivar params_string: such as ``7B``; null if its name does not tell.
    :ivar capabilities: not of a model that makes embeddings.
    """

    type: ModelKind
    publisher: str
    key: str
    display_name: str
    architecture: str
    quantization: Quantization | None
    size_bytes: int
    params_string: str | None
    loaded_instances: list[Instance]
    max_context_length: int
    format: Literal["gguf", "mlx"] | None
    capabilities: NotRequired[Capabilities]
    description: None


class LocalModels(TypedDict):
    """All of them."""

    models: list[LocalModel]


class LoadedModel(TypedDict):
    """A model that is loaded now.

    :ivar load_config: if it was asked for.
    """

    type: ModelKind
    instance_id: str
    load_time_seconds: float
    status: Literal["loaded"]
    load_config: NotRequired[InstanceConfig]


class UnloadedModel(TypedDict):
    """A model that was unloaded."""

    instance_id: str


class Download(TypedDict):
    """A download. Times are in UTC, as ISO 8601 has them.

    :ivar job_id: missing where the model was there already.
    """

    job_id: NotRequired[str]
    status: Literal["downloading", "paused", "completed", "failed", "already_downloaded"]
    total_size_bytes: NotRequired[int]
    downloaded_bytes: NotRequired[int]
    bytes_per_second: NotRequired[float]
    estimated_completion: NotRequired[str]
    started_at: NotRequired[str]
    completed_at: NotRequired[str]
    error: NotRequired[str]


class DownloadList(TypedDict):
    """All downloads, newest first."""

    jobs: list[Download]
