"""Preference spaces: the axes on which people differ in what they want from an answer.

A space is a file (`personas/spaces/*.yaml`). This version knows `poles`: each dimension has two opposite poles, and
a profile names one pole per dimension. A pole says how an assistant is steered towards it, how a person who wants it
puts it, and on which side of the dimension's measure its answers fall.

Profiles are drawn independently of the persona's traits. Drawn `mirrored`, persona 2k+1 is the exact opposite of
persona 2k, so that people who share prompts want opposite things and every pole is equally common.

Source of the shipped space: Jang et al. 2023, "Personalized Soups" (arXiv 2310.11564).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from simforge import catalog, documents, measures
from simforge.documents import Strict
from simforge.identity import rng
from simforge.types import Profile


class Pole(Strict):
    """One end of a dimension."""

    steer: str
    "What an assistant is told, as a sentence of a system message."
    wants: str
    "What a person who wants it likes, as it completes 'likes answers that are ...'."
    side: Literal["low", "high"] | None = None
    "The side of the measure on which answers of this pole fall."


class Dimension(Strict):
    """One axis with two poles."""

    poles: Annotated[dict[str, Pole], Field(min_length=2, max_length=2)]
    measure: str | None = None
    "Programmatic measure of the axis, from `simforge.measures`."
    gap: Annotated[float, Field(ge=0)] = 0.0
    "How far apart two answers must be for the measure to tell them apart, in its unit."

    @model_validator(mode="after")
    def _measured(self) -> Dimension:
        if self.measure is not None:
            if self.measure not in measures.MEASURES:
                raise ValueError(f"there is no measure {self.measure!r}; there are: {', '.join(measures.MEASURES)}")
            if {pole.side for pole in self.poles.values()} != {"low", "high"}:
                raise ValueError("a measured dimension needs one pole with side: low and one with side: high")
        return self


class Space(Strict):
    """A preference space file."""

    description: str
    "What the space is, in a line or two."
    kind: Literal["poles"]
    "The form of its profiles."
    source: str
    "Where it comes from."
    dimensions: Annotated[dict[str, Dimension], Field(min_length=1)]
    "In the order of the profile's names and values."

    def opposite(self, dimension: str, pole: str) -> str:
        """The other pole."""
        return next(name for name in self.dimensions[dimension].poles if name != pole)

    def steering(self, poles: dict[str, str]) -> str:
        """The steering sentences of some dimensions' poles, joined by a space."""
        return " ".join(self.dimensions[name].poles[pole].steer for name, pole in poles.items())

    def wishes(self, profile: Profile) -> list[str]:
        """What the person likes, one phrase per dimension."""
        pairs = zip(profile.names, profile.values, strict=True)
        return [self.dimensions[name].poles[pole].wants for name, pole in pairs]


def load(reference: str) -> Space:
    """Read a space by name or path; raises `RecipeError` with all its mistakes."""
    found = catalog.entry("personas", reference if catalog.is_path(reference) else f"spaces/{reference}")
    return documents.validated(documents.read(found.text, found.label), Space)


def draw(space: Space, name: str, seed: int, index: int, mirrored: bool) -> Profile:
    """The profile of persona `index`: uniform over the poles, opposite to its twin's where `mirrored`."""
    twin = index // 2 if mirrored else index
    source = rng(seed, "profile", f"{name}/{twin}")
    values = []
    for dimension, axis in space.dimensions.items():
        pole = source.choice(list(axis.poles))
        values.append(space.opposite(dimension, pole) if mirrored and index % 2 else pole)
    return Profile(space=name, names=tuple(space.dimensions), values=tuple(values))
