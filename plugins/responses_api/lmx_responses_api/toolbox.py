"""The tools of a request: as the model has them, and as the client does.

The model knows functions with one name each. Clients also have tools in namespaces, and custom ones
that take free text: for the model a custom tool is a function with the one argument ``input``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal

from attrs import define, field, frozen
from msgspec import Meta

from lmx_kernel.dialect.fields import FunctionName, JsonObject
from lmx_kernel.dialect.json_values import check_json
from lmx_kernel.errors import InvalidRequestError, UnsupportedFieldError
from lmx_kernel.types import Tool
from lmx_responses_api.query import convert

INPUT = "input"  # the argument of a custom tool
HOSTED = frozenset(
    {"code_interpreter", "computer", "computer_use_preview", "file_search", "image_generation"}
    | {"mcp"}
)
"""Types of tools that only OpenAI's servers have. ``web_search`` is not among them: an agent sends
it with every request, unasked, and must not fail for it."""


@frozen(kw_only=True)
class FunctionTool:
    """A function. ``parameters`` is the JSON schema of its arguments."""

    name: FunctionName
    description: str | None = None
    parameters: JsonObject | None = None
    strict: bool | None = None


@frozen(kw_only=True)
class InputFormat:
    """What the input of a custom tool must look like."""

    type: Literal["text", "grammar"] = "text"
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


@frozen(kw_only=True)
class CustomTool:
    """A tool that takes free text, or text of a grammar."""

    name: FunctionName
    description: str | None = None
    format: InputFormat | None = None


@frozen(kw_only=True)
class Namespace:
    """Tools that belong together; their names need not differ from those of other tools."""

    name: FunctionName
    tools: Annotated[list[JsonObject], Meta(max_length=1024)]


@frozen(kw_only=True)
class OfferedTool:
    """A tool of the client.

    :ivar path: the field that has it, for errors.
    """

    path: str
    name: str
    namespace: str | None
    given: FunctionTool | CustomTool

    @property
    def is_custom(self) -> bool:
        """Whether it takes free text."""
        return isinstance(self.given, CustomTool)

    @property
    def grammar(self) -> str | None:
        """The Lark grammar of its input; None if it has none."""
        given = self.given.format if isinstance(self.given, CustomTool) else None
        return given.definition if given and given.syntax == "lark" else None


@define
class Toolbox:
    """The tools that the model may call.

    :ivar tools: as the model has them.
    :ivar left_out: types of tools that the client offers and LMX does not have.
    """

    tools: tuple[Tool, ...]
    left_out: frozenset[str]
    _by_name: dict[str, OfferedTool] = field(repr=False)

    @classmethod
    def of(cls, given: Sequence[JsonObject] | None) -> Toolbox:
        """Return the tools of a request.

        :raises InvalidRequestError: naming the field that is wrong.
        :raises UnsupportedFieldError: naming the tool that LMX does not have.
        """
        left_out: set[str] = set()
        offered = list(_offered("tools", given or (), None, left_out))
        uses = Counter(tool.name for tool in offered)
        by_name: dict[str, OfferedTool] = {}
        for tool in offered:
            is_shared = tool.namespace is not None and uses[tool.name] > 1
            name = f"{tool.namespace}__{tool.name}" if is_shared else tool.name
            if name in by_name:
                path = f"{tool.path}.name"
                raise InvalidRequestError(f"{path}: another tool has this name", param=path)
            by_name[name] = tool
        tools = tuple(_for_model(name, tool) for name, tool in by_name.items())
        return cls(tools, frozenset(left_out), by_name)

    def called(self, name: str) -> OfferedTool | None:
        """Return the client's tool that the model calls by ``name``; None if it invented it."""
        return self._by_name.get(name)

    def model_name(self, name: str, namespace: str | None = None) -> str | None:
        """Return what the model calls a tool of the client; None if it is not offered.

        :param namespace: None also finds a tool of any namespace, if its name is unique.
        """
        for model_name, tool in self._by_name.items():
            if tool.name == name and tool.namespace == namespace:
                return model_name
        if namespace is None and name in self._by_name:
            return name
        return None


def _offered(
    where: str, given: Iterable[JsonObject], namespace: str | None, left_out: set[str]
) -> Iterator[OfferedTool]:
    for index, item in enumerate(given):
        path = f"{where}[{index}]"
        kind = item.get("type")
        if not isinstance(kind, str):
            raise InvalidRequestError(f"{path}.type: this field is required", param=f"{path}.type")
        if kind in HOSTED:
            raise UnsupportedFieldError(
                f"{path}.type: {kind} is not supported", param=f"{path}.type"
            )
        check_json(path, item)
        if kind in ("function", "custom"):
            cls: Any = FunctionTool if kind == "function" else CustomTool
            tool = convert(path, item, cls)
            yield OfferedTool(path=path, name=tool.name, namespace=namespace, given=tool)
        elif kind == "namespace" and namespace is None:
            space = convert(path, item, Namespace)
            yield from _offered(f"{path}.tools", space.tools, space.name, left_out)
        else:
            left_out.add(kind[:64])


def _for_model(name: str, tool: OfferedTool) -> Tool:
    given = tool.given
    if isinstance(given, FunctionTool):
        return Tool(
            name=name,
            description=given.description or "",
            parameters=given.parameters or {},
            strict=bool(given.strict),
        )
    text: JsonObject = {"type": "string"}
    description = given.description or ""
    if given.format and given.format.type == "grammar":
        syntax, definition = _grammar(f"{tool.path}.format", given.format)
        description += f"\n\nThe input must match this grammar ({syntax}):\n{definition}"
        if syntax == "regex":
            text["pattern"] = f"^(?:{definition})$"
    schema = {
        "type": "object",
        "properties": {INPUT: text},
        "required": [INPUT],
        "additionalProperties": False,
    }
    return Tool(name=name, description=description.strip(), parameters=schema)


def _grammar(where: str, given: InputFormat) -> tuple[str, str]:
    if given.syntax is None or given.definition is None:
        missing = f"{where}.{'definition' if given.syntax else 'syntax'}"
        raise InvalidRequestError(f"{missing}: this field is required", param=missing)
    return given.syntax, given.definition
