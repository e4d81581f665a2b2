"""What every surface does."""

from __future__ import annotations

from lmx_kernel.testing.conformance.surface import Ask, SurfaceConformance
from lmx_kernel.testing.stub_kernel import MODEL


class TestAnthropic(SurfaceConformance):
    module = "lmx_anthropic_api.plugin"
    heavy = frozenset({"anthropic"})
    own_words = frozenset({"context_length_exceeded"})

    def asks(self, text):
        messages = [{"role": "user", "content": text}]
        body = {"model": MODEL, "max_tokens": 100, "messages": messages}
        return [
            Ask("/v1/messages", body),
            Ask("/v1/messages", body | {"stream": True}, streams=True),
        ]
