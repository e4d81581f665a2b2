"""What every chat format does, for each family that writes arguments as JSON."""

# ruff: noqa: RUF001 - a family uses signs that look like others
from __future__ import annotations

import json

from lmx_kernel.testing.conformance.format import FormatConformance

THINKING = "<think>I think.</think>"


class TestHermes(FormatConformance):
    entry = "hermes"
    template = "{{ tools }}<tool_call><think>"
    thought = THINKING

    def write(self, name, arguments):
        call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
        return f"<tool_call>\n{call}\n</tool_call>"


class TestGeneric(TestHermes):
    entry = "generic"
    template = "<|im_start|>"
    is_fallback = True


class TestMistral(FormatConformance):
    entry = "mistral"
    template = "[TOOL_CALLS][ARGS][THINK]"
    thought = "[THINK]I think.[/THINK]"

    def write(self, name, arguments):
        return f"[TOOL_CALLS]{name}[ARGS]{json.dumps(arguments, ensure_ascii=False)}"


class TestDeepSeek(FormatConformance):
    entry = "deepseek"
    template = "<｜tool▁calls▁begin｜></think>"
    thought = THINKING

    def write(self, name, arguments):
        return self.write_all([(name, arguments)])

    def write_all(self, calls):
        written = [
            f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>"
            f"{json.dumps(arguments, ensure_ascii=False)}<｜tool▁call▁end｜>"
            for name, arguments in calls
        ]
        return f"<｜tool▁calls▁begin｜>{''.join(written)}<｜tool▁calls▁end｜>"
