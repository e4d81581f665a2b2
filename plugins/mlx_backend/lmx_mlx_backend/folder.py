"""A model folder in mlx-lm's form: its config, its tensors, and whether MLX may see them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from attrs import field, frozen

from lmx_kernel.errors import ModelUnusableError
from lmx_kernel.models.maker_sampling import maker_sampling
from lmx_kernel.models.templates import capabilities_of
from lmx_kernel.types import SamplingRequest
from lmx_mlx_backend import strict_json
from lmx_mlx_backend.safetensors import BITS as TYPE_BITS
from lmx_mlx_backend.safetensors import Tensor, read_tensors

MAX_CONFIG_BYTES = MAX_TEMPLATE_BYTES = 1 << 20
MAX_JSON_BYTES = 1 << 25
"""Of an index or a tokenizer's config: the largest real ones have 10 to 20 MB."""
MAX_TOKENIZER_BYTES = 1 << 28
MAX_LAYERS = 4096
MAX_SHARDS = 10_000
MAX_NUMBER = 1 << 40
"""Of what a config may count. Some write 10 ** 30 where they mean that there is no limit."""

UNSTATED_CONTEXT = 32768
"""Of a model whose config names no limit, as recurrent ones do."""

SHARD = re.compile(r"(?P<stem>model.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")
INDEX = "model.safetensors.index.json"
CODE_KEY = "auto_map"
"""Names a model's own code for another library; MLX needs none where it knows the architecture."""

FORBIDDEN_KEY = "model_file"
"""Names a file of code that mlx-lm itself would run."""

WEIGHTS = "model*.safetensors"
OWN_NAMES = frozenset({
    *("config.json", "configuration.json", "generation_config.json", "hf_quant_config.json", INDEX),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json", "vocab.json"),
    *("vocab.txt", "merges.txt", "chat_template.jinja", "chat_template.json"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
})  # fmt: skip
"""Files of a model beside its weights, as mlx-lm and the libraries that it builds on name them."""

CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length",
                "max_sequence_length", "model_max_length")  # fmt: skip
NUMBER_KEYS = (
    *("hidden_size", "n_embd", "d_model", "num_attention_heads", "n_head", "num_key_value_heads"),
    *("intermediate_size", "vocab_size", "num_hidden_layers", "n_layer", "head_dim"),
    *("kv_lora_rank", "qk_rope_head_dim", "state_size", "ssm_state_size", "mamba_d_state"),
    "linear_key_head_dim",
)
MAX_NAME_CHARS = 100
MODES = ("affine", "mxfp4", "mxfp8", "nvfp4")
METHODS = ("awq", "bitnet", "compressed-tensors", "fp8", "gptq", "modelopt", "mxfp4", "mxfp8")
"""What mlx-lm reads beside its own ``quantization``; any other it would take for plain weights."""

BITS = (1, 2, 3, 4, 5, 6, 8)
GROUP_SIZES = (16, 32, 64, 128)
DTYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@frozen
class ModelFolder:
    """What is used of a model's config and headers, after they were checked.

    :param architecture: the ``model_type``, such as llama.
    :param numbers: of the config of the language model.
    :param quantized: such as 4-bit or mxfp4; None if the config names none.
    :param elements: of all tensors, by the name of their type.
    :param sampling: as its maker wants it.
    :param has_own_code: whether the config names code of its own, which LMX never runs.
    :param warning: what is odd about the files; None if nothing is.
    :param capabilities: of a card, told from the chat template.
    """

    path: Path
    architecture: str
    numbers: dict[str, int]
    quantized: str | None
    elements: dict[str, int]
    capabilities: frozenset[str]
    sampling: SamplingRequest = field(factory=SamplingRequest)
    has_own_code: bool = False
    warning: str | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """The bytes of all tensors on disk, by the name of their type."""
        return {dtype: count * TYPE_BITS[dtype] // 8 for dtype, count in self.elements.items()}

    @property
    def size_bytes(self) -> int:
        """Of the tensors on disk."""
        return sum(self.sizes.values())

    @property
    def context_length(self) -> int:
        """In tokens."""
        found = (self.integer(key) for key in CONTEXT_KEYS)
        return next((number for number in found if number > 0), UNSTATED_CONTEXT)

    @property
    def quantization(self) -> str:
        """Such as 4-bit, mxfp4 or float32."""
        sizes = self.sizes
        dtype = max(sizes, key=lambda key: sizes[key])
        return self.quantized or DTYPE_NAMES.get(dtype, dtype.lower())

    def integer(self, key: str, default: int = 0) -> int:
        """Return a number of the config; ``default`` where it is missing or counts nothing."""
        return self.numbers.get(key, default)


def read_folder(path: Path) -> ModelFolder:
    """Return the model in the folder at ``path``.

    :raises ModelUnusableError: missing, damaged or unsafe; the message names the file.
    """
    config = read_json(path / "config.json", MAX_CONFIG_BYTES)
    _check_config(config)
    names = _weight_names(path)
    tensors = _tensors(path, names)
    read_json(path / "tokenizer.json", MAX_TOKENIZER_BYTES, parse=False)
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.dtype] += tensor.elements
    return ModelFolder(
        path=path,
        architecture=config["model_type"],
        numbers=_numbers(config | _nested(config)),
        quantized=_quantized(config | _nested(config)),
        elements=dict(elements),
        sampling=_sampling(path / "generation_config.json"),
        has_own_code=_says(config, CODE_KEY),
        warning=_index_warning(path, names, tensors),
        capabilities=capabilities_of(chat_template(path)),
    )


def _sampling(path: Path) -> SamplingRequest:
    """Return the sampling of a generation config; the fields are those of transformers, see
    https://huggingface.co/docs/transformers/main_classes/text_generation
    """
    if not path.is_file():
        return SamplingRequest()
    config = read_json(path, MAX_CONFIG_BYTES)
    return maker_sampling(config, greedy=config.get("do_sample") is False)


def own_files(names: Iterable[str]) -> list[str]:
    """Return which of the files in a folder are the model's: its weights, configs and tokenizer."""
    return sorted(name for name in names if name in OWN_NAMES or fnmatchcase(name, WEIGHTS))


def _numbers(config: dict[str, Any]) -> dict[str, int]:
    given = {key: config.get(key) for key in (*NUMBER_KEYS, *CONTEXT_KEYS)}
    return {
        key: value
        for key, value in given.items()
        if type(value) is int and 0 <= value <= MAX_NUMBER
    }


def _quantized(config: dict[str, Any]) -> str | None:
    entry, foreign = config.get("quantization"), config.get("quantization_config")
    if isinstance(entry, dict):
        mode = str(entry.get("mode", "affine"))
        return f"{entry['bits']}-bit" if mode == "affine" else mode
    if isinstance(foreign, dict) and "quant_method" in foreign:
        return str(foreign["quant_method"])
    return None


def read_json(path: Path, limit_bytes: int = MAX_JSON_BYTES, *, parse: bool = True) -> Any:
    """Return the object in a JSON file.

    :raises ModelUnusableError: missing, too large or no JSON object that
        :mod:`~lmx_mlx_backend.strict_json` takes; the message names the file.
    """
    try:
        if path.stat().st_size > limit_bytes:
            raise ModelUnusableError(f"{path.name}: larger than {limit_bytes} bytes")
        if not parse:
            return None
        value = strict_json.parse(path.read_bytes())
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        reason = "missing" if missing else error.strerror or "cannot be read"
        raise ModelUnusableError(f"{path.name}: {reason}") from error
    except UnicodeEncodeError as error:
        raise ModelUnusableError(f"{path.name}: a text in it is not Unicode") from error
    except (ValueError, RecursionError) as error:
        raise ModelUnusableError(f"{path.name}: not JSON") from error
    if not isinstance(value, dict):
        raise ModelUnusableError(f"{path.name}: not a JSON object")
    return value


def chat_template(path: Path) -> str | None:
    """Return the chat template of the folder at ``path``: of its own file, or in the tokenizer's.

    :raises ModelUnusableError: a file that holds it is damaged.
    """
    own = path / "chat_template.jinja"
    if own.is_file():
        return _template_text(own)
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (path / name).is_file():
            found = _default_template(read_json(path / name).get("chat_template"))
            if found is not None:
                return found
    return None


def _template_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEMPLATE_BYTES + 1)
    except OSError as error:
        raise ModelUnusableError(f"{path.name}: {error.strerror or 'cannot be read'}") from error
    if len(data) > MAX_TEMPLATE_BYTES:
        raise ModelUnusableError(f"{path.name}: larger than {MAX_TEMPLATE_BYTES} bytes")
    return data.decode("utf-8-sig", errors="replace")


def _default_template(value: object) -> str | None:
    """A template is a text, or one of several with a name each, of which one is the default."""
    if isinstance(value, list):
        items = [item for item in value if isinstance(item, dict)]
        value = next((one.get("template") for one in items if one.get("name") == "default"), None)
    return value if isinstance(value, str) else None


def _says(config: dict[str, Any], key: str) -> bool:
    return bool(config.get(key) or _nested(config).get(key))


def _nested(config: dict[str, Any]) -> dict[str, Any]:
    """Return what a model of several parts says of its language model."""
    part = config.get("text_config")
    return {k: v for k, v in part.items() if k != "model_type"} if isinstance(part, dict) else {}


# --- checks


def _check_config(config: dict[str, Any]) -> None:
    """Refuse what mlx-lm must not or cannot load.

    :raises ModelUnusableError: with the reason.
    """
    if _says(config, FORBIDDEN_KEY):
        raise ModelUnusableError(f"config.json: it asks to run its own code ({FORBIDDEN_KEY})")
    name = config.get("model_type")
    if not isinstance(name, str) or len(name) > MAX_NAME_CHARS:
        raise ModelUnusableError("config.json: it names no model_type")
    layers = config.get("num_hidden_layers")
    if isinstance(layers, int) and layers > MAX_LAYERS:
        raise ModelUnusableError(f"config.json: more than {MAX_LAYERS} layers")
    _check_quantization(config | _nested(config))


def _check_quantization(config: dict[str, Any]) -> None:
    own, foreign = config.get("quantization"), config.get("quantization_config")
    if own is not None:
        _check_entry(own)
        for entry in own.values():
            if isinstance(entry, dict):
                _check_entry(entry)
    elif foreign is not None:
        method = foreign.get("quant_method") if isinstance(foreign, dict) else foreign
        if method not in METHODS:
            raise ModelUnusableError(f"config.json: unknown quantisation {method!r}")


def _check_entry(entry: object) -> None:
    is_known = (
        isinstance(entry, dict)
        and entry.get("mode", "affine") in MODES
        and entry.get("bits") in BITS
        and entry.get("group_size") in GROUP_SIZES
    )
    if not is_known:
        facts = entry
        if isinstance(entry, dict):
            facts = {key: entry[key] for key in ("mode", "bits", "group_size") if key in entry}
        raise ModelUnusableError(f"config.json: unknown quantisation {facts}")


def _weight_names(path: Path) -> list[str]:
    """Return the names of the files that mlx-lm would read, which are all that match.

    :raises ModelUnusableError: there are none, or a part of several is missing.
    """
    names = sorted(file.name for file in path.glob(WEIGHTS))
    if not names:
        raise ModelUnusableError("model.safetensors: missing")
    for part in filter(None, map(SHARD.fullmatch, names)):
        numbers = range(1, min(int(part["count"]), MAX_SHARDS) + 1)
        parts = (f"{part['stem']}-{number:05}-of-{part['count']}.safetensors" for number in numbers)
        if missing := next((one for one in parts if one not in names), None):
            raise ModelUnusableError(f"{missing}: missing")
    return names


def _tensors(path: Path, names: list[str]) -> tuple[Tensor, ...]:
    """Return the tensors of all weight files.

    :raises ModelUnusableError: a file is damaged or cut off, or there are no tensors.
    """
    tensors = tuple(tensor for name in names for tensor in read_tensors(path / name))
    if not tensors:
        raise ModelUnusableError(f"{names[0]}: holds no tensors")
    return tensors


def _index_warning(path: Path, names: list[str], tensors: Iterable[Tensor]) -> str | None:
    """Return how the index contradicts the files. mlx-lm does not read it, and many conversions
    keep that of the original, so this is no reason to refuse a model.
    """
    if not (path / INDEX).is_file():
        return None
    try:
        places = read_json(path / INDEX).get("weight_map")
    except ModelUnusableError as error:
        return f"its index is damaged ({error.message})"
    if not isinstance(places, dict):
        return f"its index is damaged ({INDEX}: no weight_map)"
    if missing := {str(name) for name in places.values()}.difference(names):
        return f"its index names files that are not here, such as {min(missing)[:MAX_NAME_CHARS]}"
    if absent := places.keys() - {tensor.name for tensor in tensors}:
        return f"its index names {len(absent)} tensors that no file has"
    return None
