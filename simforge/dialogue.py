"""A dialogue: a person and an assistant, as one coroutine.

    the person speaks -> candidates answer the same prefix -> each comparison is judged -> one answer is gone on with

Where the recipe goes on with both answers, the dialogue becomes a tree: each line of it is played by the same
coroutine, which keeps no checkpoints and knows nothing of retries, ledgers or workers. A turn enters the history
only when all of its calls succeeded. A call that fails ends the line as a discard; a bug raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from simforge import candidates as answering
from simforge import judging, judgments, pairing, safety
from simforge.errors import CallFailed
from simforge.identity import digest, rng
from simforge.judging import Bench, View
from simforge.roles import Calls, Roles, at_once
from simforge.script import Script
from simforge.types import (
    BROKEN,
    Candidate,
    Comparison,
    Condition,
    Discard,
    Ending,
    Episode,
    Judgment,
    Line,
    Message,
    Persona,
    PreferencePair,
    Scenario,
    Told,
    Turn,
)
from simforge.users import Left, User

MIDDLING = 50
"Rating of 100 that neither pleases nor disappoints."
LOST = (*BROKEN, Ending.model_error)
"Endings that are told among the discards."


@dataclass(slots=True)
class _Open:
    """A line that is being played."""

    id: str
    user: User
    calls: Calls
    room: int
    "Lines that it may become."
    parent: str | None = None
    left: int | None = None
    history: tuple[Message, ...] = ()
    turns: list[Turn] = field(default_factory=list)
    judgments: list[Judgment] = field(default_factory=list)
    pairs: list[PreferencePair] = field(default_factory=list)
    discards: list[Discard] = field(default_factory=list)
    feedback: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def winner(self) -> str | None:
        """Arm that the dialogue went on with at the turn before."""
        last = self.turns[-1] if self.turns else None
        return next((one.arm for one in last.candidates if one.id == last.continued), None) if last else None


async def play(scenario: Scenario, script: Script, roles: Roles) -> Episode:
    """Play one scenario to its ending, or its endings."""
    user = User.of(scenario, script)
    room = script.recipe.dialogue.lines if script.recipe.dialogue.continue_with == "both" else 1
    first = _Open(scenario.key, user, roles.calls(scenario.key), room)
    return Episode(scenario, user.conduct, tuple(await _line(first, script, roles)))


async def _line(line: _Open, script: Script, roles: Roles) -> list[Line]:
    """Play a line to its ending, with the lines that leave it."""
    leaving: list[_Open] = []
    try:
        left = await _turns(line, script, roles, leaving)
        if left.ending not in LOST:
            await _feedback(line, script)
    except CallFailed as problem:
        left = Left(Ending.model_error, str(problem))
    if left.ending in LOST:
        whole = left.ending == Ending.guarded
        line.discards.append(Discard(None if whole else len(line.turns), "dialogue", left.ending.value, left.detail))
        line.pairs = [] if whole else line.pairs
    own = Line(
        line.id,
        line.parent,
        line.left,
        tuple(line.turns),
        left.ending,
        left.closing,
        left.rejected,
        line.feedback,
        tuple(line.judgments),
        tuple(line.pairs),
        tuple(line.discards),
        line.calls.usage,
    )
    return [own, *(one for several in await at_once(_line(one, script, roles) for one in leaving) for one in several)]


async def _turns(line: _Open, script: Script, roles: Roles, leaving: list[_Open]) -> Left:
    for number in range(len(line.turns), script.recipe.dialogue.turns):
        if line.user.has_enough:
            return Left(Ending.gave_up)
        said = await line.user.speak(line.calls, line.history)
        if isinstance(said, Left):
            return said
        prefix = (*line.history, Message("user", said.text))
        inferred = await _inferred(prefix, line, script)
        made, dimensions = await _answers(number, prefix, inferred, line, script)
        flaws = {one.id: answering.flaw(one, said.text, script.recipe.filters) for one in made}
        labels = await _labels(line, script, made, flaws, prefix, dimensions)
        going_on = _continued(line, script, number, made, flaws, labels)
        turn = Turn(number, said.text, tuple(made), None, said.turn, inferred, labels.ratings, labels.scores)
        line.judgments += labels.judgments
        line.pairs += labels.pairs
        line.discards += labels.discards
        for other in going_on[1:]:
            leaving.append(_leaving(line, turn, other, roles))
            _go_on(leaving[-1], turn, other, prefix, _reaction(other, labels, line.user.scenario.persona, script))
        if not going_on:
            line.turns.append(turn)
            return Left(Ending.no_answer)
        _go_on(line, turn, going_on[0], prefix, _reaction(going_on[0], labels, line.user.scenario.persona, script))
    return Left(Ending.gave_up if line.user.has_enough else Ending.max_turns)


def _go_on(line: _Open, turn: Turn, answer: Candidate, prefix: tuple[Message, ...], reaction: int) -> None:
    """Enter a turn into the history."""
    met = line.user.hear(answer.text, reaction)
    line.turns.append(replace(turn, continued=answer.id, said=replace(turn.said, met=met)))
    line.history = (*prefix, Message("assistant", answer.text))


def _reaction(answer: Candidate, labels: _Labels, persona: Persona, script: Script) -> int:
    """Whether an answer pleased the person (1) or disappointed them (-1): by their rating, or because they like another
    less or more. One that they got because they prefer it says nothing."""
    if answer.id in labels.ratings:
        rating = labels.ratings[answer.id]
        return (rating > MIDDLING) - (rating < MIDDLING)
    if script.recipe.dialogue.continue_with == "preferred":
        return 0
    own = [pair for pair in labels.pairs if pair.persona is persona]
    liked = sum((pair.chosen.id == answer.id) - (pair.rejected.id == answer.id) for pair in own)
    return (liked > 0) - (liked < 0)


def _leaving(line: _Open, turn: Turn, answer: Candidate, roles: Roles) -> _Open:
    """A line that leaves another after a turn, with half of its room."""
    half = line.room // 2
    line.room -= half
    identity = digest(["line", line.id, turn.number, answer.id])
    calls = roles.calls(line.calls.dialogue)  # its prefixes are where its parent's are
    return _Open(identity, line.user.again(), calls, half, line.id, turn.number, turns=list(line.turns))


async def _feedback(line: _Open, script: Script) -> None:
    """The survey about the answer that won the opening."""
    if script.feedback is None or len(line.history) < 2 or line.parent is not None:
        return
    scenario = line.user.scenario
    answered = line.history[:2]
    filled = await judging.feedback(answered, scenario.persona, script.space, script.feedback, line.calls)
    line.feedback = filled or {}
    if filled is None:
        line.discards.append(Discard(0, "judging", "unreadable", "the survey after the dialogue"))


async def _inferred(prefix: tuple[Message, ...], line: _Open, script: Script) -> str | None:
    """What the assistant makes of the person so far."""
    if script.infer is None:
        return None
    scenario = line.user.scenario
    whole = script.recipe.dialogue.infer_from == "persona"
    variables = {"persona": scenario.persona.text if whole else ""}
    reply = await line.calls.ask("assistants", script.infer, variables, prefix, attempt=scenario.key)
    return " ".join(reply.text.split())


async def _answers(
    number: int, prefix: tuple[Message, ...], inferred: str | None, line: _Open, script: Script
) -> tuple[list[Candidate], list[str | None]]:
    """The candidates of a turn, and the dimensions that they are compared on."""
    settings, scenario = script.recipe.candidates, line.user.scenario
    dimensions = answering.contrasts(settings, script.space, scenario, script.seed, number)
    arms, samples = settings.competing(number, line.winner)
    orders = answering.plan(arms, samples, script.space, scenario, dimensions, inferred)
    return await answering.answers(orders, line.id, number, prefix, scenario, script, line.calls), dimensions


@dataclass(slots=True)
class _Labels:
    """What was decided of a turn's candidates."""

    judgments: list[Judgment] = field(default_factory=list)
    pairs: list[PreferencePair] = field(default_factory=list)
    discards: list[Discard] = field(default_factory=list)
    ratings: dict[str, float] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)


async def _labels(
    line: _Open,
    script: Script,
    made: Sequence[Candidate],
    flaws: dict[str, str | None],
    prefix: tuple[Message, ...],
    dimensions: Sequence[str | None],
) -> _Labels:
    """Judge every comparison of sound answers and make pairs or discards of all."""
    labels, bench = _Labels(), Bench(line.user.scenario, script, prefix, line.calls)
    sound = [one for one in made if flaws[one.id] is None]
    await _rate(bench, sound, labels)
    if script.recipe.labels.by == "scorers":
        labels.scores = await bench.scores(sound)
    fit = []
    for comparison in _comparisons(line, script, made, sound, labels, prefix, dimensions):
        flawed = next((one for one in (comparison.a, comparison.b) if flaws[one.id]), None)
        if flawed is None:
            fit.append(comparison)
        else:
            detail = f"{comparison.a.arm} / {comparison.b.arm}: the {flawed.arm} answer"
            people = [None, *(one.id for one in _others(script, line.user.scenario))]
            reason = flaws[flawed.id] or ""
            labels.discards += [Discard(flawed.turn, "candidates", reason, detail, person) for person in people]
    judged = await bench.judge(fit)
    unsafe = await _unsafe(bench, fit)
    for comparison, by_person in zip(fit, judged, strict=True):
        _decide(comparison, by_person, labels, script, line.user.scenario, unsafe)
    labels.pairs, surplus = pairing.at_most(labels.pairs, script.recipe.pairing.most)
    labels.discards += surplus
    return labels


async def _rate(bench: Bench, sound: Sequence[Candidate], labels: _Labels) -> None:
    """Have each sound answer rated, where the judge rates; what cannot be read is a discard and no rating."""
    judge, settings = bench.script.judge, bench.script.recipe.judge
    if judge is None or settings is None or judge.front.form != "rating":
        return
    view = View.of(bench.scenario.persona, Told.profile, bench.scenario)
    for one, rating in zip(sound, await bench.rate(sound, view, settings.panel[0]), strict=True):
        if rating is None:
            labels.discards.append(Discard(one.turn, "judging", "unreadable", f"the rating of the {one.arm} answer"))
            continue
        labels.ratings[one.id] = rating.points
        if judge.front.attributes:
            labels.scores[one.id] = rating.attributes


def _comparisons(
    line: _Open,
    script: Script,
    made: Sequence[Candidate],
    sound: Sequence[Candidate],
    labels: _Labels,
    prefix: tuple[Message, ...],
    dimensions: Sequence[str | None],
) -> list[Comparison]:
    settings, place = script.recipe.pairing, f"{line.id}/{len(line.turns)}"
    if settings.compare == "best":
        return pairing.best(prefix, sound, labels.ratings, rng(script.seed, "best", place))
    if settings.compare == "random":
        return pairing.any_two(prefix, sound, rng(script.seed, "any two", place))
    return pairing.comparisons(settings, prefix, made, dimensions)


async def _unsafe(bench: Bench, comparisons: Sequence[Comparison]) -> set[str]:
    """Answers that nobody's wishes may make the chosen one."""
    if bench.script.recipe.filters.safety == "studied":
        return set()
    answers = {one.id: one for comparison in comparisons for one in (comparison.a, comparison.b)}
    asked = bench.prefix[-1].content
    return {key for key, one in answers.items() if safety.unsafe(asked, one.text)}


def _others(script: Script, scenario: Scenario) -> tuple[Persona, ...]:
    """Who gets pairs of their own besides who had the dialogue: the audience, where a judge makes the labels."""
    return scenario.audience if script.recipe.labels.by == "judge" else ()


def _decide(
    comparison: Comparison,
    by_person: dict[str, list[Judgment]],
    labels: _Labels,
    script: Script,
    scenario: Scenario,
    unsafe: set[str],
) -> None:
    """The pair or the discard of a comparison: for who had the dialogue and, where a judge makes the labels, for each
    of their audience."""
    recipe, space = script.recipe, script.space
    for seen in by_person.values():
        labels.judgments += seen
    for person in (scenario.persona, *_others(script, scenario)):
        rules = [judgments.by_measure(comparison, space, person)]
        if person is scenario.persona:
            rules.append(judgments.by_construction(comparison, person))
        if recipe.labels.by == "scorers":
            rules.append(judgments.by_scorers(comparison, labels.scores, space, person, recipe.pairing.gap))
        found = {judgment.method: judgment for judgment in rules if judgment is not None}
        seen = [one for one in by_person.get(person.id, ()) if one.told == Told.profile]
        labels.judgments += found.values()
        outcome = pairing.decide(comparison, person, found, seen[-1] if seen else None, recipe, unsafe, script.seed)
        if isinstance(outcome, PreferencePair):
            labels.pairs.append(outcome)
        else:
            labels.discards.append(outcome)


def _continued(
    line: _Open,
    script: Script,
    number: int,
    made: Sequence[Candidate],
    flaws: dict[str, str | None],
    labels: _Labels,
) -> list[Candidate]:
    """The answers that enter the history, at most two; none that is empty, cut off or quotes its steering may."""
    policy = script.recipe.dialogue.continue_with
    sound = [one for one in made if flaws[one.id] is None]
    if not sound:
        return []
    if policy == "random":
        return [rng(script.seed, "continue", f"{line.id}/{number}").choice(sound)]
    own = [pair for pair in labels.pairs if pair.persona is line.user.scenario.persona]
    if own:
        pair = own[0]
        if policy == "both" and line.room > 1:
            return [pair.chosen, pair.rejected]
        return [pair.rejected if policy == "rejected" else pair.chosen]
    rated = [one for one in sound if one.id in labels.ratings]
    if rated:
        ordered = sorted(rated, key=lambda one: labels.ratings[one.id], reverse=policy != "rejected")
        return [ordered[0]]
    return [next((one for one in sound if one.condition == Condition.own), sound[0])]
