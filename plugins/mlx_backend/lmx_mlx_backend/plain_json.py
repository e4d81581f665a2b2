"""JSON files as mlx-lm and the tokenizer's library read them: UTF-8 without a byte order mark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

MARK_BYTES = 4
"""The longest byte order mark is that of UTF-32."""


@contextmanager
def plain_json(folder: Path) -> Iterator[Path]:
    """Give ``folder``; or, if one of its JSON files has a byte order mark or another encoding than
    UTF-8, a folder with plain copies of these and with links to all other files.
    """
    marked = {file.name for file in folder.glob("*.json") if _is_marked(file)}
    if not marked:
        yield folder
        return
    with TemporaryDirectory(prefix="lmx-") as name:
        plain = Path(name)
        for file in folder.iterdir():
            if file.name in marked:
                data = file.read_bytes()
                text = data.decode(json.detect_encoding(data), errors="surrogatepass")
                (plain / file.name).write_text(text, encoding="utf-8", errors="surrogatepass")
            else:
                (plain / file.name).symlink_to(file.resolve())
        yield plain


def _is_marked(file: Path) -> bool:
    with file.open("rb") as data:
        return json.detect_encoding(data.read(MARK_BYTES)) != "utf-8"
