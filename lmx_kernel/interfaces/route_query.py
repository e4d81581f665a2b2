"""A request that is not made: what routing looks at, and nothing else."""

from __future__ import annotations

from typing import Annotated

from attrs import field, frozen
from msgspec import Meta

from lmx_kernel.interfaces.surface import HttpRequest
from lmx_kernel.types import ChatPrompt, Constraint, GenerationRequest, Message, TextPart, Tool


@frozen(kw_only=True)
class RouteQuery:
    """A chat request as a client would send it, to ask where it would go.

    :ivar model: the name that it would ask for.
    :ivar prompt: its last user message.
    :ivar system: a system message before it.
    :ivar tools: as if there were tools to call.
    :ivar structured: as if the answer had to be JSON.
    :ivar key: the name of the API key that it would come with.
    :ivar headers: the HTTP headers that it would come with.
    """

    model: Annotated[str, Meta(min_length=1, max_length=512)]
    prompt: str
    system: str = ""
    tools: bool = False
    structured: bool = False
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    key: str = ""
    headers: dict[str, str] = field(factory=dict)

    def request(self) -> GenerationRequest:
        """Return the request that this stands for."""
        texts = (("system", self.system), ("user", self.prompt))
        turns = tuple(Message(role, (TextPart(text),)) for role, text in texts)
        return GenerationRequest(
            model=self.model,
            prompt=ChatPrompt(
                turns if self.system else turns[1:], (Tool(name="any"),) if self.tools else ()
            ),
            max_tokens=self.max_tokens,
            constraint=Constraint("json_object") if self.structured else None,
        )

    def caller(self) -> HttpRequest:
        """Return the HTTP request that it would come with."""
        headers = {name.lower(): value for name, value in self.headers.items()}
        return HttpRequest(method="POST", path="", headers=headers, client="", key=self.key)
