"""Model providers: one module for each, found by the part of a reference before the colon.

A model reference is `provider:name`. A provider resolves it into a `ModelSpec`, a value that
identifies the model; makes sure that the model can be used, so that a run never starts without
it; and opens the client, on the worker that uses it. What a provider can do is asked of it
(`scores`, `draws_many`, ...), never decided by its name.

    spec = resolve("openai:gpt-5-mini")
    spec = ensure_available(spec)
    model = await open_model(spec)

To add a provider, add a module here that defines `PROVIDER`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

from simforge.catalog.registry import Registry
from simforge.errors import NotFound, UsageError
from simforge.types import DEFAULT_ACCESS, Access

if TYPE_CHECKING:
    from simforge.models.contract import Model, ModelSpec
    from simforge.models.rate_limits import Bounds


Admit = Callable[[], Awaitable[None]]
"Waits until a call may be made, or raises if no more calls are allowed."


class Provider:
    """A kind of model. Subclasses override `resolve` and `open`, and what else differs."""

    about: ClassVar[str] = ""
    "One line for the documentation."
    scores: ClassVar[bool] = False
    "Its replies are numbers that rate a text."
    draws_many: ClassVar[bool] = False
    "One request can ask for several answers (`n > 1`), for which the prompt is read once."
    embedded: ClassVar[bool] = False
    "The model runs in the worker's process, so more requests at once do not make it faster."
    has_key: ClassVar[bool] = False
    "Its calls are sent with an API key, which the workers of a cluster need too."
    served_by_run: ClassVar[bool] = False
    "The run serves the model itself, on the accelerators of its cluster."
    is_placeholder: ClassVar[bool] = False
    "Its texts are placeholders: a run of it says nothing about a recipe."
    card_note: ClassVar[str] = ""
    "What the card of a dataset has to say about texts of such a model, as a Markdown sentence."

    def resolve(self, name: str, access: Access, server_arguments: str) -> ModelSpec:
        """Identify a model. `access` holds the access settings of an endpoint, and
        `server_arguments` (JSON) how a model is served by the run. Raises `UsageError`, and
        `ModelError` if a file has to be read and cannot be."""
        raise UsageError(f"{name}: this provider cannot identify a model.")

    def names_code(self, name: str) -> bool:
        """Return whether a name refers to a function that would be imported."""
        return False

    def ensure_available(self, spec: ModelSpec, needs_choices: bool) -> ModelSpec:
        """Make sure that a model can be used; returns the spec, completed with what the check
        found. Raises `ModelError`."""
        return spec

    async def open(self, spec: ModelSpec, admit: Admit | None, bounds: Bounds) -> Model:
        """Open the client of a model in this process."""
        raise UsageError(f"{spec.reference}: this provider cannot open a model.")


PROVIDERS: Registry[Provider] = Registry(
    "model provider",
    Provider,
    package="simforge.models.providers",
    variable="PROVIDER",
    hint="A model is written provider:name, for example local:qwen2.5-coder-1.5b or scripted:",
)


def provider_of(reference: str) -> Provider:
    """The provider of a model reference. Raises `UsageError`."""
    name, colon, _ = reference.partition(":")
    if name in PROVIDERS and not colon:
        raise UsageError(
            f"a model reference needs a colon, as in {name}:NAME, but it is {reference!r}."
        )
    return PROVIDERS.find(name)


def check_code(reference: str, typed: Iterable[str]) -> None:
    """Raise `UsageError` if a reference names a function that would be imported, and the user did
    not type it on the command line: a recipe, a manifest or the options of a run may come from a
    stranger."""
    name = reference.partition(":")[2]
    if provider_of(reference).names_code(name) and not any(
        reference in text for text in typed
    ):
        raise UsageError(
            f"the model {reference} is Python code that would be imported, and only a file names "
            f"it. If you trust it, name it on the command line: --model {reference}."
        )


def is_scorer(reference: str) -> bool:
    """Return true if a reference names a model that rates texts; false for unknown providers."""
    try:
        return provider_of(reference).scores
    except NotFound:
        return False


def card_notes(references: list[str]) -> list[str]:
    """Collect a card's notes about texts of these models; unknown providers add none."""
    names = dict.fromkeys(reference.partition(":")[0] for reference in references)
    providers = [PROVIDERS.find(name) for name in names if name in PROVIDERS]
    return [provider.card_note for provider in providers if provider.card_note]


def resolve(
    reference: str, access: Access = DEFAULT_ACCESS, server_arguments: str = "{}"
) -> ModelSpec:
    """Resolve a reference to a spec. `access` holds the access settings of an endpoint.
    `server_arguments` are the arguments (JSON) with which a model is served by the run: they
    affect its answers, whereas the number of replicas does not.

    Raises `UsageError`, and `ModelError` if a file on the Hub has to be read and cannot be.
    """
    provider = provider_of(reference)
    return provider.resolve(reference.partition(":")[2], access, server_arguments)


def ensure_available(spec: ModelSpec, needs_choices: bool = False) -> ModelSpec:
    """Make sure that a model can be used: its file is in the cache (downloaded if necessary),
    or its endpoint accepts the key and has the model. Returns the spec, completed with what the
    check found. Called once per run, not by every worker. `needs_choices` says whether the run
    will send requests with choices. Raises `ModelError`."""
    return provider_of(spec.reference).ensure_available(spec, needs_choices)


async def open_model(
    spec: ModelSpec, admit: Admit | None = None, bounds: Bounds | None = None
) -> Model:
    """Open the client of a model in this process. A local model is loaded once per process and
    shared.

    An endpoint awaits `admit` right before each call. `bounds` limits an endpoint's calls in
    flight and tokens per minute.
    """
    from simforge.models.rate_limits import UNLIMITED

    return await provider_of(spec.reference).open(spec, admit, bounds or UNLIMITED)
