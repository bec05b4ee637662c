"""Dialogue: plays one dialogue between a person and an assistant, as one coroutine.

    the person writes -> candidates answer the same prefix -> each comparison is judged
    -> one answer continues the dialogue

If the recipe continues with both answers, the dialogue becomes a tree. The same coroutine plays
each of its branches; it keeps no checkpoints and knows nothing about retries, ledgers or
workers. A turn enters the history only when all of its calls succeeded. A failed call ends the
branch as a discard; a bug raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

from simforge.dialogue import answer_filters, safety
from simforge.dialogue import candidates as answering
from simforge.dialogue.user import DialogueEnd, User
from simforge.errors import CallFailed
from simforge.identity import digest, rng
from simforge.judging import pairing, survey
from simforge.judging.judge import Perspective, TurnJudge
from simforge.judging.rules import by_construction, by_measure, by_scorers
from simforge.models.calls import Calls, Roles, gather_or_cancel
from simforge.recipe.conditions import CONDITIONS, SteeringRequest
from simforge.recipe.setup import Setup
from simforge.types import (
    GUARD_ENDINGS,
    Branch,
    Candidate,
    Comparison,
    Discard,
    Ending,
    Episode,
    Judgment,
    Message,
    Persona,
    PreferencePair,
    ProfileShown,
    Scenario,
    Turn,
)

NEUTRAL_RATING = 50
"Rating, of 100, that neither pleases nor disappoints."


FAILED_ENDINGS = (*GUARD_ENDINGS, Ending.model_error)
"Endings that are listed among the discards."


@dataclass(slots=True)
class _OpenBranch:
    """State of a branch that is being played."""

    id: str
    user: User
    calls: Calls
    max_branches: int
    "Number of branches that it may become, itself included."
    parent: str | None = None
    branched_at: int | None = None
    history: tuple[Message, ...] = ()
    turns: list[Turn] = field(default_factory=list)
    judgments: list[Judgment] = field(default_factory=list)
    pairs: list[PreferencePair] = field(default_factory=list)
    discards: list[Discard] = field(default_factory=list)
    feedback: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def winning_variant(self) -> str | None:
        """Variant of the answer that continued the dialogue at the previous turn."""
        last = self.turns[-1] if self.turns else None
        return (
            next(
                (
                    candidate.variant
                    for candidate in last.candidates
                    if candidate.id == last.continued
                ),
                None,
            )
            if last
            else None
        )


async def play(scenario: Scenario, setup: Setup, roles: Roles) -> Episode:
    """Plays one scenario to its end, with all of its branches."""
    user = User.of(scenario, setup)
    room = (
        setup.recipe.dialogue.max_branches
        if setup.recipe.dialogue.continue_with == "both"
        else 1
    )
    first = _OpenBranch(scenario.key, user, roles.calls(scenario.key), room)
    return Episode(
        scenario, user.behavior, tuple(await _play_branch(first, setup, roles))
    )


async def _play_branch(branch: _OpenBranch, setup: Setup, roles: Roles) -> list[Branch]:
    """Plays a branch to its end, and then the branches that fork from it."""
    new_branches: list[_OpenBranch] = []
    try:
        end = await _play_turns(branch, setup, roles, new_branches)
        if end.ending not in FAILED_ENDINGS:
            await _fill_survey(branch, setup)
    except CallFailed as problem:
        end = DialogueEnd(Ending.model_error, str(problem))
    if end.ending in FAILED_ENDINGS:
        whole_dialogue = end.ending == Ending.guarded
        branch.discards.append(
            Discard(
                None if whole_dialogue else len(branch.turns),
                "dialogue",
                end.ending.value,
                end.detail,
            )
        )
        branch.pairs = [] if whole_dialogue else branch.pairs
    finished = Branch(
        branch.id,
        branch.parent,
        branch.branched_at,
        tuple(branch.turns),
        end.ending,
        end.closing,
        end.rejected_by,
        branch.feedback,
        tuple(branch.judgments),
        tuple(branch.pairs),
        tuple(branch.discards),
        branch.calls.usage,
    )
    return [
        finished,
        *(
            subbranch
            for branches in await gather_or_cancel(
                _play_branch(new_branch, setup, roles) for new_branch in new_branches
            )
            for subbranch in branches
        ),
    ]


async def _play_turns(
    branch: _OpenBranch, setup: Setup, roles: Roles, new_branches: list[_OpenBranch]
) -> DialogueEnd:
    for number in range(len(branch.turns), setup.recipe.dialogue.turns):
        if branch.user.out_of_patience:
            return DialogueEnd(Ending.gave_up)
        utterance = await branch.user.speak(branch.calls, branch.history)
        if isinstance(utterance, DialogueEnd):
            return utterance
        prefix = (*branch.history, Message("user", utterance.text))
        inferred = await _infer_person(prefix, branch, setup)
        candidates, dimensions = await _ask_candidates(
            number, prefix, inferred, branch, setup
        )
        flaws = {
            candidate.id: answer_filters.find_flaw(
                candidate, utterance.text, setup.recipe.filters
            )
            for candidate in candidates
        }
        labels = await _label_turn(branch, setup, candidates, flaws, prefix, dimensions)
        continuations = _continuations(branch, setup, number, candidates, flaws, labels)
        turn = Turn(
            number,
            utterance.text,
            tuple(candidates),
            None,
            utterance.turn,
            inferred,
            labels.ratings,
            labels.scores,
        )
        branch.judgments += labels.judgments
        branch.pairs += labels.pairs
        branch.discards += labels.discards
        for alternative in continuations[1:]:
            new_branches.append(_fork(branch, turn, alternative, roles))
            _append_turn(
                new_branches[-1],
                turn,
                alternative,
                prefix,
                _reaction(alternative, labels, branch.user.scenario.persona, setup),
            )
        if not continuations:
            branch.turns.append(turn)
            return DialogueEnd(Ending.no_answer)
        _append_turn(
            branch,
            turn,
            continuations[0],
            prefix,
            _reaction(continuations[0], labels, branch.user.scenario.persona, setup),
        )
    return DialogueEnd(
        Ending.gave_up if branch.user.out_of_patience else Ending.max_turns
    )


def _append_turn(
    branch: _OpenBranch,
    turn: Turn,
    answer: Candidate,
    prefix: tuple[Message, ...],
    reaction: int,
) -> None:
    """Adds a turn to the history."""
    met_goals = branch.user.hear(answer.text, reaction)
    branch.turns.append(
        replace(
            turn,
            continued=answer.id,
            user_turn=replace(turn.user_turn, met_goals=met_goals),
        )
    )
    branch.history = (*prefix, Message("assistant", answer.text))


def _reaction(
    answer: Candidate, labels: _TurnLabels, persona: Persona, setup: Setup
) -> int:
    """Returns whether an answer pleased the person (1), disappointed them (-1) or did neither
    (0). If they rated it, their rating decides; otherwise, whether it was chosen over or
    rejected for another answer. If the dialogue continues with the preferred answer, the result
    is 0, because being preferred says nothing then."""
    if answer.id in labels.ratings:
        rating = labels.ratings[answer.id]
        return (rating > NEUTRAL_RATING) - (rating < NEUTRAL_RATING)
    if setup.recipe.dialogue.continue_with == "preferred":
        return 0
    own_pairs = [pair for pair in labels.pairs if pair.persona is persona]
    liked = sum(
        (pair.chosen.id == answer.id) - (pair.rejected.id == answer.id)
        for pair in own_pairs
    )
    return (liked > 0) - (liked < 0)


def _fork(
    branch: _OpenBranch, turn: Turn, answer: Candidate, roles: Roles
) -> _OpenBranch:
    """Forks a branch from another one after a turn and gives it half of the branches that the
    other may still become."""
    half = branch.max_branches // 2
    branch.max_branches -= half
    identity = digest(["line", branch.id, turn.number, answer.id])
    calls = roles.calls(
        branch.calls.dialogue
    )  # its prefixes are at the same place as its parent's
    return _OpenBranch(
        identity,
        branch.user.copy(),
        calls,
        half,
        branch.id,
        turn.number,
        turns=list(branch.turns),
    )


async def _fill_survey(branch: _OpenBranch, setup: Setup) -> None:
    """Fills in the survey about the answer that won the first turn."""
    if setup.feedback is None or len(branch.history) < 2 or branch.parent is not None:
        return
    scenario = branch.user.scenario
    first_exchange = branch.history[:2]
    filled = await survey.feedback(
        first_exchange, scenario.persona, setup.space, setup.feedback, branch.calls
    )
    branch.feedback = filled or {}
    if filled is None:
        branch.discards.append(
            Discard(0, "judging", "unreadable", "the survey after the dialogue")
        )


async def _infer_person(
    prefix: tuple[Message, ...], branch: _OpenBranch, setup: Setup
) -> str | None:
    """Asks the assistant what it infers about the person so far."""
    if setup.infer is None:
        return None
    scenario = branch.user.scenario
    from_persona = setup.recipe.dialogue.infer_from == "persona"
    variables = {"persona": scenario.persona.text if from_persona else ""}
    reply = await branch.calls.ask(
        "assistants", setup.infer.render(variables, prefix), scenario.key
    )
    return " ".join(reply.text.split())


async def _ask_candidates(
    number: int,
    prefix: tuple[Message, ...],
    inferred: str | None,
    branch: _OpenBranch,
    setup: Setup,
) -> tuple[list[Candidate], list[str | None]]:
    """Returns the candidates of a turn and the dimensions on which they are compared."""
    settings, scenario = setup.recipe.candidates, branch.user.scenario
    dimensions = answering.contrast_dimensions(
        settings, setup.space, scenario, setup.seed, number
    )
    variants, samples = settings.variants_at(number, branch.winning_variant)
    requests = answering.plan_answers(
        variants,
        samples,
        SteeringRequest(setup.space, scenario, dimensions, inferred),
    )
    return await answering.request_answers(
        requests, branch.id, number, prefix, scenario, setup, branch.calls
    ), dimensions


@dataclass(slots=True)
class _TurnLabels:
    """Labels of a turn's candidates."""

    judgments: list[Judgment] = field(default_factory=list)
    pairs: list[PreferencePair] = field(default_factory=list)
    discards: list[Discard] = field(default_factory=list)
    ratings: dict[str, float] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)


async def _label_turn(
    branch: _OpenBranch,
    setup: Setup,
    candidates: Sequence[Candidate],
    flaws: dict[str, str | None],
    prefix: tuple[Message, ...],
    dimensions: Sequence[str | None],
) -> _TurnLabels:
    """Judges every comparison of flawless answers and turns each comparison into pairs or
    discards."""
    labels, turn_judge = (
        _TurnLabels(),
        TurnJudge(branch.user.scenario, setup, prefix, branch.calls),
    )
    flawless = [candidate for candidate in candidates if flaws[candidate.id] is None]
    await _rate_candidates(turn_judge, flawless, labels)
    if setup.recipe.labels.by == "scorers":
        labels.scores = await turn_judge.scores(flawless)
    fit = []
    for comparison in _comparisons(
        branch, setup, candidates, flawless, labels, prefix, dimensions
    ):
        flawed = next(
            (
                candidate
                for candidate in (comparison.a, comparison.b)
                if flaws[candidate.id]
            ),
            None,
        )
        if flawed is None:
            fit.append(comparison)
        else:
            detail = f"{comparison.a.variant} / {comparison.b.variant}: the {flawed.variant} answer"
            people = [
                None,
                *(
                    person.id
                    for person in _labelled_audience(setup, branch.user.scenario)
                ),
            ]
            reason = flaws[flawed.id] or ""
            labels.discards += [
                Discard(flawed.turn, "candidates", reason, detail, person)
                for person in people
            ]
    judged = await turn_judge.judge(fit)
    unsafe = await _unsafe_ids(turn_judge, fit)
    for comparison, by_person in zip(fit, judged, strict=True):
        _label_comparison(
            comparison, by_person, labels, setup, branch.user.scenario, unsafe
        )
    labels.pairs, surplus = pairing.limit_pairs(
        labels.pairs, setup.recipe.pairing.max_pairs
    )
    labels.discards += surplus
    return labels


async def _rate_candidates(
    turn_judge: TurnJudge, flawless: Sequence[Candidate], labels: _TurnLabels
) -> None:
    """Rates each flawless answer if the judge rates. A panel's ratings are averaged; an answer
    that no judge rated readably becomes a discard."""
    judge, settings = turn_judge.setup.judge, turn_judge.setup.recipe.judge
    if judge is None or settings is None or not turn_judge.form.rates:
        return
    perspective = Perspective.of(
        turn_judge.scenario.persona, ProfileShown.profile, turn_judge.scenario
    )
    by_judge = await gather_or_cancel(
        turn_judge.rate(flawless, perspective, role) for role in settings.panel
    )
    for candidate, ratings in zip(flawless, zip(*by_judge, strict=True), strict=True):
        readable = [rating for rating in ratings if rating is not None]
        if not readable:
            labels.discards.append(
                Discard(
                    candidate.turn,
                    "judging",
                    "unreadable",
                    f"the rating of the {candidate.variant} answer",
                )
            )
            continue
        labels.ratings[candidate.id] = fmean(rating.points for rating in readable)
        if judge.front.attributes:
            labels.scores[candidate.id] = {
                name: fmean(rating.attributes[name] for rating in readable)
                for name in readable[0].attributes
            }


def _comparisons(
    branch: _OpenBranch,
    setup: Setup,
    candidates: Sequence[Candidate],
    flawless: Sequence[Candidate],
    labels: _TurnLabels,
    prefix: tuple[Message, ...],
    dimensions: Sequence[str | None],
) -> list[Comparison]:
    settings, place = setup.recipe.pairing, f"{branch.id}/{len(branch.turns)}"
    if settings.compare == "best":
        return pairing.best_and_random(
            prefix, flawless, labels.ratings, rng(setup.seed, "best", place)
        )
    if settings.compare == "random":
        return pairing.random_pair(prefix, flawless, rng(setup.seed, "any two", place))
    return pairing.comparisons(settings, prefix, candidates, dimensions)


async def _unsafe_ids(
    turn_judge: TurnJudge, comparisons: Sequence[Comparison]
) -> set[str]:
    """Returns the ids of answers that must never be chosen, whatever the person wants."""
    if turn_judge.setup.recipe.filters.safety == "studied":
        return set()
    answers = {
        candidate.id: candidate
        for comparison in comparisons
        for candidate in (comparison.a, comparison.b)
    }
    asked = turn_judge.prefix[-1].content
    return {
        key
        for key, candidate in answers.items()
        if safety.is_unsafe(asked, candidate.text)
    }


def _labelled_audience(setup: Setup, scenario: Scenario) -> tuple[Persona, ...]:
    """Returns the people who get their own pairs besides the person in the dialogue: the
    audience, if a judge makes the labels."""
    return scenario.audience if setup.recipe.labels.by == "judge" else ()


def _label_comparison(
    comparison: Comparison,
    by_person: dict[str, list[Judgment]],
    labels: _TurnLabels,
    setup: Setup,
    scenario: Scenario,
    unsafe: set[str],
) -> None:
    """Adds a comparison's pair or discard for the person in the dialogue and, if a judge makes
    the labels, for each person in the audience."""
    recipe, space = setup.recipe, setup.space
    for person_judgments in by_person.values():
        labels.judgments += person_judgments
    for person in (scenario.persona, *_labelled_audience(setup, scenario)):
        rules = [by_measure(comparison, space, person)]
        if person is scenario.persona:
            rules.append(by_construction(comparison, person))
        if recipe.labels.by == "scorers":
            rules.append(
                by_scorers(
                    comparison, labels.scores, space, person, recipe.pairing.min_gap
                )
            )
        rule_judgments = {
            judgment.method: judgment for judgment in rules if judgment is not None
        }
        person_judgments = [
            judgment
            for judgment in by_person.get(person.id, ())
            if judgment.profile_shown == ProfileShown.profile
        ]
        labels.judgments += rule_judgments.values()
        outcome = pairing.decide(
            comparison,
            person,
            rule_judgments,
            person_judgments[-1] if person_judgments else None,
            recipe,
            unsafe,
            setup.seed,
        )
        if isinstance(outcome, PreferencePair):
            labels.pairs.append(outcome)
        else:
            labels.discards.append(outcome)


def _continuations(
    branch: _OpenBranch,
    setup: Setup,
    number: int,
    candidates: Sequence[Candidate],
    flaws: dict[str, str | None],
    labels: _TurnLabels,
) -> list[Candidate]:
    """Returns the answers that continue the dialogue, two at most. Answers that are empty, cut
    off or quote their steering never do."""
    policy = setup.recipe.dialogue.continue_with
    flawless = [candidate for candidate in candidates if flaws[candidate.id] is None]
    if not flawless:
        return []
    if policy == "random":
        return [rng(setup.seed, "continue", f"{branch.id}/{number}").choice(flawless)]
    own_pairs = [
        pair for pair in labels.pairs if pair.persona is branch.user.scenario.persona
    ]
    if own_pairs:
        pair = own_pairs[0]
        if policy == "both" and branch.max_branches > 1:
            return [pair.chosen, pair.rejected]
        return [pair.rejected if policy == "rejected" else pair.chosen]
    rated = [candidate for candidate in flawless if candidate.id in labels.ratings]
    if rated:
        ordered = sorted(
            rated,
            key=lambda candidate: labels.ratings[candidate.id],
            reverse=policy != "rejected",
        )
        return [ordered[0]]
    return [
        next(
            (
                candidate
                for candidate in flawless
                if CONDITIONS.find(candidate.condition).follows_wishes
            ),
            flawless[0],
        )
    ]
