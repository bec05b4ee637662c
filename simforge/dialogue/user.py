"""Simulated users: decides what drives a person in a dialogue, and what they say next.

Before a dialogue starts, the person's behavior in it is drawn (`Behavior`): patience,
knowledge, and a way of writing, from human distributions. In the dialogue, they bring up their
goals and reveal one fact about themselves per turn (an agenda, after Schatzmann et al. 2007).
Their mood follows the answers, and they leave when they are done or out of patience. The
model's instructions of earlier turns never change, so each request extends the previous one.

    user = User.of(scenario, setup)
    utterance = await user.speak(calls, history)
    # Utterance(text, UserTurn(...)), or DialogueEnd(ending)
    user.hear(answer, reaction)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from simforge.dialogue.guards import GUARDS, GuardedMessage, is_courtesy, reveals
from simforge.identity import rng
from simforge.models.calls import Calls
from simforge.recipe.behavior import add_typing_errors, draw_behavior, message_length
from simforge.recipe.setup import Setup
from simforge.types import (
    Behavior,
    ChatReply,
    Ending,
    JsonObject,
    Message,
    Scenario,
    UserTurn,
)

MOODS = {1: "pleased", -1: "a little impatient", -2: "annoyed", -3: "fed up"}
"Words for a mood, by the number of pleasing answers minus the number of disappointing ones."


@dataclass(frozen=True, slots=True)
class Utterance:
    """A message that may enter the history."""

    text: str
    turn: UserTurn


@dataclass(frozen=True, slots=True)
class DialogueEnd:
    """The end of a dialogue: the person says no more, or nothing that could be used."""

    ending: Ending
    detail: str = ""
    "The guard's finding."
    rejected_by: tuple[str, ...] = ()
    "Guards that objected to the message that was not accepted."
    closing: str | None = None
    "The person's parting words."


@dataclass(slots=True)
class User:
    """The person in one branch of a dialogue."""

    scenario: Scenario
    setup: Setup
    behavior: Behavior
    notes: list[JsonObject] = field(default_factory=list)
    "The model's instructions at each turn so far."
    mood_level: int = 0
    "Number of pleasing answers minus the number of disappointing ones, within limits."
    revealed_facts: frozenset[int] = frozenset()
    raised_goals: frozenset[int] = frozenset()
    met_goals: frozenset[int] = frozenset()

    @classmethod
    def of(cls, scenario: Scenario, setup: Setup) -> User:
        return cls(
            scenario,
            setup,
            draw_behavior(setup.recipe.dialogue, setup.writing, scenario, setup.seed),
        )

    def copy(self) -> User:
        """Copies the person in their current state, for another branch."""
        return replace(self, notes=list(self.notes))

    async def speak(
        self, calls: Calls, history: Sequence[Message]
    ) -> Utterance | DialogueEnd:
        """Writes the person's next message. If a guard objects, the message is asked for once
        more, with a hint."""
        turn = len(history) // 2
        note = self.turn_variables(turn)
        if turn == 0 and self.scenario.prompt is not None:
            self.notes.append(note)
            return Utterance(
                self.scenario.prompt.text, UserTurn()
            )  # not the person's own words, so they reveal nothing about them
        draft = await self._draft(calls, history, note)
        if isinstance(draft, DialogueEnd):
            return draft
        objections, repaired = self._objections(draft, history), tuple[str, ...]()
        hint = next(
            (
                GUARDS[name].hint
                for name in objections
                if self._policy(name) in ("repair", "nudge")
            ),
            None,
        )
        if hint is not None and not self._ending_after(objections):
            second_draft = await self._draft(calls, history, note, hint, draft.text)
            if isinstance(second_draft, DialogueEnd):
                return second_draft
            second_objections = self._objections(second_draft, history)
            if self._ending_after(objections, final=True) or not self._ending_after(
                second_objections, final=True
            ):  # otherwise the first draft is kept
                repaired = tuple(
                    name for name in objections if name not in second_objections
                )
                draft, objections = second_draft, second_objections
        if (end := self._ending_after(objections, final=True)) is not None:
            return end
        self.notes.append(note)
        return Utterance(
            draft.text, self._user_turn(draft.text, note, tuple(objections), repaired)
        )

    def hear(self, answer: str, reaction: int) -> tuple[int, ...]:
        """Takes in the answer that continues the dialogue, which pleased (1), disappointed (-1)
        or did neither (0). Returns the goals that the answer addresses for the first time."""
        self.mood_level = max(
            min(self.mood_level + reaction, max(MOODS)),
            -(self.behavior.patience or -min(MOODS)),
        )
        newly_met = frozenset(
            number
            for number in self.raised_goals - self.met_goals
            if reveals(answer, self.scenario.goals[number])
        )
        self.met_goals |= newly_met
        return tuple(sorted(newly_met))

    @property
    def out_of_patience(self) -> bool:
        return (
            self.behavior.patience is not None
            and self.mood_level <= -self.behavior.patience
        )

    def turn_variables(self, turn: int) -> JsonObject:
        """Instructions to the model for this turn only."""
        scenario, dialogue = self.scenario, self.setup.recipe.dialogue
        count = len(scenario.facts)
        order = rng(self.setup.seed, "disclosure", scenario.key).sample(
            range(count), count
        )
        facts_to_tell, writing = "", self.setup.writing
        if dialogue.disclosure == "up_front" and turn == 0:
            facts_to_tell = "; ".join(scenario.facts)
        elif dialogue.disclosure == "gradually" and turn < len(order):
            facts_to_tell = scenario.facts[order[turn]]
        return {
            "turn": turn,
            "goal": scenario.goals[turn - 1] if 0 < turn <= len(scenario.goals) else "",
            "tell": facts_to_tell,
            "mood": self._mood,
            "words": message_length(
                writing, self.behavior, scenario, turn, self.setup.seed
            )
            if writing
            else None,
        }

    @property
    def _mood(self) -> str:
        return MOODS.get(max(self.mood_level, min(MOODS)), "")

    async def _draft(
        self,
        calls: Calls,
        history: Sequence[Message],
        note: JsonObject,
        hint: str | None = None,
        rejected: str = "",
    ) -> _Draft | DialogueEnd:
        generator, scenario = self.setup.user, self.scenario
        # The scenario's key separates people who happen to have the same description.
        attempt = scenario.key + ("" if hint is None else "/again")
        notes, variables = (
            [*self.notes, note],
            {**self.dialogue_variables(), "draft": rejected},
        )
        reply = await calls.ask(
            "user", generator.render(variables, history, "user", notes, hint), attempt
        )
        text, ends = reply.text, generator.front.end_marker
        silent = (
            bool(history) and not text.strip()
        )  # some servers omit the token that ends the dialogue
        if ends is not None and (ends in text or silent):
            return DialogueEnd(
                Ending.satisfied,
                closing=without_quotes(text.partition(ends)[0]) or None,
            )
        message = without_quotes(text)
        if history and is_courtesy(message):
            return DialogueEnd(Ending.satisfied, closing=message)
        typing_rng = rng(
            self.setup.seed, "typing", f"{scenario.key}/{note['turn']}/{hint is None}"
        )
        return _Draft(add_typing_errors(message, self.behavior, typing_rng), reply)

    def dialogue_variables(self) -> JsonObject:
        """Instructions to the model that hold throughout the dialogue."""
        scenario, dialogue = self.scenario, self.setup.recipe.dialogue
        guide = dialogue.conversations[scenario.kind].guide if scenario.kind else ""
        return {
            "persona": scenario.persona.text,
            "traits": scenario.persona.traits,
            "wants": self._wants,
            "need": scenario.need,
            "goals": list(scenario.goals),
            "guide": guide,
            "knowledge": self.behavior.knowledge,
            "language": self.behavior.language,
            "disclosure": dialogue.disclosure,
        }

    @property
    def _wants(self) -> str:
        return " and ".join(self.setup.space.liked(self.scenario.persona.profile))

    def _objections(self, draft: _Draft, history: Sequence[Message]) -> dict[str, str]:
        dialogue = self.setup.recipe.dialogue
        guarded = GuardedMessage(
            draft.text,
            history,
            (self.scenario.persona.text, self._wants),
            self.scenario.facts,
            dialogue.disclosure,
            draft.reply.finish,
        )
        return guarded.objections(
            [name for name in GUARDS if self._policy(name) != "off"]
        )

    def _policy(self, guard: str) -> str:
        return self.setup.recipe.dialogue.guards.get(guard, GUARDS[guard].policy)

    def _ending_after(
        self, objections: dict[str, str], final: bool = False
    ) -> DialogueEnd | None:
        """Returns the ending that the objections lead to, if any; `final` if there is no
        further try."""
        for policy in ("discard", "cut", "repair") if final else ("discard", "cut"):
            for name, finding in objections.items():
                if self._policy(name) == policy:
                    failure = Ending.loop if name == "loop" else Ending.broken_role
                    ending = Ending.guarded if policy == "discard" else failure
                    return DialogueEnd(
                        ending, f"{name}: {finding}", rejected_by=tuple(objections)
                    )
        return None

    def _user_turn(
        self,
        text: str,
        note: JsonObject,
        flags: tuple[str, ...],
        repaired: tuple[str, ...],
    ) -> UserTurn:
        scenario = self.scenario
        revealed = [
            number
            for number, fact in enumerate(scenario.facts)
            if number not in self.revealed_facts and reveals(text, fact)
        ]
        raised = [
            number
            for number, goal in enumerate(scenario.goals)
            if number not in self.raised_goals and reveals(text, goal)
        ]
        self.revealed_facts |= {*revealed}
        self.raised_goals |= {*raised}
        return UserTurn(flags, repaired, note["mood"], tuple(revealed), tuple(raised))


@dataclass(frozen=True, slots=True)
class _Draft:
    text: str
    reply: ChatReply


def without_quotes(text: str) -> str:
    """Removes the quotation marks or the dash that small models put around a message."""
    text = text.strip().removeprefix("- ").strip()
    if (
        len(text) > 1
        and text[0] in "\"'“"
        and text[-1] in "\"'”"
        and text[0] not in text[1:-1]
    ):
        text = text[1:-1].strip()
    return text
