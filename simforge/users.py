"""Simulated users: what moves a person in a dialogue, and what they say next.

Before a dialogue starts it is drawn how the person will behave in it (`Conduct`): patience, knowledge, and a way of
writing out of human distributions. In the dialogue they bring up their goals and tell about themselves one thing a turn
(an agenda, after Schatzmann et al. 2007), their mood follows the answers, and they leave when they are done or have had
enough. What the model is told at each turn stays as it was then, so that its requests extend each other.

    user = User.of(scenario, script)
    said = await user.speak(calls, history)  ->  Spoken(text, UserTurn(...)), or Left(ending)
    user.hear(answer, reaction)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from simforge import conduct as conducts
from simforge.conduct import typed
from simforge.guards import GUARDS, Guarded, courteous, tells
from simforge.identity import rng
from simforge.roles import Calls
from simforge.script import Script
from simforge.types import ChatReply, Conduct, Ending, Message, Scenario, UserTurn

MOODS = {1: "pleased", -1: "a little impatient", -2: "annoyed", -3: "fed up"}
"Words for a mood, by how many more answers pleased than disappointed."


@dataclass(frozen=True, slots=True)
class Spoken:
    """A message that may enter the history."""

    text: str
    turn: UserTurn


@dataclass(frozen=True, slots=True)
class Left:
    """The person says no more, or nothing that could be used."""

    ending: Ending
    detail: str = ""
    "What a guard found."
    rejected: tuple[str, ...] = ()
    "Guards that object to the message that was not let in."
    closing: str | None = None
    "What they said in leaving."


@dataclass(slots=True)
class User:
    """The person in one line of a dialogue."""

    scenario: Scenario
    script: Script
    conduct: Conduct
    notes: list[dict[str, Any]] = field(default_factory=list)
    "What the model was told at each turn."
    level: int = 0
    "How many more answers pleased than disappointed."
    revealed: frozenset[int] = frozenset()
    raised: frozenset[int] = frozenset()
    met: frozenset[int] = frozenset()

    @classmethod
    def of(cls, scenario: Scenario, script: Script) -> User:
        return cls(scenario, script, conducts.draw(script.recipe.dialogue, script.writing, scenario, script.seed))

    def again(self) -> User:
        """The same person as they are now, for another line."""
        return replace(self, notes=list(self.notes))

    async def speak(self, calls: Calls, history: Sequence[Message]) -> Spoken | Left:
        """What the person says next. A message that a guard objects to is asked for once more, with a hint."""
        turn = len(history) // 2
        note = self.told_at(turn)
        if turn == 0 and self.scenario.prompt is not None:
            self.notes.append(note)
            return Spoken(self.scenario.prompt.text, UserTurn())  # not the person's words: they tell nothing of them
        draft = await self._draft(calls, history, note)
        if isinstance(draft, Left):
            return draft
        kept, mended = self._objections(draft, history), tuple[str, ...]()
        hint = next((GUARDS[name].hint for name in kept if self._follows(name) in ("repair", "nudge")), None)
        if hint is not None and not self._fatal(kept):
            other = await self._draft(calls, history, note, hint, draft.text)
            if isinstance(other, Left):
                return other
            second = self._objections(other, history)
            if self._fatal(kept, final=True) or not self._fatal(second, final=True):  # else the first will do
                mended = tuple(name for name in kept if name not in second)
                draft, kept = other, second
        if (left := self._fatal(kept, final=True)) is not None:
            return left
        self.notes.append(note)
        return Spoken(draft.text, self._told(draft.text, note, tuple(kept), mended))

    def hear(self, answer: str, reaction: int) -> tuple[int, ...]:
        """Take in the answer that the dialogue goes on with, which pleased (1), disappointed (-1) or did neither. Gives
        the goals that it takes up."""
        self.level = max(min(self.level + reaction, max(MOODS)), -(self.conduct.patience or -min(MOODS)))
        now = frozenset(n for n in self.raised - self.met if tells(answer, self.scenario.goals[n]))
        self.met |= now
        return tuple(sorted(now))

    @property
    def has_enough(self) -> bool:
        return self.conduct.patience is not None and self.level <= -self.conduct.patience

    def told_at(self, turn: int) -> dict[str, Any]:
        """What the model is told at this turn and not before."""
        scenario, dialogue = self.scenario, self.script.recipe.dialogue
        count = len(scenario.facts)
        order = rng(self.script.seed, "disclosure", scenario.key).sample(range(count), count)
        tell, way = "", self.script.writing
        if dialogue.disclosure == "up_front" and turn == 0:
            tell = "; ".join(scenario.facts)
        elif dialogue.disclosure == "gradually" and turn < len(order):
            tell = scenario.facts[order[turn]]
        return {
            "turn": turn,
            "goal": scenario.goals[turn - 1] if 0 < turn <= len(scenario.goals) else "",
            "tell": tell,
            "mood": self._mood,
            "words": conducts.length(way, self.conduct, scenario, turn, self.script.seed) if way else None,
        }

    @property
    def _mood(self) -> str:
        return MOODS.get(max(self.level, min(MOODS)), "")

    async def _draft(
        self,
        calls: Calls,
        history: Sequence[Message],
        note: dict[str, Any],
        hint: str | None = None,
        rejected: str = "",
    ) -> _Draft | Left:
        generator, scenario = self.script.user, self.scenario
        # The scenario's key separates people who happen to be described alike.
        attempt = scenario.key + ("" if hint is None else "/again")
        notes, always = [*self.notes, note], {**self.told_always(), "draft": rejected}
        reply = await calls.ask("user", generator, always, history, "user", attempt, notes=notes, hint=hint)
        text, ends = reply.text, generator.front.ends
        silent = bool(history) and not text.strip()  # some servers leave the token that ends out
        if ends is not None and (ends in text or silent):
            return Left(Ending.satisfied, closing=unquoted(text.partition(ends)[0]) or None)
        said = unquoted(text)
        if history and courteous(said):
            return Left(Ending.satisfied, closing=said)
        way = rng(self.script.seed, "typing", f"{scenario.key}/{note['turn']}/{hint is None}")
        return _Draft(typed(said, self.conduct, way), reply)

    def told_always(self) -> dict[str, Any]:
        """What the model is told throughout."""
        scenario, dialogue = self.scenario, self.script.recipe.dialogue
        guide = dialogue.conversations[scenario.kind].guide if scenario.kind else ""
        return {
            "persona": scenario.persona.text,
            "traits": scenario.persona.traits,
            "wants": self._wants,
            "need": scenario.need,
            "goals": list(scenario.goals),
            "guide": guide,
            "knowledge": self.conduct.knowledge,
            "language": self.conduct.language,
            "disclosure": dialogue.disclosure,
        }

    @property
    def _wants(self) -> str:
        return " and ".join(self.script.space.wishes(self.scenario.persona.profile))

    def _objections(self, draft: _Draft, history: Sequence[Message]) -> dict[str, str]:
        dialogue = self.script.recipe.dialogue
        guarded = Guarded(
            draft.text,
            history,
            (self.scenario.persona.text, self._wants),
            self.scenario.facts,
            dialogue.disclosure,
            draft.reply.finish,
        )
        return guarded.objections([name for name in GUARDS if self._follows(name) != "off"])

    def _follows(self, guard: str) -> str:
        return self.script.recipe.dialogue.policy(guard)

    def _fatal(self, found: dict[str, str], final: bool = False) -> Left | None:
        """The ending that objections lead to, if any: `final` where there is no further try."""
        for policy in ("discard", "cut", "repair") if final else ("discard", "cut"):
            for name, what in found.items():
                if self._follows(name) == policy:
                    other = Ending.loop if name == "loop" else Ending.broken_role
                    ending = Ending.guarded if policy == "discard" else other
                    return Left(ending, f"{name}: {what}", rejected=tuple(found))
        return None

    def _told(self, text: str, note: dict[str, Any], flags: tuple[str, ...], mended: tuple[str, ...]) -> UserTurn:
        scenario = self.scenario
        revealed = [n for n, fact in enumerate(scenario.facts) if n not in self.revealed and tells(text, fact)]
        raised = [n for n, goal in enumerate(scenario.goals) if n not in self.raised and tells(text, goal)]
        self.revealed |= {*revealed}
        self.raised |= {*raised}
        return UserTurn(flags, mended, note["mood"], tuple(revealed), tuple(raised))


@dataclass(frozen=True, slots=True)
class _Draft:
    text: str
    reply: ChatReply


def unquoted(text: str) -> str:
    """A message without the quotation marks or the dash that small models put around it."""
    text = text.strip().removeprefix("- ").strip()
    if len(text) > 1 and text[0] in "\"'“" and text[-1] in "\"'”" and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text
