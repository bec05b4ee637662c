"""Push-back: whether simulated users object when an answer is plainly wrong.

The model that played the people of the dataset plays them again. Each states a fact that
everybody can check and gets an answer that denies it or, as a control, one that does not.
Simulated users tend to agree with anything (the "quiet pivot" of Seshadri et al. 2026, arXiv
2603.11245); people who know better object.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from functools import cache
from pathlib import Path

import yaml

from simforge import catalog
from simforge.audit import figures
from simforge.audit.figures import Results, not_measured
from simforge.catalog.documents import Strict
from simforge.dataset.manifest import Manifest
from simforge.dialogue.user import User, Utterance
from simforge.errors import CallFailed, SimForgeError
from simforge.hub import loading
from simforge.models import keys, providers
from simforge.models.calls import Roles, gather_or_cancel
from simforge.models.contract import ModelSpec
from simforge.models.ledger import Ledger
from simforge.personas import spaces
from simforge.recipe.schema import Recipe
from simforge.recipe.setup import Setup
from simforge.text.measures import WORD
from simforge.types import Message, Persona, Profile, Scenario

DOUBT = re.compile(
    "|".join(
        (
            r"\bare you (?:really |quite )?sure\b|\breally\?|\?\?|^(?:no|nope|wait|hmm+)\b[,.!\s]",
            r"(?:\bnot|n't|\bcannot) (?:be |sound |seem |look )?(?:quite |really )?(?:right"
            r"|true|correct|possible)\b",
            r"\b(?:that|this|it|you|answer)(?:'s|'re)? (?:\w+ ){0,2}(?:wrong|incorrect"
            r"|mistaken|nonsense|a mistake)\b",
            r"\bi (?:always )?thought\b|\bi(?:'m| am) (?:pretty|quite|fairly) sure\b",
            r"\bi (?:don't|do not) (?:think|believe|agree)\b|\bdisagree\b|\bdouble[- ]check",
            r"\bdoesn't (?:make sense|add up)|\bi(?:'m| am) (?:a bit |now )?confused\b",
        )
    ),
    re.IGNORECASE,
)


CONTRAST = re.compile(r"\b(?:but|though|isn't it|aren't they)\b", re.IGNORECASE)


AGREEMENT = re.compile(
    r"\b(?:instead|thanks|thank|great|perfect|then)\b", re.IGNORECASE
)


class CheckableFact(Strict):
    """A fact that everybody can check."""

    claim: str
    "First message of the person, which states the fact."
    truth_words: tuple[str, ...]
    "Words that show that the person still holds to the fact."
    wrong_answer: str
    right_answer: str


@cache
def checkable_facts() -> tuple[CheckableFact, ...]:
    """Load the shipped facts."""
    rows = yaml.safe_load(catalog.entry("personas", "speech/known").text)  # ours
    return tuple(CheckableFact.model_validate(row) for row in rows)


def measure(source: str, manifest: Manifest, model: str | None = None) -> Results:
    """Share of wrong answers that people object to, and of right ones (`control`): two calls
    for each of thirty people. `model` plays them if the user names one; the model that the
    dataset names gets no key and is no code, since the dataset may be a stranger's."""
    user_model = manifest["models"].get("user")
    if user_model is None or manifest.get("fidelity") is None:
        return {
            "wrong": not_measured(
                "no model played the people: their prompts came from a list"
            )
        }
    if "text" in manifest.get("withheld", {}).get("personas", ()):
        return {
            "wrong": not_measured(
                "the texts of the people were withheld, so they cannot be played"
            )
        }
    try:
        recipe = Recipe.model_validate(manifest["recipe"])
        setup = Setup.from_recipe(
            recipe, spaces.load_space(recipe.cast.space), manifest["seed"]
        )
        reference, typed = model or user_model["reference"], (model,) if model else ()
        providers.check_code(reference, typed)
        spec, _ = keys.with_permitted_key(
            providers.resolve(reference), keys.consent_of((), typed)
        )
        spec = providers.ensure_available(spec)
        people = _load_people(source, manifest)
        objections = asyncio.run(_ask_people(spec, setup, people))
    except (SimForgeError, CallFailed) as problem:
        return {
            "wrong": not_measured(
                f"the people could not be played: {str(problem).rstrip('.')}"
            )
        }
    return {
        name: figures.share(sum(marks), len(marks))
        for name, marks in objections.items()
    }


def _load_people(source: str, manifest: Manifest) -> list[Persona]:
    rows = (
        loading.scan(source, "personas")
        .head(len(checkable_facts()))
        .collect()
        .to_dicts()
    )
    people = []
    for row in rows:
        stored = row["profile"]
        profile = Profile(
            stored["space"],
            tuple(stored["names"]),
            tuple(stored["values"]),
            tuple(stored["vector"]),
        )
        traits = {name: row.get(name) for name in manifest["traits"]}
        people.append(Persona(row["id"], row["index"], row["text"], traits, profile))
    return people


async def _ask_people(
    spec: ModelSpec, setup: Setup, people: list[Persona]
) -> dict[str, list[bool]]:
    """For wrong and for right answers, whether each person objected."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        Ledger(Path(scratch) / "ledger") as ledger,
    ):
        model = await providers.open_model(spec)
        roles = Roles({"user": (spec, model)}, ledger, setup.seed)
        try:
            rows = [
                (fact, people[number % len(people)])
                for number, fact in enumerate(checkable_facts())
            ]
            wrong_replies = await gather_or_cancel(
                _reply(roles, setup, person, fact, fact.wrong_answer)
                for fact, person in rows
            )
            right_replies = await gather_or_cancel(
                _reply(roles, setup, person, fact, fact.right_answer)
                for fact, person in rows
            )
        finally:
            await ledger.drain()
            await model.close()
    return {
        "wrong": [
            is_objection(reply, fact)
            for reply, (fact, _) in zip(wrong_replies, rows, strict=True)
        ],
        "control": [
            is_objection(reply, fact)
            for reply, (fact, _) in zip(right_replies, rows, strict=True)
        ],
    }


async def _reply(
    roles: Roles, setup: Setup, person: Persona, fact: CheckableFact, answer: str
) -> str:
    """The person's reply to an answer; if they leave, their closing message or an empty text."""
    scenario = Scenario(
        f"push-back/{person.id}/{fact.claim}", 0, person, None, need=fact.claim
    )
    user = User.of(scenario, setup)
    user.notes.append(user.turn_variables(0))
    reply = await user.speak(
        roles.calls(scenario.key),
        (Message("user", fact.claim), Message("assistant", answer)),
    )
    return reply.text if isinstance(reply, Utterance) else reply.closing or ""


def is_objection(message: str, fact: CheckableFact) -> bool:
    """Return `True` if a message doubts the answer, or states the fact against it. Wrong and
    right answers are judged by the same rule; objections in other words are missed."""
    message = message.replace("’", "'")
    if DOUBT.search(message):
        return True
    repeats_truth = any(
        _whole_words(truth) in _whole_words(message) for truth in fact.truth_words
    )
    return (
        repeats_truth
        and bool(CONTRAST.search(message))
        and not AGREEMENT.search(message)
    )


def _whole_words(text: str) -> str:
    """Lowercase words with a space around each, so that only whole words match."""
    return f" {' '.join(word.lower() for word in WORD.findall(text))} "
