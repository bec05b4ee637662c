"""Templates do what prompts need, and nothing that a stranger could harm with."""

from __future__ import annotations

import time

import jinja2
import pytest

from simforge.catalog.sandbox import (
    MAX_CHARACTERS,
    compile_template,
    parse_template,
    variables_of,
)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ name | upper }} is {{ age + 1 }}", "ANN is 41"),
        ("{% if age >= 40 %}old{% elif age %}young{% else %}?{% endif %}", "old"),
        ("{% for w in likes %}{{ loop.index }}{{ w }} {% endfor %}", "1tea 2cake "),
        ("{{ likes | join(' and ') }}", "tea and cake"),
        ("{{ pets | join(', ', 'kind') }}", "dog, cat"),
        ("{{ pets | selectattr('kind', 'eq', 'cat') | list | length }}", "1"),
        ("{{ name[:2] ~ likes[-1] }}", "Ancake"),
        ("{{ name | replace('n', 'm') | lower | capitalize }}", "Amm"),
        ("{% set who = name %}{{ who or 'nobody' }}", "Ann"),
        ("{% for k, v in home.items() %}{{ k }}={{ v }}{% endfor %}", "city=Oslo"),
        ("{{ likes }}", "['tea', 'cake']"),
    ],
)
def test_what_prompts_need_works(template, text):
    person = {
        "name": "Ann",
        "age": 40,
        "likes": ["tea", "cake"],
        "pets": [{"kind": "dog"}, {"kind": "cat"}],
        "home": {"city": "Oslo"},
    }
    assert compile_template(template).render(person) == text


NESTED = "{% set a=[1] %}{% set b=[1] %}" + "{% set a=[a,a] %}{% set b=[b,b] %}" * 40


LONG_LIST = "{% set a=[1] %}" + "{% set a=a+a %}" * 16


HOSTILE = [
    "{{ 1 | round(99999999, 'ceil') }}",
    NESTED + "{{ a | upper }}",
    NESTED + "{{ a | trim }}",
    NESTED + "{{ a ~ 'x' }}",
    NESTED + "{{ 'x' | replace(a, 'y') }}",
    NESTED + "{{ a == b }}",
    NESTED + "{{ a is eq b }}",
    NESTED + "{{ a in [b] }}",
    NESTED + "{{ [a, b] | min }}",
    "{% set a=99999999999 %}" + "{% set a=a*a %}" * 32 + "{{ a }}",
    "{% set a=[1] %}" + "{% set a=[a,a] | sum(start=[]) %}" * 40,
    LONG_LIST + "{{ a | sort | unique | list | length }}" * 100,
    LONG_LIST + "{{ a" + " | map('string')" * 40 + " | list | length }}",
    "{{ ['a'] | join(attribute='x') }}",
    "{{ ['a'] | join('', 3) }}",
    "{{ ['a'] | join(attribute='format') }}",
    "{{ 'a'.format }}",
    "{{ ('9' * 1) | int(base=1) | abs(1, 2) }}",
    "{{ 7 ** (9 ** 9) }}",
    "{{ 'a' * 10 ** 9 }}",
    "{{ 'a' * 999999999 }}",
    "{{ [0] * 999999999 }}",
    "{{ '%999999999d' % 1 }}",
    "{{ 'a' | center(999999999) }}",
    "{{ 'a' | indent(999999999) }}",
    "{{ '%999999999d' | format(1) }}",
    "{{ 'a'.ljust(999999999) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ range(999999999) | list }}",
    "{{ lipsum(99999) }}",
    "{{ cycler(1) }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% set x %}{{ name }}{% endset %}",
    "{% set ns = namespace(a=1) %}",
    "{% set a = 'abcdefghij' %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}",
    "{% set a = 'abcdefghij' %}" + "{% set a = a + a %}" * 40 + "{{ a }}",
    "{% set a = [1, 2] %}" + "{% set a = [a, a] %}" * 40 + "{{ a }}",
    "{% set a = [1, 2] %}" + "{% set a = [a, a] %}" * 40 + "{{ a | join }}",
    "{% set a = [1, 2] %}" + "{% set a = [a, a] %}" * 40 + "{{ a | string }}",
    "{% set a = 'aa' %}" + "{% set a = a | replace('a', a) %}" * 12 + "{{ a }}",
    "{% set a = 'a' * 1 %}{% for x in long %}{% for y in long %}{% endfor %}{% endfor %}",
    "{% for x in long %}{{ long }}{% endfor %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% if a %}" * 500 + "{% endif %}" * 500,
    "{{ 1 + " * 3000 + "1" + " }}" * 1,
    "{{ " + "9" * 5000 + " }}",
    "{{ ''.__class__.__mro__ }}",
    "{{ name.__init__.__globals__ }}",
    "{{ name | attr('__class__') }}",
    "x" * 200_000,
]


@pytest.mark.parametrize("template", HOSTILE, ids=lambda template: template[:40])
def test_what_a_stranger_could_harm_with_is_refused_at_once(template):
    start = time.monotonic()
    with pytest.raises(jinja2.TemplateError):
        compile_template(template).render(name="Ann", long="a" * 5_000, a=1)
    assert time.monotonic() - start < 10


def test_variables_are_known_without_rendering():
    assert variables_of("{% for x in a %}{{ x }}{{ b.c }}{% endfor %}") == {"a", "b"}
    with pytest.raises(jinja2.TemplateSyntaxError, match="no filter 'center'"):
        parse_template("{{ a | center(3) }}")


def test_a_text_of_the_greatest_length_passes():
    assert len(compile_template("{{ a }}").render(a="x" * MAX_CHARACTERS)) > 0
    with pytest.raises(jinja2.TemplateError, match="characters"):
        compile_template("{{ a }}b").render(a="x" * MAX_CHARACTERS)
