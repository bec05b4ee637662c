"""Push-back: whether simulated users object when an answer is plainly wrong.

People of the dataset are played once more by the model that played them. Each says something that everybody can check
and gets an answer that denies it, or as a control one that does not. Simulated users tend to go along with anything
(the "quiet pivot" of Seshadri et al. 2026, arXiv 2603.11245); people who know better say so.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from simforge import catalog, loading, models, preferences
from simforge.audit import figures
from simforge.audit.figures import not_measured
from simforge.config import Recipe
from simforge.documents import Strict
from simforge.errors import CallFailed, SimForgeError
from simforge.ledger import Ledger
from simforge.measures import WORD
from simforge.models import ModelSpec
from simforge.roles import Roles, at_once
from simforge.script import Script
from simforge.types import Message, Persona, Profile, Scenario
from simforge.users import Spoken, User

DOUBT = re.compile(
    "|".join(
        (
            r"\bare you (?:really |quite )?sure\b|\breally\?|\?\?|^(?:no|nope|wait|hmm+)\b[,.!\s]",
            r"(?:\bnot|n't|\bcannot) (?:be |sound |seem |look )?(?:quite |really )?(?:right|true|correct|possible)\b",
            r"\b(?:that|this|it|you|answer)(?:'s|'re)? (?:\w+ ){0,2}(?:wrong|incorrect|mistaken|nonsense|a mistake)\b",
            r"\bi (?:always )?thought\b|\bi(?:'m| am) (?:pretty|quite|fairly) sure\b",
            r"\bi (?:don't|do not) (?:think|believe|agree)\b|\bdisagree\b|\bdouble[- ]check",
            r"\bdoesn't (?:make sense|add up)|\bi(?:'m| am) (?:a bit |now )?confused\b",
        )
    ),
    re.IGNORECASE,
)
CONTRAST = re.compile(r"\b(?:but|though|isn't it|aren't they)\b", re.IGNORECASE)
GOING_ALONG = re.compile(r"\b(?:instead|thanks|thank|great|perfect|then)\b", re.IGNORECASE)


class Known(Strict):
    """Something that everybody can check."""

    says: str
    "What the person says in the first place."
    truth: tuple[str, ...]
    "Words by which they hold on to it."
    wrong: str
    right: str


@cache
def known() -> tuple[Known, ...]:
    """The shipped ones."""
    rows = yaml.safe_load(catalog.entry("personas", "speech/known").text)
    return tuple(Known.model_validate(row) for row in rows)


def measure(source: str, manifest: dict[str, Any]) -> dict[str, Any]:
    """The share of wrong answers that people object to, and of right ones (`control`): two calls for each of thirty."""
    about = manifest["models"].get("user")
    if about is None or manifest.get("fidelity") is None:
        return {"wrong": not_measured("no model played the people: they asked prompts of a list")}
    if "text" in manifest.get("withheld", {}).get("personas", ()):
        return {"wrong": not_measured("who the people are was withheld, so they cannot be played")}
    try:
        recipe = Recipe.model_validate(manifest["recipe"])
        script = Script.of(recipe, preferences.load(recipe.cast.space), manifest["seed"])
        spec = models.fetch(models.resolve(about["reference"]))
        people = _people(source, manifest)
        said = asyncio.run(_asked(spec, script, people))
    except (SimForgeError, CallFailed) as problem:
        return {"wrong": not_measured(f"the people could not be played: {str(problem).rstrip('.')}")}
    return {name: figures.share(sum(marks), len(marks)) for name, marks in said.items()}


def _people(source: str, manifest: dict[str, Any]) -> list[Persona]:
    rows = loading.scan(source, "personas").head(len(known())).collect().to_dicts()
    found = []
    for row in rows:
        one = row["profile"]
        profile = Profile(one["space"], tuple(one["names"]), tuple(one["values"]), tuple(one["vector"]))
        traits = {name: row.get(name) for name in manifest["traits"]}
        found.append(Persona(row["id"], row["index"], row["text"], traits, profile))
    return found


async def _asked(spec: ModelSpec, script: Script, people: list[Persona]) -> dict[str, list[bool]]:
    """Of each thing and answer, whether the person objected."""
    with tempfile.TemporaryDirectory() as scratch, Ledger(Path(scratch) / "ledger") as ledger:
        model = await models.open_model(spec)
        roles = Roles({"user": (spec, model)}, ledger, script.seed)
        try:
            rows = [(one, people[number % len(people)]) for number, one in enumerate(known())]
            wrong = await at_once(_reply(roles, script, who, one, one.wrong) for one, who in rows)
            right = await at_once(_reply(roles, script, who, one, one.right) for one, who in rows)
        finally:
            await ledger.drain()
            await model.close()
    return {
        "wrong": [objects(said, one) for said, (one, _) in zip(wrong, rows, strict=True)],
        "control": [objects(said, one) for said, (one, _) in zip(right, rows, strict=True)],
    }


async def _reply(roles: Roles, script: Script, who: Persona, one: Known, answer: str) -> str:
    """What the person says to an answer; nothing where they leave."""
    scenario = Scenario(f"push-back/{who.id}/{one.says}", 0, who, None, need=one.says)
    user = User.of(scenario, script)
    user.notes.append(user.told_at(0))
    said = await user.speak(roles.calls(scenario.key), (Message("user", one.says), Message("assistant", answer)))
    return said.text if isinstance(said, Spoken) else said.closing or ""


def objects(said: str, one: Known) -> bool:
    """Whether a message doubts what was answered, or holds what was known against it. Both sides are read by the same
    rule; objections in other words are missed."""
    said = said.replace("’", "'")
    if DOUBT.search(said):
        return True
    held = any(_plain(truth) in _plain(said) for truth in one.truth)
    return held and bool(CONTRAST.search(said)) and not GOING_ALONG.search(said)


def _plain(text: str) -> str:
    """Whole words, so that one is only found as such."""
    return f" {' '.join(word.lower() for word in WORD.findall(text))} "
