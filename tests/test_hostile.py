"""Files and servers of strangers: whatever is in them, a command ends with a sentence.

The inputs are made by hypothesis and by lists of known tricks; a traceback fails the test, since
commands run in this process. Each input is small: what is large or slow on purpose has tests of its
own beside the code that bounds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import simforge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simforge import catalog
from simforge.errors import CallFailed, MalformedReply
from simforge.models import refusals, replies
from simforge.models.ledger import Ledger, compact, usage_by_model
from simforge.types import ChatReply, ChatRequest, Finish, Message, Sampling

FEW = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
MANY = settings(FEW, max_examples=300)


ODD_VALUES = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        10**30,
        1e300,
        float("nan"),
        float("inf"),
        "",
        "x",
        "\ud800",
        "\x1b]0;x\x07",
        "../../x",
        [],
        [[]],
        [1, "x"],
        {},
        {"a": {"b": []}},
    ]
)


ODD_JSON = st.recursive(
    ODD_VALUES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                "choices message content finish_reason usage error code text x".split()
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)


BROKEN_FILES: dict[str, bytes] = {
    "empty": b"",
    "a brace": b"{",
    "a list": b"[1]",
    "a text": b'"x"',
    "zeros": b"\0" * 64,
    "Latin-1": '{"a": "é"}'.encode("latin-1"),
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "a huge number": b'{"a": ' + b"9" * 5_000 + b"}",
    "half a surrogate": b'{"a": "\\ud800"}',
}


def sentence(done: Any, *statuses: int) -> str:
    """The message of a command that ended as expected, without control characters."""
    assert done.status in (statuses or (2,)), (done.status, done.err)
    text = done.out + done.err
    assert "Traceback" not in text and "\x1b]" not in text
    return text


def answer_of(content: Any) -> dict:
    return {
        "choices": [{"message": {"content": content}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }


PLACES = (
    ("choices",),
    ("choices", 0),
    ("choices", 0, "message"),
    ("choices", 0, "message", "content"),
    ("choices", 0, "finish_reason"),
    ("usage",),
    ("usage", "prompt_tokens"),
    ("usage", "completion_tokens"),
    ("usage", "prompt_tokens_details"),
    ("usage", "completion_tokens_details"),
)


def put(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    content = copy.deepcopy(content)
    owner = content
    for part in place[:-1]:
        owner = owner[part]
    owner[place[-1]] = value
    return content


@MANY
@given(place=st.sampled_from(PLACES), value=ODD_JSON, anything=ODD_JSON)
def test_a_reply_is_whole_or_a_failed_call(place, value, anything):
    for answer in (put(answer_of("Yes."), place, value), anything):
        try:
            reply = replies.parse_reply(
                answer if isinstance(answer, dict) else {}, ("1", "2")
            )
        except MalformedReply as problem:
            str(problem).encode()
            continue
        assert isinstance(reply, ChatReply)
        counts = (
            reply.prompt_tokens,
            reply.completion_tokens,
            reply.cached_tokens,
            reply.thinking_tokens,
        )
        assert all(isinstance(n, int) and 0 <= n < replies.MAX_COUNT for n in counts)
        for completion in reply.completions:
            completion.text.encode()
            assert isinstance(completion.finish, Finish)
        assert sum(reply.choice_probabilities.values()) in (0, pytest.approx(1))


@MANY
@given(answer=ODD_JSON)
def test_a_score_is_a_number_or_a_failed_call(answer):
    try:
        assert abs(replies.parse_score(answer)) < replies.MAX_SCORE
    except CallFailed as problem:
        str(problem).encode()


@MANY
@given(answer=ODD_JSON, body=st.binary(max_size=60))
def test_a_refusal_is_read_whatever_it_is(answer, body):
    for text in (json.dumps(answer).encode(), body):
        refusal = refusals.read_refusal(text, ["hello"])
        refusal.message.encode()
        refusal.blames("seed")
        replies.error_text(text).encode()


@pytest.mark.parametrize("body", BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_a_body_that_is_no_json_is_a_failed_call(body):
    with contextlib.suppress(MalformedReply):
        replies.parse_json(body)
    replies.error_text(body).encode()
    refusals.read_refusal(body)


REQUEST = ChatRequest("model", (Message("user", "Hi"),), Sampling(), seed=1)


async def _yes(_: ChatRequest) -> ChatReply:
    return ChatReply("Yes.", Finish.stop, 3, 0, 2)


@pytest.fixture(scope="module")
def ledger_line(tmp_path_factory) -> bytes:
    folder = tmp_path_factory.mktemp("ledger")
    with Ledger(folder) as ledger:
        asyncio.run(ledger.answer(REQUEST, _yes))
    return next(folder.glob("*.jsonl")).read_bytes()


@MANY
@given(data=st.data())
def test_a_ledger_answers_rightly_or_not_at_all(data, ledger_line, tmp_path):
    content = bytearray(ledger_line * 2)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        cut = data.draw(st.integers(0, 8))
        content[at : at + cut] = data.draw(st.binary(max_size=8))
    folder = tmp_path / "l"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "a.jsonl").write_bytes(content)
    with Ledger(folder) as ledger:
        reply, _ = asyncio.run(ledger.answer(REQUEST, _yes))
    assert reply == asyncio.run(_yes(REQUEST))
    usage = usage_by_model(folder)
    assert sum(used.calls for used in usage.values()) == 1
    compact(folder)
    assert usage_by_model(folder) == usage


@pytest.fixture(scope="module")
def small_run(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("small") / "run"
    done = simforge("generate", "--personas", 4, "--model", "scripted:", "--out", out)
    assert done.status == 0, done.err
    return out


COMMANDS: dict[str, tuple[object, ...]] = {
    "validate": ("validate", "RUN"),
    "diff": ("diff", "RUN", "RUN"),
    "export": ("export", "RUN", "--view", "trl_preference", "--to", "TO"),
    "push": ("push", "RUN", "STORE", "--version", "1.0.0"),
}


def run_command(name: str, run: Path, tmp_path: Path) -> Any:
    shutil.rmtree(tmp_path / "store", ignore_errors=True)
    words = {
        "RUN": run,
        "TO": tmp_path / "pairs.jsonl",
        "STORE": f"file://{tmp_path}/store",
    }
    return simforge(*(words.get(word, word) for word in COMMANDS[name]))


@settings(FEW, max_examples=60)
@given(
    data=st.data(),
    command=st.sampled_from(sorted(COMMANDS)),
    value=ODD_VALUES,
)
def test_a_manifest_with_a_wrong_value_is_told(
    data, command, value, small_run, tmp_path
):
    run = tmp_path / "run"
    if not run.exists():
        shutil.copytree(small_run, run)
    manifest = json.loads((small_run / "manifest.json").read_text())
    key = data.draw(st.sampled_from(sorted(manifest)))
    inner = manifest[key]
    place: tuple[Any, ...] = (key,)
    if isinstance(inner, dict) and inner and data.draw(st.booleans()):
        place = (key, data.draw(st.sampled_from(sorted(inner))))
    spoilt = put(manifest, place, value)
    (run / "manifest.json").write_text(json.dumps(spoilt))
    sentence(run_command(command, run, tmp_path), 0, 1, 2)


@pytest.mark.parametrize("content", BROKEN_FILES.values(), ids=BROKEN_FILES)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_manifest_that_is_none_is_told(command, content, small_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    (run / "manifest.json").write_bytes(content)
    assert "manifest" in sentence(run_command(command, run, tmp_path), 1, 2)


@pytest.mark.parametrize("name", ["run.json", "options.json", "people.json"])
@pytest.mark.parametrize("content", BROKEN_FILES.values(), ids=BROKEN_FILES)
def test_work_files_that_are_none_are_told_or_written_again(
    name, content, small_run, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    (run / "work" / name).write_bytes(content)
    (run / "manifest.json").unlink()
    sentence(simforge("retry", run), 0, 2)
    again = ("generate", "--personas", 4, "--model", "scripted:", "--out", run)
    sentence(simforge(*again), 0)


@pytest.mark.parametrize(
    "content",
    [*BROKEN_FILES.values(), b"PAR1" * 9, b"ARROW1" * 9],
    ids=[*BROKEN_FILES, "PAR1", "ARROW1"],
)
def test_tables_that_are_none_are_told(content, small_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    table = next(run.glob("data/preferences/*.parquet"))
    table.write_bytes(content)
    for command in COMMANDS:
        sentence(run_command(command, run, tmp_path), 1, 2)
    sentence(simforge("audit", run, "--scorers", "text"), 1, 2)
    for suffix in (".parquet", ".jsonl", ".csv", ".json"):
        (tmp_path / f"x{suffix}").write_bytes(content)
        people = ("--personas", 2, "--model", "scripted:", "--out", tmp_path / "o")
        prompts = simforge("generate", *people, "--prompts", tmp_path / f"x{suffix}")
        sentence(prompts, 0, 2)
        shutil.rmtree(tmp_path / "o", ignore_errors=True)
        sentence(simforge("generate", *people, "--cast", tmp_path / f"x{suffix}"), 2)
        sentence(simforge("audit", tmp_path / f"x{suffix}"), 2)


def yaml_tricks() -> dict[str, str]:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for number in range(1, 9):
        inner = ", ".join([f"*a{number - 1}"] * 10)
        bomb += f"a{number}: &a{number} [{inner}]\n"
    return {
        "alias bomb": bomb,
        "an alias of itself": "a: &a [*a]\n",
        "a wrong tag": "a: !!int abc\n",
        "a wrong date": "a: !!timestamp x\n",
        "code": "a: !!python/object/apply:os.system ['true']\n",
        "a huge number": f"a: {'9' * 5_000}\n",
        "deep": f"a: {'[' * 400}{']' * 400}\n",
        "very deep": f"a: {'[' * 50_000}\n",
        "not a number": "description: .nan\n",
        "infinite": "description: .inf\n",
        "a list": "- a\n",
        "nothing": "",
        "NUL": "a: \0\n",
        "two documents": "a: 1\n---\nb: 2\n",
        "a key that is a list": "? [a]\n: 1\n",
    }


@pytest.mark.parametrize("text", yaml_tricks().values(), ids=yaml_tricks())
def test_tricks_of_yaml_are_told(text, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(text)
    generator = tmp_path / "mine.md"
    generator.write_text(f"---\n{text}\n---\n@user\nHi\n")
    run = ("--personas", 2, "--model", "scripted:", "--out", tmp_path / "o")
    for words in (
        ("generate", mine, *run),
        ("generate", *run, "--set", f"cast.pack={mine}"),
        ("generate", *run, "--set", f"cast.space={mine}"),
        ("generate", *run, "--set", f"dialogue.generator={generator}"),
        ("generate", *run, "--prices", mine, "--budget", 1),
        ("personas", "check", mine),
    ):
        sentence(simforge(*words), 2)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
def test_what_is_no_regular_file_is_told(tmp_path):
    os.mkfifo(tmp_path / "fifo.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("fifo.yaml", "zero.yaml", "folder.yaml"):
        sentence(simforge("personas", "check", tmp_path / name))
        sentence(simforge("generate", tmp_path / name, "--out", tmp_path / "o"))


@FEW
@given(data=st.data(), value=ODD_VALUES)
def test_a_recipe_with_a_wrong_value_is_told(data, value, tmp_path):
    recipe = yaml.safe_load(catalog.entry("pipelines", "psoup").text)
    key = data.draw(st.sampled_from(sorted(recipe)))
    place: tuple[Any, ...] = (key,)
    if isinstance(recipe[key], dict) and data.draw(st.booleans()):
        place = (key, data.draw(st.sampled_from(sorted(recipe[key]))))
    (tmp_path / "r.yaml").write_text(
        json.dumps(put(recipe, place, value)), encoding="utf-8", errors="replace"
    )
    out = tmp_path / "o"
    shutil.rmtree(out, ignore_errors=True)
    people = ("--personas", 2, "--model", "scripted:", "--out", out)
    sentence(simforge("generate", tmp_path / "r.yaml", *people), 0, 2, 3)


@FEW
@given(data=st.data(), value=ODD_VALUES)
def test_a_pack_with_a_wrong_value_is_told(data, value, tmp_path):
    pack = yaml.safe_load(catalog.entry("personas", "everyday").text)
    key = data.draw(st.sampled_from(sorted(pack)))
    place: tuple[Any, ...] = (key,)
    if isinstance(pack[key], dict) and data.draw(st.booleans()):
        place = (key, data.draw(st.sampled_from(sorted(pack[key]))))
    (tmp_path / "p.yaml").write_text(
        json.dumps(put(pack, place, value)), encoding="utf-8", errors="replace"
    )
    sentence(simforge("personas", "sample", tmp_path / "p.yaml", "-n", 3), 0, 2)


@pytest.mark.parametrize(
    "pattern", ["^(a+)+$", "(a|aa)+$", "a{1,999999999}", "(" * 5_000, "(?<x", "\\1(a)"]
)
def test_patterns_take_no_longer_than_their_texts(pattern, tmp_path):
    trait = {
        "type": "string",
        "pattern": pattern,
        "draw": {"categories": {"a" * 40 + "!": 1}},
    }
    pack = {"description": "x", "traits": {"name": trait}, "text": "{{ name }}"}
    (tmp_path / "p.yaml").write_text(json.dumps(pack))
    sentence(simforge("personas", "sample", tmp_path / "p.yaml", "-n", 3), 2)


@pytest.mark.parametrize(
    "reference",
    [
        "openai:m@http://127.0.0.1:99999/v1",
        "openai:m@http://127.0.0.1:abc/v1",
        "openai:m@http://[::1/v1",
        "openai:m@http:///v1",
        "openai:m@http://a b/v1",
        "openai:m@http://user:secret@127.0.0.1/v1",
        "openai:m@http://127.0.0.1/v1?key=secret",
        "openai:m@http://127.0.0.1/v1?api_key=secret&x=1",
        "scripted:os:system",
        "local:../../../etc/passwd",
        "openai:",
        ":",
        "",
    ],
)
def test_references_that_lead_nowhere_are_told_without_secrets(reference, tmp_path):
    recipe = yaml.safe_load(catalog.entry("pipelines", "psoup").text)
    recipe["models"] = dict.fromkeys(recipe["models"], reference)
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    run = ("--personas", 2, "--out", tmp_path / "o")
    for words in (
        ("generate", tmp_path / "r.yaml", *run),
        ("estimate", tmp_path / "r.yaml", "--personas", 2),
    ):
        assert "secret" not in sentence(simforge(*words), 0, 2)
    if "secret" in reference:
        done = simforge("generate", *run, "--model", reference)
        assert "secret" not in sentence(done) and "environment variable" in done.err
