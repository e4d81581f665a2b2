"""A small vocabulary, a chat format, and a driver of masks for the tests."""

from __future__ import annotations

import json
import random
import re
from array import array

from lmx_kernel.text.formats import CallSyntax, PlainFormat
from lmx_kernel.types import ChatPrompt, Constraint, GenerationRequest, Message, TextPart, Tool

WORDS = [b"</think>", b"<tool_call>", b"true", b'{"', b'": ', b'", "', b"\n\n", b"hello", b"12"]
CONTROLS = [b"<end>", b"<begin>", b"<call>", b"</call>"]
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "side": {"enum": ["left", "right"]}},
    "required": ["x", "side"],
    "additionalProperties": False,
}


class Tokenizer:
    """Bytes, a few words and a few control tokens."""

    token_bytes = (*(bytes([n]) for n in range(256)), *WORDS, *CONTROLS)
    special_ids = frozenset(range(256 + len(WORDS), 256 + len(WORDS) + len(CONTROLS)))
    end_ids = frozenset({256 + len(WORDS)})
    chat_template = ""

    def encode(self, text, *, add_special=False, parse_special=False):
        found = re.findall(b"|".join([*map(re.escape, WORDS), b"(?s:.)"]), text.encode())
        return [self.token_bytes.index(piece) for piece in found if piece in self.token_bytes]


TOKENIZER = Tokenizer()
END = min(TOKENIZER.end_ids)
CALL = TOKENIZER.token_bytes.index(b"<call>")


class Format(PlainFormat):
    """Calls and thoughts as a test wants them."""

    name = "tested"

    def __init__(self, thought=None, marks=("<tool_call>", "</tool_call>"), header=""):
        self._thought, self._marks, self._header = thought, marks, header

    def header(self, prompt):
        return self._header

    def thought(self, prompt):
        return self._thought

    def calls(self, tools, *, parallel):
        opening, closing = self._marks
        rules = [
            "calls: call+" if parallel else "calls: call",
            f'call: "{opening}" "\\n" body "\\n" "{closing}"',
            "body: " + " | ".join(map(call_body, tools)),
        ]
        return CallSyntax(triggers=(opening,), grammar="\n".join(rules))


def call_body(tool):
    name, schema = (
        json.dumps(f'{{"name": "{tool.name}", "arguments": '),
        json.dumps(tool.parameters),
    )
    return f'{name} %json {schema} "}}"'


def request(**fields):
    tools = fields.pop("tools", ())
    prompt = ChatPrompt((Message("user", (TextPart("hi"),)),), tools=tools)
    return GenerationRequest(model="m", prompt=prompt, **fields)


def schema_of(schema):
    return Constraint("json_schema", json.dumps(schema))


def tool(parameters=POINT, **fields):
    return Tool(name="move", parameters=parameters, **fields)


def allowed(mask):
    """Return the tokens that a mask lets pass."""
    row = array("i", bytes(4 * -(-len(TOKENIZER.token_bytes) // 32)))
    if not mask.fill(row):
        return set(range(len(TOKENIZER.token_bytes)))
    return {n for n in range(len(TOKENIZER.token_bytes)) if row[n // 32] >> n % 32 & 1}


def said(tokens):
    return b"".join(TOKENIZER.token_bytes[token] for token in tokens if token != END).decode()


def say(mask, text):
    """Say ``text``, which must be allowed, and return its tokens."""
    tokens = TOKENIZER.encode(text) if isinstance(text, str) else text
    for token in tokens:
        assert token in allowed(mask), (said([token]), said(tokens))
        mask.accept([token])
    return tokens


def may_say(mask, text):
    return TOKENIZER.encode(text)[0] in allowed(mask)


def ramble(mask, seed=0, most=2000):
    """Say anything that is allowed until nothing is; return the tokens."""
    dice = random.Random(seed)
    tokens = []
    while not mask.is_complete and len(tokens) < most:
        ends = [*TOKENIZER.encode('"}],'), END]
        choice = sorted(allowed(mask))
        near = [token for token in choice if token in ends] or choice
        token = dice.choice(near if dice.random() < 0.3 else choice)
        mask.accept([token])
        assert not mask.problem
        tokens.append(token)
        if token == END:
            break
    return tokens
