"""``tokenizer.json`` and ``tokenizer_config.json`` from a GGUF file's vocabulary.

Two kinds: "gpt2" (byte-level pair merges in the file's order) and "llama" (SentencePiece: merges
follow from the pieces' scores). Key names and token types: ``docs/gguf.md`` of ggml-org/ggml.
"""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from lmx_mlx_backend.convert.source import Source
from lmx_mlx_backend.convert.splits import SPLITS, Split

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
SPACE = "\u2581"
SPM_IDS = {"bos": 1, "eos": 2, "unknown": 0}
"""What llama.cpp takes for a "llama" vocabulary when the file does not say."""
ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
END_TEXTS = frozenset(
    {"<|eot_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|eom_id|>", "<end_of_turn>"}
)
"""Special tokens that end an answer although no key of the file names them."""


def tokenizer(source: Source) -> Tokenizer:
    """Return the file's tokenizer.

    :raises ModelUnusableError: of a kind that is not known, or its tables do not fit together.
    """
    kind = source.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        source.refuse(f"cannot convert a tokenizer of the kind {kind!r} (only gpt2, llama)")
    vocabulary = {text: i for i, text in enumerate(texts(source))}
    if len(vocabulary) != len(texts(source)):
        source.refuse("has a token twice")
    made = (
        _sentencepiece(source, vocabulary) if kind == "llama" else _byte_level(source, vocabulary)
    )
    made.add_special_tokens(_added(source, {UNKNOWN, CONTROL}, special=True))
    made.add_tokens(_added(source, {USER_DEFINED}, special=False))
    if template := _frame(source):
        made.post_processor = template
    return made


def tokenizer_config(source: Source) -> dict[str, Any]:
    """Return what transformers wants beside ``tokenizer.json``; the chat template is in it."""
    words = texts(source)
    ids = {role: token_id(source, name) for name, role in ROLES.items()}
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": source.need("context_length"),
        **{role: words[i] for role, i in ids.items() if i is not None},
    }
    if template := source.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return config


def texts(source: Source) -> list[str]:
    """Return all tokens; an empty one gets the name that llama.cpp gives it.

    :raises ModelUnusableError: the file has no vocabulary.
    """
    tokens = source.get("tokenizer.ggml.tokens")
    if not tokens:
        source.refuse("has no tokenizer.ggml.tokens")
    return [text or f"[EMPTY_{i}]" for i, text in enumerate(tokens)]


def token_id(source: Source, name: str) -> int | None:
    """Return the id of a token with a role, None if there is no such token."""
    default = SPM_IDS.get(name) if source.get("tokenizer.ggml.model") == "llama" else None
    value = source.get(f"tokenizer.ggml.{name}_token_id", default)
    return value if value is not None and 0 <= value < len(texts(source)) else None


def end_ids(source: Source) -> list[int]:
    """Return the tokens that end an answer; the file's end of sequence comes first."""
    named = [token_id(source, name) for name in ("eos", "eot", "eom")]
    kinds = source.get("tokenizer.ggml.token_type", ())
    guessed = [
        i
        for i, (text, kind) in enumerate(zip(texts(source), kinds, strict=False))
        if text in END_TEXTS and kind in (CONTROL, USER_DEFINED)
    ]
    return list(dict.fromkeys(i for i in [*named, *guessed] if i is not None))


# --- the two kinds


def _byte_level(source: Source, vocabulary: dict[str, int]) -> Tokenizer:
    split = _split(source)
    pairs = [tuple(merge.split(" ", 1)) for merge in source.get("tokenizer.ggml.merges", ())]
    merges = [p for p in pairs if len(p) == 2 and {*p, "".join(p)} <= vocabulary.keys()]
    made = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=split.takes_whole_words))
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split.patterns]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = pre_tokenizers.Sequence([*steps, last])
    made.decoder = decoders.ByteLevel()
    return made


def _sentencepiece(source: Source, vocabulary: dict[str, int]) -> Tokenizer:
    unknown = token_id(source, "unknown")
    made = Tokenizer(
        BPE(
            vocab=vocabulary,
            merges=_merges_by_score(source, vocabulary),
            unk_token=None if unknown is None else texts(source)[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = [normalizers.Prepend(SPACE)] if _has_space_prefix(source) else []
    made.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
    strip = [decoders.Strip(" ", 1, 0)] if prefix else []
    plain = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence([*plain, *strip])
    return made


def _merges_by_score(source: Source, vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Return every way to make a token of two others, best score of the whole first."""
    scores = source.get("tokenizer.ggml.scores") or [0.0] * len(vocabulary)
    if len(scores) < len(vocabulary):
        source.refuse("has fewer scores than tokens")
    best_first = sorted(vocabulary, key=lambda text: -scores[vocabulary[text]])
    return [
        (text[:cut], text[cut:])
        for text in best_first
        for cut in range(1, len(text))
        if text[:cut] in vocabulary and text[cut:] in vocabulary
    ]


# --- what is added around them


def _added(source: Source, kinds: set[int], *, special: bool) -> list[AddedToken]:
    types = source.get("tokenizer.ggml.token_type", ())
    return [
        AddedToken(text, special=special, normalized=False)
        for text, kind in zip(texts(source), types, strict=False)
        if kind in kinds
    ]


def _frame(source: Source) -> TemplateProcessing | None:
    """Return what puts the begin and end tokens around a text that is encoded with them."""
    is_llama = source.get("tokenizer.ggml.model") == "llama"
    starts = is_llama or _split(source).starts_with_bos
    wants = {
        "bos": source.get("tokenizer.ggml.add_bos_token", starts),
        "eos": source.get("tokenizer.ggml.add_eos_token", False),
    }
    ids = {name: token_id(source, name) for name, wanted in wants.items() if wanted}
    known = {name: (texts(source)[i], i) for name, i in ids.items() if i is not None}
    if not known:
        return None
    before, after = ([known[name][0]] if name in known else [] for name in ("bos", "eos"))
    return TemplateProcessing(
        single=[*before, "$A", *after],
        pair=[*before, "$A", *after, *before, "$B", *after],
        special_tokens=list(dict.fromkeys(known.values())),
    )


def _split(source: Source) -> Split:
    name = source.get("tokenizer.ggml.pre") or "default"
    if name not in SPLITS:
        source.refuse(f"cannot convert a tokenizer that splits texts as {name!r}")
    return SPLITS[name]


def _has_space_prefix(source: Source) -> bool:
    return bool(source.get("tokenizer.ggml.add_space_prefix", True))
