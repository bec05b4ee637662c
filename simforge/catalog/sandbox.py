"""Templates of packs, spaces and generators, which may come from strangers: Jinja without anything
that can run for long, grow without bound, or reach beyond its variables.

Only the statements that a prompt needs are allowed: `if`, `for`, `set`, comparisons, arithmetic
without powers, and the filters of `FILTERS`. A rendering may take `MAX_STEPS` turns of loops, no
text, list or table in it may have more than `MAX_CHARACTERS`, and what its operations read may
not add up to more than `MAX_WORK`.

    compile_template("I am {{ age }}.").render(age=30)
"""

from __future__ import annotations

import threading
from collections.abc import (
    Callable,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from functools import cache, wraps
from typing import Any, Literal

import jinja2
import jinja2.meta
from jinja2 import nodes, pass_environment
from jinja2.exceptions import SecurityError
from jinja2.filters import do_round
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SOURCE = 100_000
"Maximum number of characters of a template."


MAX_NODES, MAX_DEPTH = 5_000, 60
"Maximum number and depth of a template's elements."


MAX_STEPS = 100_000
"Maximum number of turns of all loops in one rendering."


MAX_CHARACTERS = 1_000_000
"Maximum length of a text that a template builds."


MAX_WORK = 20_000_000
"Maximum number of characters that all operations of one rendering may read."


MAX_BITS = 256
"Maximum size of an integer in an operation."


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


_COUNT, _BOUND, _SHOW = "_count_steps", "_bounded", "_shown"
"Filters that this module puts around loops, values that are read, and joined texts."


_left = threading.local()
"What one rendering may still use: `steps` and `work`."


class Template:
    """A compiled template."""

    def __init__(self, template: jinja2.Template) -> None:
        self._template = template
        # jinja's chain of mappings is copied at every rendering, at half of its cost
        template.globals = {}

    def render(self, variables: Mapping[str, Any] | None = None, /, **more: Any) -> str:
        """Render the template. Raises `jinja2.TemplateError`, also if it exceeds a limit or if an
        expression fails."""
        _left.steps, _left.work = MAX_STEPS, MAX_WORK
        try:
            text = self._template.render(variables or {}, **more)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            MemoryError,
            RecursionError,
            TypeError,
            ValueError,
        ) as problem:
            raise jinja2.TemplateRuntimeError(
                str(problem) or type(problem).__name__
            ) from None
        _check_length(len(text))
        return text


@cache
def compile_template(template: str) -> Template:
    """Compile a template, once per process. Raises `jinja2.TemplateSyntaxError`, also for what is
    not allowed."""
    tree = parse_template(template)
    _put_limits(tree)
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


def _put_limits(tree: nodes.Template) -> None:
    """Put a filter that counts around everything that takes time or grows: loops, lists and
    tables that are built, compared, tested or sliced, and texts that are joined."""
    wrapped: set[int] = set()

    def wrap(parent: nodes.Node, field: str, name: str) -> None:
        value = getattr(parent, field)
        if isinstance(value, list):
            value[:] = [around(item, name) for item in value]
        elif value is not None:
            setattr(parent, field, around(value, name))

    def around(value: nodes.Expr, name: str) -> nodes.Expr:
        if id(value) in wrapped or isinstance(value, nodes.Const | nodes.Keyword):
            return value
        new = nodes.Filter(value, name, [], [], None, None)
        wrapped.add(id(new))
        return new

    built = (nodes.List, nodes.Tuple, nodes.Dict, nodes.Concat)
    for node in [tree, *tree.find_all(nodes.Node)]:
        for field in node.fields:
            value = getattr(node, field)
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, built) and getattr(child, "ctx", "load") == "load":
                    wrap(node, field, _BOUND)
                    break
        if isinstance(node, nodes.For):
            wrap(node, "iter", _COUNT)
        elif isinstance(node, nodes.Concat):
            wrap(node, "nodes", _SHOW)
        elif isinstance(node, nodes.Compare | nodes.Operand):
            wrap(node, "expr", _BOUND)
        elif isinstance(node, nodes.Test):
            wrap(node, "node", _BOUND)
            wrap(node, "args", _BOUND)
        elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            wrap(node, "node", _BOUND)


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
    intercepted_binops = frozenset(["+", "-", "*", "/", "//", "%"])

    def call_binop(
        self, context: jinja2.runtime.Context, operator: str, left: Any, right: Any
    ) -> Any:
        """Allow operators on numbers, and `+` on texts and lists of bounded size."""
        sized = [
            value for value in (left, right) if isinstance(value, str | list | tuple)
        ]
        if sized and operator != "+":
            raise SecurityError(f"{operator} is for numbers only")
        for value in (left, right):
            _bounded(value)
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
    filters = {
        **{name: environment.filters[name] for name in FILTERS},
        "replace": _replace,
        "join": _join,
        "list": list,
        "round": _round,
        "string": lambda value: str(_shown(value)),
        "sum": _sum,
    }
    environment.filters = {
        **{name: _limited(function) for name, function in filters.items()},
        _COUNT: _count_steps,
        _BOUND: _bounded,
        _SHOW: filters["string"],
    }
    return environment


def _limited(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that counts what it reads."""

    @wraps(function)
    def limited(*arguments: Any, **keywords: Any) -> Any:
        return function(
            *map(_bounded, arguments),
            **{name: _bounded(value) for name, value in keywords.items()},
        )

    return limited


def _check_length(length: int) -> None:
    if length > MAX_CHARACTERS:
        raise SecurityError(f"a text has more than {MAX_CHARACTERS:,} characters")


def _count_steps(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        _left.steps -= 1
        if _left.steps < 0:
            raise SecurityError(f"its loops take more than {MAX_STEPS:,} turns")
        yield value


def _bounded(value: Any) -> Any:
    """Return a value that an operation reads. Its size is checked and counted; lists may hold
    each other many times over, so they are counted with all that they hold."""
    if isinstance(value, bool | float) or value is None:
        return value
    if isinstance(value, int):
        if value.bit_length() > MAX_BITS:
            raise SecurityError(f"an integer has more than {MAX_BITS} bits")
        return value
    if isinstance(value, KeysView | ValuesView | ItemsView):
        value = list(value)
    if isinstance(value, str | list | tuple | dict):
        size = _size(value, MAX_CHARACTERS)
        _check_length(size)
        _left.work -= size
        if _left.work < 0:
            raise SecurityError(
                f"its operations read more than {MAX_WORK:,} characters"
            )
    elif isinstance(value, Iterator):
        return _count_steps(value)
    return value


def _shown(value: Any) -> Any:
    """Return a value as it is shown."""
    value = _bounded(value)
    if callable(value) and not isinstance(value, jinja2.Undefined):
        raise SecurityError("a method is not shown; call it")
    return str(value) if isinstance(value, list | tuple | dict) else value


def _size(value: Any, limit: int) -> int:
    """Count the characters of a value, roughly; stops above the limit."""
    if isinstance(value, str):
        return len(value)
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


def _round(
    value: float,
    precision: int = 0,
    method: Literal["common", "ceil", "floor"] = "common",
) -> float:
    if not -15 <= precision <= 15:
        raise SecurityError("round takes a precision from -15 to 15")
    return do_round(value, precision, method)


def _replace(text: Any, old: str, new: str) -> str:
    shown, old, new = str(_shown(text)), str(_shown(old)), str(_shown(new))
    _check_length(len(shown) + shown.count(old) * len(new))
    return shown.replace(old, new)


@pass_environment
def _join(
    environment: jinja2.Environment,
    values: Iterable[Any],
    separator: str = "",
    attribute: str | None = None,
) -> str:
    separator = str(separator)
    texts = [
        str(_shown(environment.getitem(item, attribute) if attribute else item))
        for item in _count_steps(values)
    ]
    _check_length(sum(map(len, texts)) + len(separator) * len(texts))
    return separator.join(texts)


@pass_environment
def _sum(
    environment: jinja2.Environment,
    values: Iterable[Any],
    attribute: str | None = None,
    start: float = 0,
) -> float:
    total = start
    for item in _count_steps(values):
        number = environment.getitem(item, attribute) if attribute else item
        if not isinstance(number, int | float) or not isinstance(total, int | float):
            raise SecurityError("sum is for numbers only")
        total += number
    return total
