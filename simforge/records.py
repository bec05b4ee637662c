"""Records: the tables of a run, as explicit Arrow schemas, and how an episode becomes their rows.

Schemas are written down, never inferred: a column that is empty in one run has the same type as in the next. Nested
values are Arrow lists and structs, never JSON text. Nothing that depends on time, machine or attempt enters a table,
so the same replies make the same bytes.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from simforge import fidelity, reliability
from simforge.generators import variables_of
from simforge.guards import GUARDS
from simforge.preferences import Space
from simforge.reliability import Noise, logit
from simforge.types import (
    Candidate,
    Condition,
    Ending,
    Episode,
    Line,
    Message,
    Persona,
    PreferencePair,
    Scenario,
    Turn,
)

if TYPE_CHECKING:
    from simforge.personas import Pack

SCHEMA_VERSION = "1"
"Changes when a column's name, type or meaning does."

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
PROFILE = pa.struct(
    [
        ("space", pa.string()),
        ("names", pa.list_(pa.string())),
        ("values", pa.list_(pa.string())),
        ("vector", pa.list_(pa.float64())),
    ]
)
CONDUCT = pa.struct(
    [
        ("patience", pa.int32()),
        ("knowledge", pa.string()),
        ("words", pa.float64()),
        ("lower_case", pa.bool_()),
        ("no_stop", pa.bool_()),
        ("typos", pa.float64()),
        ("language", pa.string()),
    ]
)
GOALS = pa.list_(pa.struct([("goal", pa.string()), ("raised", pa.int32()), ("met", pa.int32())]))
FEEDBACK = pa.list_(pa.struct([("attribute", pa.string()), ("performance", pa.int32()), ("choice", pa.int32())]))
SCORES = pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())]))
STYLE = pa.struct([(name, pa.float64()) for name in fidelity.STYLE])

_COLUMNS: dict[str, list[tuple[str, Any, str]]] = {
    "preferences": [
        ("id", pa.string(), "Digest of the comparison."),
        ("prompt", MESSAGES, "The dialogue up to and including the user message that both answers reply to."),
        ("chosen", MESSAGES, "The answer that the person prefers, as one assistant message."),
        ("rejected", MESSAGES, "The other answer, as one assistant message."),
        (
            "system",
            pa.string(),
            "The preference in words, as a system message under which `chosen` is the better "
            "answer. It is not part of `prompt`: neither answer was given to the person with it.",
        ),
        ("persona_id", pa.string(), "Row of `personas`."),
        ("profile", PROFILE, "The person's hidden preference profile."),
        ("dimension", pa.string(), "The dimension that the pair is about; null is overall."),
        ("own_dialogue", pa.bool_(), "Whether it is the dialogue of that person; else they were shown it and judged."),
        (
            "label",
            pa.string(),
            "What decided it: `construction`, `judge`, `scorers`, or a `tie` that the recipe keeps.",
        ),
        (
            "margin",
            pa.float64(),
            "Log-odds of `p_calibrated`, or of the probabilities that the judge gave, within ±4; 0 for ties; below 0 "
            "where a judge speaks against the label; null where nothing is known of what its words are worth.",
        ),
        (
            "p_chosen",
            pa.float64(),
            "The judge's soft label for `chosen`, averaged over its orders; null where not asked.",
        ),
        (
            "p_calibrated",
            pa.float64(),
            "`p_chosen` in the light of the judge's own noise, which its two orders show (its errors taken for "
            "independent); null where that is not known, or where the judge gave probabilities.",
        ),
        ("certainty", pa.float64(), "How sure the judge said that it was, 0 to 1; null where it is not asked."),
        ("judgment_id", pa.string(), "Row of `judgments`: what a judge said, whether it made the label or not."),
        (
            "measure_gap",
            pa.float64(),
            "Chosen minus rejected on the dimension's measure, in its unit; null without a measure.",
        ),
        (
            "value_gap",
            pa.float64(),
            "What `chosen` is worth more: points of the person's ratings, or standard deviations of their weighted "
            "scores; null without either.",
        ),
        ("flags", pa.list_(pa.string()), "Guards that object to a user message of `prompt`; mostly none."),
        ("turn", pa.int32(), "Turn of the dialogue, from 0."),
        ("dialogue_id", pa.string(), "Row of `dialogues`."),
        ("prompt_id", pa.string(), "Digest of the shared prompt; null where the person wrote the opening."),
        ("chosen_id", pa.string(), "Row of `candidates`."),
        ("rejected_id", pa.string(), "Row of `candidates`."),
        ("chosen_condition", pa.string(), "How the chosen answer was steered."),
        ("rejected_condition", pa.string(), "How the rejected answer was steered."),
        ("chosen_model", pa.string(), "Model of the chosen answer."),
        ("rejected_model", pa.string(), "Model of the rejected answer."),
    ],
    "dialogues": [
        ("id", pa.string(), "Digest of scenario: persona, prompt, number and seed; of a branch, of where it left."),
        ("parent", pa.string(), "The dialogue that this one branched from; null for one that did not."),
        ("branched_at", pa.int32(), "Last turn that it shares with its parent, from 0."),
        ("persona_id", pa.string(), "Row of `personas`."),
        ("prompt_id", pa.string(), "Digest of the shared prompt; null where the person wrote the opening."),
        (
            "session",
            pa.int32(),
            "Number of the dialogue among those that build on each other, from 0; always 0 as yet.",
        ),
        ("date", pa.date32(), "When it takes place; null where the recipe does not say."),
        ("conversation_type", pa.string(), "Type of the conversation; null where the recipe has one only."),
        ("need", pa.string(), "What the person brought, where they wrote the opening."),
        ("messages", MESSAGES, "What was said, with the answers that the dialogue went on with."),
        ("closing", pa.string(), "What the person said in leaving, which nobody answered; null where they did not."),
        ("turns", pa.int32(), "User messages that were answered."),
        ("ending", pa.string(), ", ".join(f"`{ending}`" for ending in Ending) + "."),
        ("conduct", CONDUCT, "How the person was to behave, drawn before the dialogue."),
        ("goals", GOALS, "What the person wanted beyond the need, and when it came up."),
        ("goals_met", pa.float64(), "Share of the goals that an answer took up; null without goals."),
        ("facts", pa.int32(), "Facts that there are to tell about the person."),
        ("disclosed", pa.list_(pa.int32()), "Facts that the person had told by each turn."),
        ("flags", pa.list_(pa.string()), "Guards that object to a user message of this dialogue, each once."),
        ("rejected", pa.list_(pa.string()), "Guards that object to the message before which the dialogue was ended."),
        ("feedback", FEEDBACK, "A survey about the first answer, filled in afterwards; empty where there is none."),
        ("style", STYLE, "How the user messages are written, to hold against human figures."),
        ("user_model", pa.string(), "Model of the simulated user; null where it was not needed."),
        ("calls", pa.int32(), "Model calls of the dialogue (of a branch, since it left), all roles."),
        ("prompt_tokens", pa.int64(), "Tokens read in those calls."),
        ("completion_tokens", pa.int64(), "Tokens written in those calls."),
    ],
    "turns": [
        ("dialogue_id", pa.string(), "Row of `dialogues`; a branch has rows for its own turns only."),
        ("persona_id", pa.string(), "Row of `personas`."),
        ("turn", pa.int32(), "From 0."),
        ("parent", pa.string(), "The answer that the message replies to, a row of `candidates`; null in the opening."),
        ("text", pa.string(), "What the person said."),
        ("mood", pa.string(), "Their mood as they wrote; empty where nothing has moved it."),
        ("disclosed", pa.list_(pa.string()), "Facts about themselves that they tell here for the first time."),
        ("goals", pa.list_(pa.string()), "Goals that they bring up here for the first time."),
        ("inferred", pa.string(), "What the assistant makes of them by now; null where the recipe does not ask."),
        ("mended", pa.list_(pa.string()), "Guards that objected to a first draft, and not to this message."),
        *((name, pa.bool_(), f"Guard: {guard.about}.") for name, guard in GUARDS.items()),
    ],
    "candidates": [
        ("id", pa.string(), "Digest of dialogue, turn, arm, dimension and sample."),
        ("dialogue_id", pa.string(), "Row of `dialogues`."),
        ("parent", pa.string(), "The answer before it, a row of this table; null in the opening."),
        ("turn", pa.int32(), "Turn of the dialogue, from 0."),
        ("prefix", MESSAGES, "The messages that it answers."),
        ("arm", pa.string(), "What the recipe calls these answers: the condition, unless it says otherwise."),
        ("condition", pa.string(), ", ".join(f"`{condition}`" for condition in Condition) + "."),
        ("dimension", pa.string(), "Dimension it was steered on; null for none, or for the whole profile."),
        ("sample", pa.int32(), "Number among the answers of one condition, from 0."),
        ("steering", pa.string(), "What the assistant was told about the person."),
        ("model", pa.string(), "Model reference."),
        ("text", pa.string(), "The answer, as the model gave it."),
        ("finish", pa.string(), "`stop`, or `length` where it was cut off."),
        (
            "completion_tokens",
            pa.int32(),
            "Its length in tokens; null where only the sum of several samples is told.",
        ),
        (
            "rating",
            pa.float64(),
            "The person's rating, on the scale of the judge's generator; null where there is none.",
        ),
        ("scores", SCORES, "Ratings of single attributes, or what each scorer of the space gives; mostly none."),
        ("continued", pa.bool_(), "Whether the dialogue went on with it."),
    ],
    "judgments": [
        ("id", pa.string(), "Digest of comparison and method."),
        ("dialogue_id", pa.string(), "Row of `dialogues`."),
        ("persona_id", pa.string(), "Row of `personas`: from whose side."),
        (
            "told",
            pa.string(),
            "What the judge knew of the person: the `profile`; as a control `nobody` (nothing), a `stranger`'s, or the "
            "one `trait` that says least.",
        ),
        ("turn", pa.int32(), "Turn of the dialogue, from 0."),
        ("a", pa.string(), "Row of `candidates`."),
        ("b", pa.string(), "Row of `candidates`."),
        ("dimension", pa.string(), "Dimension of the comparison; null is overall."),
        (
            "method",
            pa.string(),
            "`construction`, `measure`, `model` (verdicts on both answers), `rating`, `scorers`, `weighted` (verdicts "
            "on each dimension) or `panel` (several judges).",
        ),
        ("judge", pa.string(), "The model, or the rule's or measure's name."),
        ("role", pa.string(), "Name of the judge in the recipe's `models`; empty for rules and panels."),
        (
            "question",
            pa.string(),
            "Digest of what a model was asked, whatever the order; equal questions have one answer.",
        ),
        ("verdict_ab", pa.string(), "The judge's word with `a` shown first; null where not asked."),
        ("verdict_ba", pa.string(), "The judge's word with `b` shown first (`first` means `b`); null where not asked."),
        ("outcome", pa.string(), "`a`, `b`, `tie`, `inconsistent` or `unreadable`."),
        ("p_a", pa.float64(), "Soft label for `a`; null where there is none."),
        ("p_ab", pa.float64(), "With `a` first, the judge's own probability of the first; null where it gives words."),
        ("p_ba", pa.float64(), "With `b` first, the judge's own probability of the first, which is `b`."),
        ("certainty", pa.float64(), "How sure the judge said that it was, 0 to 1; null where it is not asked."),
        ("stability", pa.float64(), "How often two verdicts in one order were the same; null where asked once."),
        ("repaired", pa.int32(), "Verdicts that could only be read when they were asked for again."),
        ("reasons_ab", pa.string(), "What the judge said before its verdict with `a` first; empty where not asked."),
        ("reasons_ba", pa.string(), "The same with `b` first."),
        ("value_a", pa.float64(), "What the measure, the rating or the weighted scorers gave for `a`."),
        ("value_b", pa.float64(), "The same for `b`."),
    ],
    "discards": [
        ("dialogue_id", pa.string(), "Row of `dialogues`."),
        ("persona_id", pa.string(), "Row of `personas`: from whose side."),
        ("turn", pa.int32(), "Turn of the dialogue, from 0; null is the whole dialogue."),
        ("stage", pa.string(), "`dialogue`, `candidates`, `judging` or `pairing`."),
        ("reason", pa.string(), "One word; the dataset's card lists the meanings."),
        ("detail", pa.string(), "What exactly."),
    ],
}

_PERSONA_COLUMNS: list[tuple[str, Any, str]] = [
    ("id", pa.string(), "Digest of traits, profile and row."),
    ("index", pa.int64(), "Row of the cast, from 0."),
    ("text", pa.string(), "The person in words, as the simulator reads it."),
    ("profile", PROFILE, "The hidden preference profile."),
    ("source", pa.string(), "Persona pack."),
    ("licence", pa.string(), "SPDX id of the pack's licence."),
]


def _schema(columns: list[tuple[str, Any, str]]) -> pa.Schema:
    fields = [pa.field(name, kind, metadata={"description": about}) for name, kind, about in columns]
    return pa.schema(fields, metadata={"simforge.schema_version": SCHEMA_VERSION})


SCHEMAS: dict[str, pa.Schema] = {name: _schema(columns) for name, columns in _COLUMNS.items()}
"Arrow schema of each table that episodes fill; `personas_schema` has the sixth."
_JUDGMENT = [name for name in SCHEMAS["judgments"].names if name != "dialogue_id"]
TABLES = (*SCHEMAS, "personas")
"All tables, the default one first."

PART = pa.schema([(name, pa.list_(pa.struct(list(schema)))) for name, schema in SCHEMAS.items()])
"A shard's part file: one row, each table a list of its rows. One file, so that it is whole or absent."


def personas_schema(pack: Pack) -> pa.Schema:
    """The personas table of a pack: traits as typed columns. What is sensitive says so, and so does a text that may
    speak of it."""
    schema = _people([(name, trait.type, trait.description or name) for name, trait in pack.traits.items()])
    sensitive = {name for name, trait in pack.traits.items() if trait.sensitive}
    spoken = bool(sensitive) and (pack.portrait is not None or bool(sensitive & variables_of(pack.text)))
    for place, column in enumerate(schema):
        if column.name in sensitive or (column.name == "text" and spoken):
            schema = schema.set(place, column.with_metadata({**column.metadata, "sensitive": "true"}))
    return schema


def published(manifest: Mapping[str, Any]) -> dict[str, pa.Schema]:
    """The columns of each table of a dataset, by what its manifest says: without those that were withheld."""
    people = _people([(name, trait["type"], trait["about"]) for name, trait in manifest["traits"].items()])
    withheld = manifest.get("withheld", {})
    return {
        table: pa.schema([column for column in schema if column.name not in withheld.get(table, ())])
        for table, schema in {**SCHEMAS, "personas": people}.items()
    }


_TRAITS = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}


def _people(traits: Sequence[tuple[str, str, str]]) -> pa.Schema:
    head, tail = _PERSONA_COLUMNS[:2], _PERSONA_COLUMNS[2:]
    return _schema([*head, *((name, _TRAITS[kind], about) for name, kind, about in traits), *tail])


def rows(episode: Episode, space: Space, user_model: str | None) -> dict[str, list[dict[str, Any]]]:
    """The rows of an episode, by table: those of a branch stand after those of the line that it left."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SCHEMAS}
    scenario = episode.scenario
    for line in episode.lines:
        own = {"dialogue_id": line.id, "persona_id": scenario.persona.id}
        prefixes, parents = _prefixes(line), _parents(line)
        found["preferences"] += [_pair_row(pair, line, scenario, space) for pair in line.pairs]
        found["dialogues"].append(_dialogue_row(line, episode, user_model))
        found["turns"] += [_turn_row(turn, parents[turn.number], scenario) | own for turn in line.own]
        found["candidates"] += [
            _candidate_row(one, turn, prefixes[turn.number], parents[turn.number]) | {"dialogue_id": line.id}
            for turn in line.own
            for one in turn.candidates
        ]
        found["judgments"] += [
            {"dialogue_id": line.id, **{name: getattr(judgment, name) for name in _JUDGMENT}}
            for judgment in line.judgments
        ]
        found["discards"] += [
            own
            | {name: getattr(discard, name) for name in ("turn", "stage", "reason", "detail")}
            | ({"persona_id": discard.persona_id} if discard.persona_id else {})
            for discard in line.discards
        ]
    return found


def persona_row(persona: Persona, source: str, licence: str) -> dict[str, Any]:
    """The row of one person."""
    own = {"id": persona.id, "index": persona.index, "text": persona.text, "profile": _profile(persona)}
    return {**own, **persona.traits, "source": source, "licence": licence}


def part(rows_by_table: Mapping[str, list[dict[str, Any]]]) -> pa.Table:
    """The rows of a shard as its one-row part."""
    return pa.table({name: pa.array([rows_by_table[name]], PART.field(name).type) for name in SCHEMAS}, schema=PART)


def table_of(part_table: pa.Table, name: str) -> pa.Table:
    """One table's rows out of a part."""
    rows_array = part_table[name].combine_chunks().flatten()
    return pa.Table.from_struct_array(rows_array).cast(SCHEMAS[name])


BY_JUDGES = ["model", "rating", "weighted", "construction"]
"Methods from which it is told what judges are worth."


def of_judges(part_table: pa.Table) -> list[dict[str, Any]]:
    """What models judged in a part, beside the labels by construction, without what they said."""
    table = table_of(part_table, "judgments").drop_columns(["reasons_ab", "reasons_ba", "id"])
    found: list[dict[str, Any]] = table.filter(pc.is_in(table["method"], pa.array(BY_JUDGES))).to_pylist()
    return found


def margin(p_chosen: float | None) -> float | None:
    """Log-odds within ±4 (p of 0.018 to 0.982): a trainer's margin, not a claim of certainty."""
    return None if p_chosen is None else min(4.0, max(-4.0, logit(p_chosen)))


def calibrated(
    pairs: pa.Table, judgments: pa.Table, noise: Mapping[str, Noise], uninformed: Collection[str] = ()
) -> pa.Table:
    """Pairs with the soft labels that their judges' noise leaves, and margins from them: none from probabilities of a
    judge that carries no information."""
    by_model = pc.is_in(judgments["method"], pa.array(["model", "panel"]))
    rows = {row["id"]: row for row in judgments.filter(by_model).to_pylist()}
    members: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows.values():
        if row["method"] == "model":
            members.setdefault(tuple(row[name] for name in _COMPARED), []).append(row)
    found, margins = [], []
    for one in pairs.select(["judgment_id", "chosen_id", "p_chosen", "label"]).to_pylist():
        row = rows.get(one["judgment_id"])
        p_a = row and reliability.calibrated(row, members.get(tuple(row[name] for name in _COMPARED), []), noise)
        p = None if row is None or p_a is None else p_a if row["a"] == one["chosen_id"] else 1 - p_a
        found.append(p)
        graded = row is not None and row["p_ab"] is not None
        graded_margin = 0.0 if row is not None and row["role"] in uninformed else margin(one["p_chosen"])
        margins.append(0.0 if one["label"] == "tie" else graded_margin if p is None and graded else margin(p))
    for name, values in (("p_calibrated", found), ("margin", margins)):
        place = pairs.schema.get_field_index(name)
        pairs = pairs.set_column(place, pairs.schema.field(place), pa.array(values, pa.float64()))
    return pairs


_COMPARED = ("a", "b", "dimension", "persona_id", "told")


def _pair_row(pair: PreferencePair, line: Line, scenario: Scenario, space: Space) -> dict[str, Any]:
    persona = pair.persona
    own = persona is scenario.persona
    told = own and pair.chosen.condition == Condition.own
    return {
        "id": pair.id,
        "prompt": _messages(pair.prefix),
        "chosen": [{"role": "assistant", "content": pair.chosen.text}],
        "rejected": [{"role": "assistant", "content": pair.rejected.text}],
        "system": pair.chosen.steering if told else space.steering(persona.profile, pair.dimension),
        "persona_id": persona.id,
        "profile": _profile(persona),
        "dimension": pair.dimension,
        "own_dialogue": own,
        "label": pair.label,
        "margin": None,
        "p_chosen": pair.p_chosen,
        "p_calibrated": None,
        "certainty": pair.certainty,
        "judgment_id": pair.judgment,
        "measure_gap": pair.measure_gap,
        "value_gap": pair.value_gap,
        "flags": _flags(line, pair.turn),
        "turn": pair.turn,
        "dialogue_id": line.id,
        "prompt_id": scenario.prompt.id if scenario.prompt else None,
        "chosen_id": pair.chosen.id,
        "rejected_id": pair.rejected.id,
        "chosen_condition": pair.chosen.condition,
        "rejected_condition": pair.rejected.condition,
        "chosen_model": pair.chosen.model,
        "rejected_model": pair.rejected.model,
    }


def _dialogue_row(line: Line, episode: Episode, user_model: str | None) -> dict[str, Any]:
    scenario, used = episode.scenario, line.usage.values()
    said: list[Message] = []
    for turn in line.turns:
        said += [Message("user", turn.user), *_answer(turn)]
    told = list(itertools.accumulate(len(turn.said.revealed) for turn in line.turns))
    goals = [
        {"goal": goal, "raised": _when(line, "raised", number), "met": _when(line, "met", number)}
        for number, goal in enumerate(scenario.goals)
    ]
    met = sum(goal["met"] is not None for goal in goals)
    return {
        "id": line.id,
        "parent": line.parent,
        "branched_at": line.left,
        "persona_id": scenario.persona.id,
        "prompt_id": scenario.prompt.id if scenario.prompt else None,
        "session": scenario.session,
        "date": datetime.date.fromisoformat(scenario.date) if scenario.date else None,
        "conversation_type": scenario.kind,
        "need": scenario.need,
        "messages": _messages(tuple(said)),
        "closing": line.closing,
        "turns": len(line.turns),
        "ending": line.ending,
        "conduct": {name: getattr(episode.conduct, name) for name in CONDUCT.names},
        "goals": goals,
        "goals_met": met / len(goals) if goals else None,
        "facts": len(scenario.facts),
        "disclosed": told,
        "flags": _flags(line, len(line.turns)),
        "rejected": list(line.rejected),
        "feedback": [
            {"attribute": name, "performance": performance, "choice": choice}
            for name, (performance, choice) in line.feedback.items()
        ],
        "style": fidelity.style([turn.user for turn in line.turns if scenario.prompt is None or turn.number]),
        "user_model": user_model,
        "calls": sum(usage.calls for usage in used),
        "prompt_tokens": sum(usage.prompt_tokens for usage in used),
        "completion_tokens": sum(usage.completion_tokens for usage in used),
    }


def _flags(line: Line, until: int) -> list[str]:
    """Guards that object to the messages up to a turn, each once."""
    return list(dict.fromkeys(flag for turn in line.turns if turn.number <= until for flag in turn.said.flags))


def _when(line: Line, what: str, number: int) -> int | None:
    """Turn at which a goal was raised, or met."""
    return next((turn.number for turn in line.turns if number in getattr(turn.said, what)), None)


def _turn_row(turn: Turn, parent: str | None, scenario: Scenario) -> dict[str, Any]:
    said = turn.said
    return {
        "turn": turn.number,
        "parent": parent,
        "text": turn.user,
        "mood": said.mood,
        "disclosed": [scenario.facts[number] for number in said.revealed],
        "goals": [scenario.goals[number] for number in said.raised],
        "inferred": turn.inferred,
        "mended": list(said.mended),
        **{name: name in said.flags for name in GUARDS},
    }


def _candidate_row(candidate: Candidate, turn: Turn, prefix: tuple[Message, ...], parent: str | None) -> dict[str, Any]:
    return {
        "id": candidate.id,
        "parent": parent,
        "turn": candidate.turn,
        "prefix": _messages(prefix),
        "arm": candidate.arm,
        "condition": Condition(candidate.condition),
        "dimension": candidate.dimension,
        "sample": candidate.sample,
        "steering": candidate.steering,
        "model": candidate.model,
        "text": candidate.text,
        "finish": candidate.said.finish,
        "completion_tokens": candidate.said.completion_tokens,
        "rating": turn.ratings.get(candidate.id),
        "scores": [{"name": name, "value": value} for name, value in turn.scores.get(candidate.id, {}).items()],
        "continued": candidate.id == turn.continued,
    }


def _prefixes(line: Line) -> dict[int, tuple[Message, ...]]:
    """What the candidates of each turn answer."""
    prefixes: dict[int, tuple[Message, ...]] = {}
    history: tuple[Message, ...] = ()
    for turn in line.turns:
        prefixes[turn.number] = (*history, Message("user", turn.user))
        history = (*prefixes[turn.number], *_answer(turn))
    return prefixes


def _parents(line: Line) -> dict[int, str | None]:
    """The answer that each turn's message replies to."""
    return {0: None} | {turn.number + 1: turn.continued for turn in line.turns}


def _answer(turn: Turn) -> list[Message]:
    """The answer that the dialogue went on with, where it did."""
    return [Message("assistant", one.text) for one in turn.candidates if one.id == turn.continued]


def _messages(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [message.as_dict() for message in messages]


def _profile(persona: Persona) -> dict[str, Any]:
    profile = persona.profile
    return {
        "space": profile.space,
        "names": list(profile.names),
        "values": list(profile.values),
        "vector": list(profile.vector),
    }
