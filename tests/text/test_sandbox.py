"""Fault 12: a chat template is foreign code. It runs nothing, and it does not run for long."""

from __future__ import annotations

import time
from contextlib import suppress
from threading import Thread

import jinja2
import pytest

from lmx_kernel.errors import InvalidRequestError
from lmx_kernel.text import costs
from lmx_kernel.text.meter import MAX_RENDER_S
from lmx_kernel.text.sandbox import Sandbox, render
from lmx_kernel.text.template import ChatTemplate
from lmx_kernel.types import Message, TextPart

MESSAGES = (Message("user", (TextPart("a"),)),)
MARGIN_S = 1.0


def nested(step, start, times=50):
    """Return a template that does the same to what it has made, again and again."""
    return "{% set a = " + start + " %}" + ("{% set a = " + step + " %}") * times + "{{ a }}"


BREAKOUTS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}{{ ''['__class__']['__mro__'][1]['__subclasses__']() }}",
    "{{ ''|attr('__class__')|attr('__base__')|attr('__subclasses__')() }}",
    "{{ self._TemplateReference__context.environment.from_string('x')['__init__'].run() }}",
    "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
    "{{ namespace.__init__.__globals__.__builtins__.open('CANARY', 'w') }}",
    "{{ range.__self__.open('CANARY', 'w') }}",
    "{{ raise_exception.__globals__['json'].codecs.open('CANARY', 'w') }}",
    "{{ strftime_now.__globals__.datetime.__module__.x }}",
    "{{ get_flashed_messages.__globals__.current_app.x }}",
    "{{ joiner.__init__.__globals__.x }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(namespace) }}{{ x.y }}",
    "{{ '{0.__class__.__mro__}'.format_map({}) }}",
    "{{ '%s' % ''.__class__.__base__.__subclasses__() }}",
    "{{ (messages|map(attribute='__class__')|first).__subclasses__() }}",
    "{{ messages|map('attr', '__class__')|map('attr', '__mro__')|list|first|first }}"
    "{{ messages.__class__.__init__.x }}",
    "{% include 'CANARY' %}",
    "{% import 'os' as os %}{{ os.system('touch CANARY') }}",
    "{% extends 'CANARY' %}",
    "{{ messages.append(1) }}",
    "{{ messages[0].update({'role': 'system'}) }}",
    "{% do messages.clear() %}",
]

BOMBS = [
    "{% for i in range(10 ** 9) %}{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
    "{% set x %}{% for i in range(99999) %}" + "x" * 9999 + "{% endfor %}{% endset %}{{ x }}",
    "{{ 'x' * 10 ** 10 }}",
    "{{ [0] * 10 ** 10 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ 'x'.center(10 ** 10) }}",
    "{{ 'x'|center(10 ** 10) }}",
    "{{ 'x'.ljust(10 ** 10) }}",
    "{{ ('x'|attr('center'))(10 ** 10) }}",
    "{{ (1).to_bytes(10 ** 10, 'big') }}",
    "{{ 1|round(10 ** 9, 'ceil') }}",
    "{% set ns = namespace(a=[]) %}{% set x = 'x' * 999999 %}{% for i in range(99999) %}"
    "{% set ns.a = ns.a + [x[1:]] %}{% endfor %}",
    "{% block a %}{{ self.a() }}{% endblock %}",
    "{{ '%10000000000d' % 1 }}",
    "{{ '%*d' % (10 ** 9, 1) }}",
    "{{ '%(a(b)c)10000000000d' % {'a(b)c': 1} }}",
    "{{ '%10000000000d'|format(1) }}",
    "{{ '{:>10000000000}'.format(1) }}",
    "{{ '{:>{}}'.format(1, 10 ** 10) }}",
    "{{ range(99999)|join('x' * 99999) }}",
    "{{ ('x' * 99999).join(range(99999)|map('string')) }}",
    "{{ ('x' * 99999).replace('x', 'y' * 99999) }}",
    "{{ ('x' * 99999)|replace('x', 'y' * 99999) }}",
    "{{ range(99999)|list|tojson(indent=10 ** 9) }}",
    "{{ ('x\n' * 99999)|indent(10 ** 9) }}{{ 1 / 0 }}",
    "{{ ([range(99999)] * 99999)|map('sum')|list }}",
    "{{ ([[0] * 9999] * 9999)|sum(start=[]) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{{ lipsum(n=10 ** 9) }}",
    "{{" + "(" * 9999 + "1" + ")" * 9999 + "}}",
    "{% if 1 %}" * 999 + "{% endif %}" * 999,
    "{{ 1 }}" * 300_000,
    nested("a + a", "'x'"),
    nested("a ~ a", "'x'"),
    nested("[a, a]", "1"),
    nested("(a, a)", "1"),
    nested("{'x': a, 'y': a}", "1"),
    nested("dict(x=a, y=a)", "1"),
    nested("a|tojson", "'\"'"),
    nested("a.replace('x', 'xx')", "'x'"),
    nested("a * a", "10"),
]

LONG = "{% set L = range(99999)|list %}{% set S = ['x' * 99999] * 9999 %}"

LOOPS = [
    "{% for a in range(99999) if -1 in L %}{% endfor %}",
    "{% for a in range(99999) if a + 0.5 in L %}{% endfor %}",
    "{{ range(99999)|select('in', L)|list }}{{ L|map('string')|select('in', L)|list }}",
    "{{ (L|map('string'))|reject('in', L)|list }}",
    "{{ ([L] * 9999)|select('eq', range(99999)|list)|list }}",
    "{{ ([{'a': L}] * 9999)|selectattr('a', 'eq', range(99999)|list)|list }}",
    "{{ ([{'a': L}] * 9999)|rejectattr('a', 'ne', range(99999)|list)|list }}",
    "{{ [L] * 9999 == [range(99999)|list] * 9999 }}{{ 1 / 0 }}",
    "{{ ('x' * 99998 ~ 'y') in S }}{{ ('x' * 99998 ~ 'y') in S * 99 }}{{ 1 / 0 }}",
    "{{ ([('x' * 999999) ~ 'a', ('x' * 999999) ~ 'b'] * 99999)|sort|first }}",
    "{{ ([('x' * 999999) ~ 'a', ('x' * 999999) ~ 'b'] * 99999)|max }}",
    "{{ ([L, range(99999)|list] * 9999)|sort|first }}",
    "{{ ([{'a': L}] * 9999)|groupby('a')|list }}",
    "{{ S|tojson }}",
    "{{ S }}",
    "{{ S ~ '' }}",
    "{{ S|string }}",
    "{{ S|upper }}",
    "{{ [S]|join }}",
    "{{ '%s' % S }}",
    "{{ '%s' % [S] }}",
    "{{ '{}'.format(S) }}",
    "{{ ([L] * 99999)|map('list')|map('first')|list }}",
    "{{ ([L] * 99999)|map('length')|list }}{{ ([L] * 999999)|map('reverse')|map('list')|list }}",
    "{{ L|map(attribute='" + "a." * 99999 + "a')|list }}",
    "{{ ('a' * 999999).rfind('b' ~ 'a' * 499999) }}{{ 1 / 0 }}",
    "{{ ('a' * 999999).strip('b' * 999999 ~ 'a') }}{{ 1 / 0 }}",
    "{{ ('a' * 999999)|trim('b' * 999999 ~ 'a') }}{{ 1 / 0 }}",
    "{{ ('<!---->' * 999999)|striptags }}",
    "{{ ([L] * 9999).count(range(99999)|list) }}{{ 1 / 0 }}",
    "{{ {(L|list,) * 2: 1} }}{{ {}[([0] * 9, ) * 9] }}{{ 1 / 0 }}",
    "{{ ('a b ' * 9999999).split() }}",
]


def run(source):
    ChatTemplate(source.replace("\n", "\\n"), {}).render(MESSAGES)


@pytest.mark.parametrize("source", BREAKOUTS)
def test_a_template_cannot_leave_the_sandbox(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidRequestError, match="template"):
        run(source)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("source", BOMBS, ids=range(len(BOMBS)))
def test_a_template_that_takes_too_much_is_stopped(source):
    began = time.process_time()
    with pytest.raises(InvalidRequestError, match="template"):
        run(source)
    assert time.process_time() - began < MAX_RENDER_S + MARGIN_S


@pytest.mark.parametrize("source", LOOPS, ids=range(len(LOOPS)))
def test_a_loop_without_a_body_is_stopped(source):
    test_a_template_that_takes_too_much_is_stopped(LONG + source)


NAMES = sorted(jinja2.defaults.DEFAULT_FILTERS)
TESTS = sorted(jinja2.defaults.DEFAULT_TESTS)


def test_each_filter_and_test_of_jinja_has_a_cost():
    kinds = [
        *(costs.CONSTANT_FILTERS, costs.TEXT_FILTERS, costs.LIST_FILTERS, costs.ORDER_FILTERS),
        costs.FORBIDDEN_FILTERS,
    ]
    assert sorted(name for kind in kinds for name in kind) == NAMES
    assert sorted(costs.CONSTANT_TESTS | costs.COMPARING_TESTS) == TESTS
    assert set(NAMES) - set(Sandbox().filters) == costs.FORBIDDEN_FILTERS


@pytest.mark.parametrize("name", sorted(set(NAMES) - costs.FORBIDDEN_FILTERS))
@pytest.mark.parametrize("value", ["L", "S"])
def test_each_filter_is_stopped_when_it_is_mapped_over_long_values(name, value):
    source = LONG + "{{ ([" + value + "] * 9999)|map('" + name + "')|map('length')|sum }}{{ 1/0 }}"
    test_a_template_that_takes_too_much_is_stopped(source)


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize("value", ["L", "'x' * 99999"])
def test_each_test_is_stopped_when_it_selects_from_long_values(name, value):
    source = LONG + "{{ ([" + value + "] * 9999)|select('" + name + "', L)|list|length }}{{ 1/0 }}"
    test_a_template_that_takes_too_much_is_stopped(source)


def run_to_its_end(source):
    with suppress(InvalidRequestError):
        run(source)


def test_others_go_on_while_a_template_is_stopped():
    """A worker renders in threads: its streams must not wait for the one that loops."""
    loop = Thread(target=run_to_its_end, args=(BOMBS[1],))
    good, rendered = ChatTemplate("{{ messages[0].content }}", {}), 0
    loop.start()
    while loop.is_alive():
        assert good.render(MESSAGES) == "a"
        rendered += 1
    assert rendered > 10


def test_a_namespace_that_holds_itself_prints_as_little():
    source = nested("namespace(x=a, y=a)", "1")
    assert render(Sandbox().compiled(source), {}) == "namespace"


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ 'a' ~ 1 ~ none }}", "a1None"),
        ("{{ 'a' + 'b' }}{{ [1] + [2] }}{{ 2 * 3 }}{{ '-' * 3 }}{{ 2 ** 8 }}{{ 7 % 4 }}",
         "ab[1, 2]6---2563"),
        ("{{ '**%s** is %.2f' % ('a', 1.5) }}{{ 'N: {} {:>3}'.format('a', 'b') }}",
         "**a** is 1.50N: a   b"),
        ("{{ ', '.join(['a', 'b']) }}{{ [1, 2]|join('-') }}", "a, b1-2"),
        ("{{ [{'n': 'x'}, {'n': 'y'}]|join(',', attribute='n') }}", "x,y"),
        ("{{ 'a-b'.replace('-', '+') }}{{ 'aaa'|replace('a', 'b', 2) }}", "a+bbba"),
        ("{{ [1, 2]|sum }}{{ [{'n': 2}, {'n': 3}]|sum(attribute='n') }}", "35"),
        ("{{ {'b': [1, 'é'], 'a': none}|tojson }}", '{"b": [1, "é"], "a": null}'),
        ("{{ {'b': 1}|tojson(indent=2) }}", '{\n  "b": 1\n}'),
        ("{{ 'a\\nb'|indent(2) }}", "a\n  b"),
        ("{{ 'abc'[1:] }}{{ [1, 2, 3][::-1] }}{{ 1.25|round(1) }}{{ 1.2|round(0, 'ceil') }}",
         "bc[3, 2, 1]1.22.0"),
        ("{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% endfor %}"
         "{{ ns.n }}", "3"),
        ("{% for k, v in {'x': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "x=1"),
        ("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "1"),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}{{ m('a') }}", "<1><a>"),
        ("{% generation %}a{% endgeneration %}", "a"),
        ("{% set a, b = (1, 2) %}{{ a }}{{ b }}{{ (1, 2)[0] }}", "121"),
        ("{{ 1 < 2 < 3 }}{{ 1 < 2 > 3 }}{{ 'a' in {'a': 1} }}{{ 'b' not in 'abc' }}"
         "{{ {'a': 1} == {'a': 1} }}{{ [1, 2] == [1, 2] }}", "TrueFalseTrueFalseTrueTrue"),
        ("{% for i in [1, 2, 3, 4] if i is even %}{{ i }}{% endfor %}"
         "{{ [1, 2, 3]|select('in', [2, 3])|list }}{{ [{'a': 1}, {}]|selectattr('a')|list }}",
         "24[2, 3][{'a': 1}]"),
        ("{{ {'b': 1, 'a': 2}|dictsort }}{{ ['b', 'a', 'B']|unique|list }}{{ [3, 1]|min }}"
         "{{ [{'r': 1, 'n': 2}, {'r': 1, 'n': 3}]|groupby('r')|map('last')|map('length')|list }}",
         "[('a', 2), ('b', 1)]['b', 'a']1[2]"),
        ("{{ 'a b'.split() }}{{ 'a,b'.split(',')[-1] }}{{ ' a'.lstrip() }}{{ 'ab'.rfind('b') }}",
         "['a', 'b']ba1"),
        ("{{ ['b', 'a']|sort|first }}{{ 'x'|upper }}{{ ' x '|trim }}{{ [1, 2]|length }}", "aXx2"),
    ],
)  # fmt: skip
def test_what_templates_do_every_day_works(source, text):
    assert render(Sandbox().compiled(source), {}) == text


def test_templates_write_what_jinja_alone_would():
    """The meter changes no text: the same code without it says the same."""
    source = (
        "{%- for m in messages %}\n  {{- m.role ~ ': ' ~ (m.content|trim) }}\n"
        "{%- if not loop.last %}{{ ' | ' }}{% endif %}\n{%- endfor %}\n"
        "{{ {'a': [1, (2, 3)]}['a'] }}"
    )
    messages = [{"role": "user", "content": f" {n} "} for n in range(5)]
    plain = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(source)
    names = {"messages": messages}
    assert render(Sandbox().compiled(source), names) == plain.render(names)
