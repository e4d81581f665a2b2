"""What each filter, test and comparison of a chat template costs, paid for before it runs.

They loop in C or in Python without coming back to the template's own code, so a loop over a long
list that compares each item with another long list could not be stopped. Each is of a known kind,
by its name; a filter or test that is of no kind does not exist for templates.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps
from types import GeneratorType
from typing import Any

from lmx_kernel.text.meter import STEPS_OF_ITEM, charge, charge_text, spend, steps_of, work

CONSTANT_FILTERS = frozenset(
    ("abs", "attr", "count", "d", "default", "first", "items", "last", "length", "safe")
)
TEXT_FILTERS = frozenset(
    {
        *(
            "capitalize",
            "e",
            "escape",
            "filesizeformat",
            "float",
            "forceescape",
            "format",
            "indent",
        ),
        *("int", "lower", "replace", "round", "string", "title", "tojson", "trim", "truncate"),
        *("upper", "urlencode", "wordcount"),
    }
)
"""They read a text once, or write what they are given as one."""
LIST_FILTERS = frozenset(
    ("join", "list", "map", "reject", "rejectattr", "reverse", "select", "selectattr", "sum")
)
"""They go through a list once, and call others for its items."""
ORDER_FILTERS = frozenset(("dictsort", "groupby", "max", "min", "sort", "unique"))
"""They compare the items of a list with each other."""
FORBIDDEN_FILTERS = frozenset(
    {
        *("batch", "center", "pprint", "random", "slice", "striptags", "urlize", "wordwrap"),
        "xmlattr",
    }
)
"""These make long texts out of short ones, or take long for them; no chat template needs them."""

CONSTANT_TESTS = frozenset(
    {
        *("boolean", "callable", "defined", "divisibleby", "escaped", "even", "false", "filter"),
        *("float", "integer", "iterable", "mapping", "none", "number", "odd", "sameas", "sequence"),
        *("string", "test", "true", "undefined"),
    }
)
COMPARING_TESTS = frozenset(
    {
        *("!=", "<", "<=", "==", ">", ">=", "eq", "equalto", "ge", "greaterthan", "gt", "in", "le"),
        *("lessthan", "lower", "lt", "ne", "upper"),
    }
)

PRODUCT_METHODS = frozenset(
    ("strip", "lstrip", "rstrip", "rfind", "rindex", "rsplit", "rpartition", "trim")
)
"""Of texts: these may compare each character with each of the argument."""

OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "lteq": operator.le,
    "gt": operator.gt,
    "gteq": operator.ge,
    "in": lambda left, right: left in right,
    "notin": lambda left, right: left not in right,
}

_Function = Callable[..., Any]


def metered_filters(filters: Mapping[str, _Function]) -> dict[str, _Function]:
    """Return the filters that templates may use; each pays for what it does and makes."""
    payments = {
        **dict.fromkeys(CONSTANT_FILTERS, _pay_nothing),
        **dict.fromkeys(TEXT_FILTERS, _pay_text),
        **dict.fromkeys(LIST_FILTERS, _pay_list),
        **dict.fromkeys(ORDER_FILTERS, _pay_order),
        "trim": _pay_product,
    }
    return {
        name: _paying(function, payments[name])
        for name, function in filters.items()
        if name in payments
    }


def metered_tests(tests: Mapping[str, _Function]) -> dict[str, _Function]:
    """Return the tests that templates may use; those that compare pay for it."""
    return {
        name: _paying(function, _pay_comparison) if name in COMPARING_TESTS else function
        for name, function in tests.items()
        if name in CONSTANT_TESTS | COMPARING_TESTS
    }


def compare(left: Any, *rest: Any) -> Any:
    """Compare as Python does, each pair paid for.

    :param rest: the names of operators, each followed by what is right of it.
    """
    result = True
    for name, right in zip(rest[::2], rest[1::2], strict=True):
        _pay_comparison((left, right))
        result = OPERATORS[name](left, right)
        if not result:
            break
        left = right
    return result


def pay_call(function: _Function, args: Iterable[Any]) -> None:
    """Pay for a call of a method of a text, a list or a dictionary."""
    owner, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
    for one in args:
        if isinstance(owner, str) and isinstance(one, str):
            product = len(one) if name in PRODUCT_METHODS else 1
            work(len(owner) * product)
        elif isinstance(owner, str) and name == "format":
            charge_text(one)
        elif isinstance(owner, list | tuple | range):
            _pay_comparison((one, owner))
        elif isinstance(one, list | tuple):
            work(steps_of(one))


def pay_key(key: Any) -> Any:
    """Pay for the hash of a key, and return the key."""
    if isinstance(key, tuple):
        work(steps_of(key))
    return key


def _paying(function: _Function, pay: Callable[[tuple[Any, ...]], None]) -> _Function:
    """Return ``function`` so that what it does and what it returns is paid for."""
    passes = 1 if hasattr(function, "jinja_pass_arg") else 0

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        given = (*args[passes:], *kwargs.values())
        pay(given)
        steps = STEPS_OF_ITEM + _names_chars(given)
        args = tuple(_ticking(one, steps) for one in args)
        result = function(*args, **kwargs)
        return _ticking(result, steps) if isinstance(result, GeneratorType) else spend(result)

    return wrapper


def _ticking(value: Any, steps: int) -> Any:
    """Return a generator so that each of its items is paid for; anything else as it is."""
    return _tick_each(value, steps) if isinstance(value, GeneratorType) else value


def _tick_each(items: Iterable[Any], steps: int) -> Iterator[Any]:
    for item in items:
        charge(1)
        work(steps)
        yield item


def _names_chars(given: tuple[Any, ...]) -> int:
    """Return the length of the texts beside the first: a path of attributes is walked each time."""
    return sum(len(one) for one in given[1:] if isinstance(one, str))


def _items(value: Any) -> int:
    return len(value) if hasattr(value, "__len__") else 1


def _pay_nothing(given: tuple[Any, ...]) -> None:
    work(1)


def _pay_text(given: tuple[Any, ...]) -> None:
    for one in given:
        work(_items(one) if isinstance(one, str) else 1)
        charge_text(one)


def _pay_product(given: tuple[Any, ...]) -> None:
    _pay_text(given)
    work(_items(given[0]) * _names_chars(given) if isinstance(given[0], str) else 1)


def _pay_list(given: tuple[Any, ...]) -> None:
    work(_items(given[0]) * (STEPS_OF_ITEM + _names_chars(given)))


def _pay_order(given: tuple[Any, ...]) -> None:
    _pay_list(given)
    work(steps_of(given[0]) * _items(given[0]).bit_length())


def _pay_comparison(given: tuple[Any, ...]) -> None:
    left, right = (*given, None)[:2]
    if isinstance(left, str) and isinstance(right, str):
        work(1 + max(len(left), len(right)))
    elif isinstance(right, list | tuple | range):
        each = steps_of(left) if isinstance(left, str | list | tuple | dict) else STEPS_OF_ITEM
        work(each + STEPS_OF_ITEM * len(right) + _deep(left, right, each))
    elif isinstance(left, list | tuple | dict):
        work(steps_of(left))
    else:
        work(1)


def _deep(left: Any, right: Any, each: int) -> int:
    """Return what comparing ``left`` with the items of ``right`` costs beside looking at them."""
    if isinstance(left, str):
        return each * sum(1 for one in right if isinstance(one, str) and len(one) == len(left))
    if isinstance(left, list | tuple | dict):
        return each + steps_of(right)
    return 0
