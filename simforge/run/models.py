"""The models of a run: what the recipe names, as far as the user allows it.

Recipes may come from strangers. Code is imported, and keys are sent, only where the command line
says so. An endpoint that moved keeps its identity: what it answered before is not asked again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from simforge.errors import UsageError
from simforge.identity import canonical
from simforge.models import keys, providers
from simforge.models.contract import ModelSpec
from simforge.recipe.schema import Recipe
from simforge.run.options import Options
from simforge.types import Role


@dataclass(frozen=True, slots=True)
class Move:
    """An endpoint that moved: `--moved OLD=NEW`."""

    old: tuple[str, ...]
    new: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Move:
        """Parse `OLD=NEW`, each one URL or several with commas. Raises `UsageError`."""
        sides = re.split(r"=(?=https?://)", text)
        if len(sides) != 2 or not sides[0].startswith(("http://", "https://")):
            raise UsageError(
                f"--moved {text} must be written --moved OLD=NEW with two URLs, for example "
                "--moved http://a:8000/v1=http://b:8000/v1."
            )
        old, new = (
            tuple(url.rstrip("/") for url in re.split(r",(?=https?://)", side))
            for side in sides
        )
        return cls(old, new)


def model_specs(
    recipe: Recipe, roles: Iterable[Role], options: Options
) -> tuple[dict[Role, ModelSpec], list[str]]:
    """Resolve the models of roles. Returns them, and a sentence about each key that is sent or
    kept back. Raises `UsageError` for code or a key that only a file names, and `ModelError`."""
    typed = (*options.models, *options.overrides)
    consent = keys.consent_of(options.keys, options.models, options.overrides)
    check_servers(recipe, options)
    moves = [Move.parse(text) for text in options.moved]
    specs: dict[Role, ModelSpec] = {}
    sentences: dict[str, None] = {}
    for role in roles:
        reference = recipe.models[role]
        providers.check_code(reference, typed)
        spec, sentence = keys.with_permitted_key(
            _resolve(recipe, reference, moves), consent
        )
        specs[role] = spec
        if sentence:
            sentences[sentence] = None
    return specs, list(sentences)


def check_servers(recipe: Recipe, options: Options) -> None:
    """Raise `UsageError` if the servers of a recipe would run code that only a file names:
    environment variables such as `LD_PRELOAD`, or the model's own code."""
    typed = any(
        text.partition("=")[0].strip().partition(".")[0] == "servers"
        for text in options.overrides
    )
    for name, server in recipe.servers.items():
        risky = [f"environment variables ({', '.join(server.environment)})"] * bool(
            server.environment
        ) + [
            "trust-remote-code"
            for argument, value in server.arguments.items()
            if argument.lstrip("-").replace("_", "-") == "trust-remote-code" and value
        ]
        if risky and not typed:
            raise UsageError(
                f"servers.{name} sets {' and '.join(risky)}, which can run any code, and only a "
                "file says so. If you trust it, repeat the setting on the command line: "
                "--set 'servers={...}'."
            )


def _resolve(recipe: Recipe, reference: str, moves: Sequence[Move]) -> ModelSpec:
    """Resolve a reference. If its endpoint moved, the spec has the identity of the old place
    and the URLs of the new one, whichever of the two is named."""
    spec = _spec_of(recipe, reference)
    for move in moves:
        if set(move.old) <= set(spec.urls):
            return _at_urls(recipe, spec, _exchanged(spec.urls, move.old, move.new))
        if set(move.new) <= set(spec.urls):
            old_urls = _exchanged(spec.urls, move.new, move.old)
            provider = reference.partition(":")[0]
            old = _spec_of(recipe, f"{provider}:{spec.model}@{','.join(old_urls)}")
            return _at_urls(recipe, old, spec.urls)
    return spec


def _spec_of(recipe: Recipe, reference: str) -> ModelSpec:
    return providers.resolve(
        reference,
        recipe.access(reference),
        canonical(recipe.server(reference).arguments),
    )


def _at_urls(recipe: Recipe, spec: ModelSpec, urls: tuple[str, ...]) -> ModelSpec:
    """Return the spec with other URLs, and the key and headers that the recipe has for them."""
    access = recipe.access(f"openai:{spec.model}@{','.join(urls)}")
    return replace(
        spec,
        urls=urls,
        access=replace(
            spec.access, key_variable=access.key_variable, headers=access.headers
        ),
    )


def _exchanged(
    urls: tuple[str, ...], removed: tuple[str, ...], added: tuple[str, ...]
) -> tuple[str, ...]:
    """Exchange some URLs for others, at the place of the first one that is removed."""
    place = min(urls.index(url) for url in removed)
    kept = [url for url in urls if url not in removed]
    return tuple(dict.fromkeys([*kept[:place], *added, *kept[place:]]))
