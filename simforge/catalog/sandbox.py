"""Templates of packs, spaces and generators, which may come from strangers: Jinja without anything
that can run for long, grow without bound, or reach beyond its variables.

Only the statements that a prompt needs are allowed: `if`, `for`, `set`, comparisons, arithmetic
without powers, and the filters of `FILTERS`. A rendering may take `MAX_STEPS` turns of loops, and
no text in it may be longer than `MAX_CHARACTERS`.

    compile_template("I am {{ age }}.").render(age=30)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any

import jinja2
import jinja2.meta
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SOURCE = 100_000
"Maximum number of characters of a template."


MAX_NODES, MAX_DEPTH = 5_000, 60
"Maximum number and depth of a template's elements."


MAX_STEPS = 100_000
"Maximum number of turns of all loops in one rendering."


MAX_CHARACTERS = 1_000_000
"Maximum length of a text that a template builds."


METHODS = ("items", "keys", "values", "get")
"Methods that a template may call."


FILTERS = (
    "abs capitalize default first float int join last length list lower map max min reject "
    "rejectattr replace round select selectattr sort string sum title trim unique upper"
).split()


_ALLOWED = (
    nodes.Template,
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.NSRef,
    nodes.If,
    nodes.For,
    nodes.Assign,
    nodes.Filter,
    nodes.Test,
    nodes.Call,
    nodes.Keyword,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Slice,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Neg,
    nodes.Pos,
    nodes.CondExpr,
    nodes.Const,
    nodes.Tuple,
    nodes.List,
    nodes.Dict,
    nodes.Pair,
    nodes.Add,
    nodes.Sub,
    nodes.Mul,
    nodes.Div,
    nodes.FloorDiv,
    nodes.Mod,
    nodes.Concat,
)


_COUNT, _BOUND = "_count_steps", "_bound_text"
"Filters that this module puts around loops and joined texts."


_steps = threading.local()


class Template:
    """A compiled template."""

    def __init__(self, template: jinja2.Template) -> None:
        self._template = template
        # jinja's chain of mappings is copied at every rendering, at half of its cost
        template.globals = {}

    def render(self, variables: Mapping[str, Any] | None = None, /, **more: Any) -> str:
        """Render the template. Raises `jinja2.TemplateError`, also if it exceeds a limit, and
        what its expressions raise."""
        _steps.left = MAX_STEPS
        text = self._template.render(variables or {}, **more)
        _check_length(len(text))
        return text


@cache
def compile_template(template: str) -> Template:
    """Compile a template, once per process. Raises `jinja2.TemplateSyntaxError`, also for what is
    not allowed."""
    tree = parse_template(template)
    for loop in tree.find_all(nodes.For):
        loop.iter = nodes.Filter(loop.iter, _COUNT, [], [], None, None)
    bounded: set[int] = set()
    for parent in [tree, *tree.find_all(nodes.Node)]:
        for name in parent.fields:
            value = getattr(parent, name)
            if isinstance(value, nodes.Concat) and id(value) not in bounded:
                bounded.add(id(value))
                setattr(parent, name, nodes.Filter(value, _BOUND, [], [], None, None))
            elif isinstance(value, list):
                value[:] = [
                    nodes.Filter(item, _BOUND, [], [], None, None)
                    if isinstance(item, nodes.Concat)
                    else item
                    for item in value
                ]
    environment = _environment()
    try:
        code = environment.compile(tree)
    except RecursionError:
        raise jinja2.TemplateSyntaxError("it is nested too deeply", 1) from None
    return Template(environment.template_class.from_code(environment, code, {}, None))


def parse_template(template: str) -> nodes.Template:
    """Parse a template and check what it uses. Raises `jinja2.TemplateSyntaxError`."""
    if len(template) > MAX_SOURCE:
        raise jinja2.TemplateSyntaxError(
            f"it has more than {MAX_SOURCE:,} characters", 1
        )
    try:
        tree = _environment().parse(template)
    except (RecursionError, ValueError):  # a number of 5,000 digits
        raise jinja2.TemplateSyntaxError("it is nested too deeply", 1) from None
    count = 0
    stack: list[tuple[nodes.Node, int]] = [(tree, 0)]
    while stack:
        node, depth = stack.pop()
        count += 1
        if count > MAX_NODES or depth > MAX_DEPTH:
            raise jinja2.TemplateSyntaxError("it is too large", node.lineno)
        problem = _problem_with(node)
        if problem:
            raise jinja2.TemplateSyntaxError(problem, node.lineno)
        stack += [(child, depth + 1) for child in node.iter_child_nodes()]
    return tree


def variables_of(template: str) -> frozenset[str]:
    """Return the variables that a template reads. Raises `jinja2.TemplateSyntaxError`."""
    return frozenset(jinja2.meta.find_undeclared_variables(parse_template(template)))


def _problem_with(node: nodes.Node) -> str | None:
    if not isinstance(node, _ALLOWED):
        return f"{type(node).__name__.lower()} is not allowed in a template"
    if isinstance(node, nodes.Call) and not (
        isinstance(node.node, nodes.Getattr) and node.node.attr in METHODS
    ):
        return (
            f"a template may call only: {', '.join(f'.{name}()' for name in METHODS)}"
        )
    if isinstance(node, nodes.Filter) and node.name not in FILTERS:
        return f"there is no filter {node.name!r}; there are: {', '.join(FILTERS)}"
    return None


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "%"])

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        """Allow operators on numbers, and `+` on texts and lists of bounded size."""
        sized = [
            value for value in (left, right) if isinstance(value, str | list | tuple)
        ]
        if sized and operator != "+":
            raise SecurityError(f"{operator} is for numbers only")
        if sized:
            _check_length(sum(len(value) for value in sized))
        return super().call_binop(context, operator, left, right)


@cache
def _environment() -> _Environment:
    environment = _Environment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=False,
        autoescape=False,
        optimized=False,
        finalize=_shown,
    )
    environment.globals.clear()
    environment.filters = {
        **{name: environment.filters[name] for name in FILTERS},
        "replace": _replace,
        "join": _join,
        "list": lambda values: list(_count_steps(values)),
        "string": _shown,
        _COUNT: _count_steps,
        _BOUND: _bound_text,
    }
    return environment


def _check_length(length: int) -> None:
    if length > MAX_CHARACTERS:
        raise SecurityError(f"a text has more than {MAX_CHARACTERS:,} characters")


def _count_steps(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        _steps.left -= 1
        if _steps.left < 0:
            raise SecurityError(f"its loops take more than {MAX_STEPS:,} turns")
        yield value


def _bound_text(text: Any) -> Any:
    if isinstance(text, str):
        _check_length(len(text))
    return text


def _shown(value: Any) -> Any:
    """Return a value as it is shown. Lists may hold each other many times over, so their size is
    counted first."""
    if not isinstance(value, list | tuple | dict):
        return value
    _check_length(_size(value, MAX_CHARACTERS))
    return str(value)


def _size(value: Any, limit: int) -> int:
    """Count the characters of a value, roughly; stops above the limit."""
    size, stack = 0, [value]
    while stack and size <= limit:
        item = stack.pop()
        if isinstance(item, dict):
            stack += [*item.keys(), *item.values()]
            size += 2
        elif isinstance(item, list | tuple):
            stack += item
            size += 2
        else:
            size += len(item) if isinstance(item, str) else 8
    return size


def _replace(text: Any, old: str, new: str) -> str:
    shown = str(_shown(text))
    _check_length(len(shown) + shown.count(str(old)) * len(str(new)))
    return shown.replace(str(old), str(new))


def _join(
    values: Iterable[Any], separator: str = "", attribute: str | None = None
) -> str:
    read: Callable[[Any], Any] = (
        (
            lambda item: (
                item[attribute]
                if isinstance(item, Mapping)
                else getattr(item, attribute)
            )
        )
        if attribute and not attribute.startswith("_")
        else (lambda item: item)
    )
    texts = [str(_shown(read(item))) for item in _count_steps(values)]
    _check_length(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)
