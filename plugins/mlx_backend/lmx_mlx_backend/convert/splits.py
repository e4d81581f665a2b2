"""How texts are split before byte-pair merging: what ``tokenizer.ggml.pre`` stands for. Data only.

The patterns are those of the models' own ``tokenizer.json``; which name means which is in
``llama-vocab.cpp`` of ggml-org/llama.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"\s+(?!\S)|\s+"
LINES = r"\s*[\r\n]+|" + SPACES
WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED = rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
CASED_SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n/]*"
KANJI_KANA = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|" + SPACES


def _llama3(digits: str) -> str:
    return "|".join((CONTRACTION, WORD, digits, SIGNS, LINES))


@frozen
class Split:
    """Patterns, each applied to what the one before it left.

    :ivar takes_whole_words: a piece that is a token is taken as it is, without merging.
    :ivar starts_with_bos: what is meant when the file does not say.
    """

    patterns: tuple[str, ...]
    takes_whole_words: bool = False
    starts_with_bos: bool = False


LLAMA3 = Split((_llama3(r"\p{N}{1,3}"),), takes_whole_words=True, starts_with_bos=True)
QWEN2 = Split((_llama3(r"\p{N}"),))
DIGIT_GPT2 = Split((r"\p{N}", GPT2))
PLAIN_GPT2 = Split((GPT2,))
QWEN35 = (
    CONTRACTION,
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    r"\p{N}",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    LINES,
)
GPT4O = (*(f"{word}{CONTRACTION}?" for word in CASED), r"\p{N}{1,3}", CASED_SIGNS, LINES)
TEKKEN = (*CASED, r"\p{N}", CASED_SIGNS, LINES)
DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+",
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r" ?[\p{P}\p{S}]+[\r\n]*",
    LINES,
)

SPLITS: Mapping[str, Split] = {
    "default": Split((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "midm-2.0", "pixtral"), LLAMA3),
    **dict.fromkeys(("dbrx", "smaug-bpe"), Split(LLAMA3.patterns)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "kormo", "megrez", "stablelm2"), QWEN2),
    "qwen35": Split(("|".join(QWEN35),)),
    **dict.fromkeys(("gpt-2", "mpt", "olmo", "exaone4", "gigachat", "a.x-4.0"), PLAIN_GPT2),
    **dict.fromkeys(("trillion", "granite-docling", "mellum"), PLAIN_GPT2),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "minerva-7b"), DIGIT_GPT2),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), Split(("|".join(GPT4O),))),
    "tekken": Split(("|".join(TEKKEN),), takes_whole_words=True, starts_with_bos=True),
    "deepseek-coder": Split((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}")),
    "deepseek-v3": Split((r"\p{N}{1,3}", KANJI_KANA, "|".join(DEEPSEEK3))),
    "minicpm5": Split((r"\p{N}{1,3}", _llama3(r"\p{N}+")), takes_whole_words=True),
}
