"""Long texts in pieces that the library can split into words without overflowing the stack.

llama.cpp splits the text of BPE vocabularies with ``std::regex``, which recurses once for each
character of a match: on a stack of 8 MiB, 60,000 letters, spaces or signs in a row end the process
with most kinds of ``tokenizer.ggml.pre`` (20,000 do not). So it gets no more than
:data:`MAX_CHARS` at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_CHARS = 8192

# Where every kind of splitting begins a new word: between a letter and a space before another
# letter, a line break, or a sign of East Asian scripts. So the tokens are those of the whole text.
_BOUNDARY = re.compile(
    r"(?<=[^\W\d_])(?= [^\W\d_]|[\r\n]|[\u3001\u3002\uff0c\uff01\uff1f\uff1b\uff1a])"
)


def split_text(text: str) -> Iterator[str]:
    """Yield ``text`` in pieces of at most :data:`MAX_CHARS` characters, cut where words are cut. A
    run without such a place is cut anywhere, so its tokens may differ from those of the whole.
    """
    start = 0
    while len(text) - start > MAX_CHARS:
        end = start + MAX_CHARS
        cut = max(
            (found.start() for found in _BOUNDARY.finditer(text, start + 1, end)), default=end
        )
        yield text[start:cut]
        start = cut
    yield text[start:]
