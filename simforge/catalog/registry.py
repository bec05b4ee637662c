"""Extensions that are found by name: one object for each, in one place.

A registry knows a package of which every module defines one extension under the same variable,
so that adding a file adds the extension. Modules are imported when they are asked for, and not
before: naming a provider must not load the library behind another one.

    PROVIDERS = Registry("model provider", Provider, "simforge.models.providers", "PROVIDER")
    PROVIDERS.names()                    -> ["local", "openai", ...]
    PROVIDERS.find("openai")             -> the object that providers/openai.py calls PROVIDER

Small extensions that share one file are passed as objects instead of a package.

`module_of_file` runs somebody's code. Call it only with what the user wrote on the command line
or in Python, never with text from a recipe.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from simforge.errors import NotFound, UsageError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Extensions of one kind, by name."""

    def __init__(
        self,
        kind: str,
        extension_type: type[T],
        package: str | None = None,
        variable: str = "",
        objects: Mapping[str, T] | None = None,
        hint: str = "",
    ) -> None:
        """`package` holds one module for each extension, which is the module's `variable`."""
        self.kind, self._type, self._package = kind, extension_type, package
        self._variable, self._hint = variable, hint
        self._objects: dict[str, T] = dict(objects or {})

    def names(self) -> list[str]:
        """All names, sorted where they are found as files."""
        return list(dict.fromkeys([*self._module_names, *self._objects]))

    def find(self, name: str) -> T:
        """The extension of a name; raises `NotFound` with the names that are nearest."""
        if name in self._objects:
            return self._objects[name]
        if name not in self._module_names:
            raise NotFound(self.kind, name, self.names(), self._hint)
        self._objects[name] = self._checked(
            importlib.import_module(f"{self._package}.{name}"), self._variable, name
        )
        return self._objects[name]

    def add(self, name: str, extension: T) -> None:
        """Add a user's own extension for this process. Raises `UsageError` for a name that is
        taken."""
        if name in self:
            raise UsageError(
                f"there is a {self.kind} named {name!r} already: choose another name."
            )
        self._objects[name] = extension

    @cached_property
    def _module_names(self) -> tuple[str, ...]:
        if self._package is None:
            return ()
        package = importlib.import_module(self._package)
        names = (module.name for module in pkgutil.iter_modules(package.__path__))
        return tuple(sorted(name for name in names if not name.startswith("_")))

    def _checked(self, module: ModuleType, variable: str, reference: str) -> T:
        extension = getattr(module, variable, None)
        if not isinstance(extension, self._type):
            raise UsageError(
                f"{reference} is not a {self.kind}: it needs `{variable}`, an object of the type "
                f"{self._type.__name__}."
            )
        return extension

    def __getitem__(self, name: str) -> T:
        try:
            return self.find(name)
        except NotFound:
            raise KeyError(name) from None

    def __contains__(self, name: object) -> bool:
        return name in self._objects or name in self._module_names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())


def module_of_file(path: Path) -> ModuleType:
    """A Python file as a module of its own."""
    if not path.is_file():
        raise UsageError(f"there is no file {path}.")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as problem:  # a user's own file may raise anything
        raise UsageError(
            f"{path} cannot be run: {type(problem).__name__}: {problem}."
        ) from None
    return module
