"""What every surface does."""

from __future__ import annotations

from lmx_kernel.testing.conformance.surface import Ask, SurfaceConformance
from lmx_kernel.testing.stub_kernel import MODEL


class TestOpenAI(SurfaceConformance):
    module = "lmx_openai_api.plugin"
    heavy = frozenset({"openai"})

    def asks(self, text):
        chat = {"model": MODEL, "messages": [{"role": "user", "content": text}]}
        whole = {"model": MODEL, "prompt": text}
        return [
            Ask(f"/v1/{path}", body | more, streams=bool(more))
            for path, body in (("chat/completions", chat), ("completions", whole))
            for more in ({}, {"stream": True})
        ]
