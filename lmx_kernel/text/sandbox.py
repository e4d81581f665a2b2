"""Where chat templates run: foreign code, which may only read what it is given, and not for long.

jinja2's immutable sandbox keeps a template from everything that is not data. What is added here is
a meter (:mod:`lmx_kernel.text.meter`): whatever a template makes is paid for by its size, and so is
each iteration of a loop; what filters, tests and comparisons do is paid for before they run
(:mod:`lmx_kernel.text.costs`). So a template that multiplies texts or loops for ever is stopped
wherever it is, without a thread or a process of its own. Rendering 100 messages takes 4 ms.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, TypeVar

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.filters import do_round
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from lmx_kernel.text.costs import (
    compare,
    metered_filters,
    metered_tests,
    pay_call,
    pay_key,
)
from lmx_kernel.text.meter import (
    ITEM_BYTES,
    ExhaustedError,
    charge,
    charge_text,
    metered,
    spend,
    weigh,
)

MAX_OUTPUT_CHARS = 4 * 1024 * 1024
MAX_SOURCE_CHARS = 1024 * 1024
MAX_NUMBER_BITS = 4096
MAX_WIDTH = 9999
MAX_INDENT = MAX_DIGITS = 64

# These make long texts out of short ones, and no chat template needs them.
FORBIDDEN_METHODS = frozenset(
    {
        *("center", "encode", "expandtabs", "format_map", "ljust", "rjust", "translate", "zfill"),
        "to_bytes",
    }
)
FORBIDDEN_GLOBALS = frozenset({"cycler", "joiner", "lipsum"})
SPLITTING_METHODS = frozenset({"rsplit", "split", "splitlines"})
SPLIT_BYTES = 64
WIDE = re.compile(r"\d{5}")
NESTED = re.compile(r"\{[^{}:]*:[^{}]*\{")


class RefusalError(Exception):
    """A template called ``raise_exception``."""


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment, with the filters and functions that templates are written for."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, _Generation],
            finalize=_finalized,
        )
        for name in FORBIDDEN_GLOBALS:
            del self.globals[name]
        self.filters |= {"join": _join, "replace": _replace, "sum": _sum, "tojson": _tojson}
        self.filters |= {"indent": _indent, "format": _format, "round": _round}
        self.filters = metered_filters(self.filters)
        self.tests = metered_tests(dict(self.tests))  # type: ignore[assignment, arg-type]
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self.globals["namespace"] = _Namespace

    def compiled(self, source: str) -> jinja2.Template:
        """Compile a template.

        :raises Exception: the source is no template. Of any class, since jinja2's compiler was not
            made for foreign code.
        """
        if len(source) > MAX_SOURCE_CHARS:
            raise ExhaustedError("it is too long")
        with metered():
            tree = _Meters().visit(self.parse(source))
            return self.from_string(tree)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator to values, if its result is not too large."""
        if operator == "*":
            charge(_product_bytes(left, right) + _product_bytes(right, left))
            _check_number(left, right, bits=_bits(left) + _bits(right))
        elif operator == "**" and isinstance(right, int):
            _check_number(left, right, bits=_bits(left) * abs(right))
        elif operator == "%" and isinstance(left, str):
            charge_text(right)
            _check_format(left, right if isinstance(right, tuple) else ())
        return spend(super().call_binop(context, operator, left, right))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """Call a function or a method, if its result is not too large."""
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            if name == "join" and args:
                return _join(args[0], owner)
            if name == "replace":
                _check_replace(owner, *args[:2])
            if name in SPLITTING_METHODS:
                _check_split(owner, *args[:1])
        pay_call(__obj, (*args, *kwargs.values()))
        result = super().call(__context, __obj, *args, **kwargs)
        return weigh(result) if isinstance(result, dict) else spend(result)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Return whether a template may read an attribute."""
        if isinstance(obj, str | int) and attr in FORBIDDEN_METHODS:
            return False
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return ``str.format`` as a template may call it."""
        wrapped = super().wrap_str_format(value)
        if wrapped is not None:
            _check_format(value.__self__)
            if NESTED.search(value.__self__):
                raise ExhaustedError("it formats too wide")
        return wrapped

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an item or an attribute."""
        return super().getitem(obj, pay_key(argument))

    # Calls that _Meters puts into compiled templates.

    def tick(self, chars: int) -> str:
        """Pay for an iteration of a loop, or a call of a macro, with ``chars`` of text in it."""
        charge(1 + chars)
        return ""

    def passes(self) -> bool:
        """Pay for an item of a loop that may be left out."""
        charge(1)
        return True

    def compare(self, left: Any, *rest: Any) -> Any:
        """Compare values."""
        return compare(left, *rest)

    def key(self, value: Any) -> Any:
        """Pay for the hash of a key."""
        return pay_key(value)

    def spend(self, value: Any) -> Any:
        """Pay for a value."""
        return spend(value)

    def weigh(self, value: Any) -> Any:
        """Pay for a list or dictionary and all that is in it."""
        return weigh(value)

    def chain(self, *parts: Any) -> str:
        """Join texts."""
        return _join(parts)


def render(template: jinja2.Template, names: Mapping[str, Any]) -> str:
    """Return what a template writes. What it costs is limited where :func:`metered` is in force.

    :raises RefusalError: it refuses what it was given.
    :raises ExhaustedError: it took too long, or made too much.
    :raises Exception: it failed in any other way.
    """
    kept, size = [], 0
    for piece in template.generate(names):
        size += len(piece)
        if size > MAX_OUTPUT_CHARS:
            raise ExhaustedError("it writes without end")
        kept.append(piece)
    return "".join(kept)


_Looping = TypeVar("_Looping", nodes.For, nodes.Macro, nodes.CallBlock)


class _Meters(NodeTransformer):
    """Puts the meter into a template's code."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - jinja2's convention
        node = self._ticking(node)
        if node.test is not None:
            node.test = nodes.And(_call("passes", lineno=node.lineno), node.test)
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.expr, nodes.Const) and len(node.ops) == 1:
            return node  # it takes one look at what is on the other side
        parts = [part for one in node.ops for part in (nodes.Const(one.op), one.expr)]
        if len(node.ops) == 1 and isinstance(parts[1], nodes.Const) and node.ops[0].op != "in":
            return node
        return _call("compare", node.expr, *parts, lineno=node.lineno)

    def visit_Pair(self, node: nodes.Pair) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if not isinstance(node.key, nodes.Const):
            node.key = _call("key", node.key, lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:  # noqa: N802
        return self._ticking(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:  # noqa: N802
        return self._ticking(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Call:  # noqa: N802
        self.generic_visit(node)
        return _call("chain", *node.nodes, lineno=node.lineno)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        is_copy = isinstance(node.arg, nodes.Slice)
        return _call("spend", node, lineno=node.lineno) if is_copy else node

    def visit_List(self, node: nodes.List) -> nodes.Call:  # noqa: N802
        return self._weighed(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Call:  # noqa: N802
        return self._weighed(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        return self._weighed(node) if node.ctx == "load" else self.generic_visit(node)

    def _ticking(self, node: _Looping) -> _Looping:
        chars = sum(len(data.data) for data in node.find_all(nodes.TemplateData))
        self.generic_visit(node)
        tick = _call("tick", nodes.Const(chars), lineno=node.lineno)
        node.body.insert(0, nodes.ExprStmt(tick, lineno=node.lineno))
        return node

    def _weighed(self, node: nodes.Expr) -> nodes.Call:
        self.generic_visit(node)
        return _call("weigh", node, lineno=node.lineno)


def _call(name: str, *args: nodes.Expr, lineno: int) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None, lineno=lineno)


class _Namespace(Namespace):
    """A namespace of a template; it does not print what it holds, which may be itself."""

    def __repr__(self) -> str:
        return "namespace"


class _Generation(Extension):
    """The tag that marks assistant text for training; here its body is just text."""

    tags = {"generation"}  # noqa: RUF012 - the base class wants a set

    def parse(self, parser: jinja2.parser.Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


# --- sizes and bounds ----------------------------------------------------------------------------


def _product_bytes(value: Any, times: Any) -> int:
    if not isinstance(times, int):
        return 0
    if isinstance(value, str | bytes):
        return len(value) * max(0, times)
    return ITEM_BYTES * len(value) * max(0, times) if isinstance(value, list | tuple) else 0


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _check_number(left: Any, right: Any, bits: int) -> None:
    if isinstance(left, int) and isinstance(right, int) and bits > MAX_NUMBER_BITS:
        raise ExhaustedError("it counts too high")


def _check_format(text: str, values: Sequence[Any] = ()) -> None:
    """Check the widths in a format, and those that ``*`` may take from the values."""
    is_wide = any(isinstance(value, int) and value > MAX_WIDTH for value in values)
    if WIDE.search(text) or ("*" in text and is_wide):
        raise ExhaustedError("it formats too wide")


def _check_split(text: str, separator: object = None) -> None:
    """Pay for the list of what lies between separators."""
    pieces = text.count(separator) if isinstance(separator, str) and separator else len(text) // 4
    charge(SPLIT_BYTES * pieces)


def _check_replace(text: str, old: object, new: object = "") -> None:
    if isinstance(old, str) and isinstance(new, str):
        charge(text.count(old) * len(new))


def _finalized(value: Any) -> Any:
    charge_text(value)
    return spend(value)


# --- filters and functions ------------------------------------------------------------------------


def _join(parts: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    texts = []
    for part in parts:
        value = part if attribute is None else _member(part, attribute)
        charge_text(value)
        texts.append(str(value))
        charge(1 + len(texts[-1]) + len(separator))
    return separator.join(texts)


def _member(value: Any, attribute: str) -> Any:
    return value.get(attribute, "") if isinstance(value, Mapping) else ""


def _replace(text: object, old: str, new: str, count: int = -1) -> str:
    _check_replace(str(text), old, new)
    return str(text).replace(old, new, count)


def _sum(values: Iterable[Any], attribute: str | None = None, start: float = 0) -> Any:
    if not isinstance(start, int | float):
        raise TypeError("sum adds numbers")
    return sum(
        (value if attribute is None else _member(value, attribute) for value in values), start
    )


def _round(value: float, precision: int = 0, method: Any = "common") -> Any:
    if abs(precision) > MAX_DIGITS:
        raise ExhaustedError("it counts too high")
    return do_round(value, precision, method)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if indent is not None and not 0 <= indent <= MAX_INDENT:
        raise ExhaustedError("it indents too far")
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _indent(text: str, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    space = width if isinstance(width, str) else " " * min(width, MAX_INDENT)
    lines = str(text).split("\n")
    charge(len(lines) * (len(space) + ITEM_BYTES))
    head = [space + lines[0] if first else lines[0]]
    return "\n".join(head + [space + line if line or blank else line for line in lines[1:]])


def _format(text: object, *args: Any, **kwargs: Any) -> str:
    _check_format(str(text), args)
    return str(text) % (kwargs or args)


def _raise_exception(message: str) -> NoReturn:
    raise RefusalError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().astimezone().strftime(form)
