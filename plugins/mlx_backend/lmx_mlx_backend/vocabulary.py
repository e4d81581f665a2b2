"""The vocabulary of a model, to compare it with another's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from lmx_kernel.errors import ModelUnusableError
from lmx_mlx_backend.folder import MAX_TOKENIZER_BYTES, read_json


class VocabularyReader:
    """Reads in a child process, see :mod:`lmx_kernel.models.reader`."""

    def read(self, path: Path) -> str:
        """Return a digest of the texts of all tokens in a folder's ``tokenizer.json``, from which
        their bytes follow.

        :raises ModelUnusableError: it is missing or damaged.
        """
        data = read_json(path / "tokenizer.json", MAX_TOKENIZER_BYTES)
        try:
            texts = _texts(data)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ModelUnusableError("tokenizer.json: its vocabulary cannot be read") from error
        text = json.dumps([data["model"].get("type"), sorted(texts.items())])
        return hashlib.blake2b(text.encode(errors="replace"), digest_size=16).hexdigest()


def _texts(data: dict[str, Any]) -> dict[int, str]:
    """Return the texts by token; the format is that of the library ``tokenizers``."""
    vocabulary = data["model"]["vocab"]
    if isinstance(vocabulary, dict):
        texts = {int(token): text for text, token in vocabulary.items()}
    else:
        texts = {token: str(text) for token, (text, _) in enumerate(vocabulary)}
    return texts | {int(one["id"]): one["content"] for one in data.get("added_tokens") or ()}
