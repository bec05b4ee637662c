"""The import graph of SimForge's packages, and how many levels it has.

    uv run python tests/imports.py

prints, for every package, its level (a package imports only from lower levels) and what it imports. The table in
docs/architecture.md gives the order; `tests/test_house.py` holds that imports point down it.
"""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "simforge"
EXTENSIONS = {"simforge.views", "simforge.judging.forms", "simforge.models.providers"}
"Packages whose modules are found by name: what they import does not add a level."


def modules() -> dict[str, Path]:
    """Every module of SimForge with its file."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of SimForge that a file imports anywhere, except for types only."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or node in for_types:
            continue
        for alias in node.names:
            name = f"{node.module}.{alias.name}"
            name = name if name in known else str(node.module)
            if name in known and name != "simforge":
                found.add(name)
    return found


def graph() -> dict[str, set[str]]:
    """The modules that each module imports."""
    known = modules()
    return {name: imported(path, known) for name, path in known.items()}


def package_of(module: str) -> str:
    """The package of a module; modules at the top (`errors`, `identity`, `types`) are `(top)`."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (PACKAGE / parts[1]).is_dir() else "(top)"


def package_graph() -> dict[str, set[str]]:
    """The packages that each package imports."""
    found: dict[str, set[str]] = {}
    for name, used in graph().items():
        if name in ("simforge", "simforge.__main__"):
            continue
        own = package_of(name)
        found.setdefault(own, set()).update({package_of(one) for one in used} - {own})
    return found


def levels(edges: dict[str, set[str]]) -> dict[str, int]:
    """The level of each node: 0 imports nothing, others are one above what they import. Raises `CycleError`."""
    found: dict[str, int] = {}
    for name in TopologicalSorter(edges).static_order():
        found[name] = max((found[used] + 1 for used in edges.get(name, ())), default=0)
    return found


def documented_order() -> list[str]:
    """The packages in the order of the table in docs/architecture.md, highest first."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.partition("## Packages")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \|", table, re.MULTILINE)[1:]
    return [
        name
        for row in rows
        for name in re.findall(r"`(\w+)/`|(\(top\))", row)
        for name in name
        if name
    ]


if __name__ == "__main__":
    edges = package_graph()
    by_level = levels(edges)
    for name in sorted(edges, key=lambda name: (-by_level[name], name)):
        print(f"{by_level[name]:2}  {name:10} {', '.join(sorted(edges[name]))}")
    chain = levels({name: used for name, used in graph().items() if name != "simforge"})
    print(
        f"{len(edges)} packages on {max(by_level.values()) + 1} levels; {len(chain)} modules on {max(chain.values()) + 1}"
    )
