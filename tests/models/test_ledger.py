"""Nothing is paid for twice."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace

import pytest

from simforge.errors import CallFailed
from simforge.identity import sha256
from simforge.models.ledger import MAX_FRESH, Index, Ledger, compact, usage_by_model
from simforge.models.scripted import make_reply
from simforge.types import ChatReply, ChatRequest, Completion, Finish, Message, Sampling

REQUEST = ChatRequest("model", (Message("user", "Hé?"),), Sampling(), seed=1)


class Model:
    """Counts its calls."""

    def __init__(self, failures: int = 0) -> None:
        self.calls, self.failures = 0, failures

    async def chat(self, request: ChatRequest):
        self.calls += 1
        await asyncio.sleep(0)
        if self.calls <= self.failures:
            raise CallFailed("no")
        return make_reply(request, f"answer {self.calls} ü", {"1": 0.25, "2": 0.75})


@pytest.fixture
def opened():
    """Opens ledgers, and closes them when the test is over."""
    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(Ledger(*args, **kwargs))


def test_a_reply_is_the_same_after_the_process_ended(opened, tmp_path):
    model = Model()
    first, paid = asyncio.run(opened(tmp_path).answer(REQUEST, model.chat))
    again, paid_again = asyncio.run(opened(tmp_path).answer(REQUEST, model.chat))
    assert (first, paid, paid_again, model.calls) == (again, True, False, 1)


@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, model="another"),
        replace(REQUEST, seed=2),
        replace(REQUEST, messages=(Message("system", "Hé?"),)),
        replace(REQUEST, sampling=Sampling(temperature=0.1)),
        replace(REQUEST, schema="{}"),
        replace(REQUEST, choices=("1", "2")),
        replace(REQUEST, n=2),
    ],
)
def test_a_request_that_differs_in_anything_is_another_request(opened, tmp_path, other):
    model, ledger = Model(), opened(tmp_path)
    asyncio.run(ledger.answer(REQUEST, model.chat))
    asyncio.run(ledger.answer(other, model.chat))
    assert (model.calls, len(ledger)) == (2, 2)


def test_the_same_request_under_way_twice_is_one_call(opened, tmp_path):
    model, ledger = Model(), opened(tmp_path)

    async def both():
        return await asyncio.gather(
            *(ledger.answer(REQUEST, model.chat) for _ in range(5))
        )

    replies = asyncio.run(both())
    assert model.calls == 1
    assert [paid for _, paid in replies].count(True) == 1
    assert len({reply.text for reply, _ in replies}) == 1


def test_a_failure_is_not_stored(opened, tmp_path):
    model, ledger = Model(failures=1), opened(tmp_path)
    with pytest.raises(CallFailed):
        asyncio.run(ledger.answer(REQUEST, model.chat))
    assert len(opened(tmp_path)) == 0
    assert asyncio.run(ledger.answer(REQUEST, model.chat))[0].text == "answer 2 ü"


def test_a_line_that_a_crash_cut_short_is_passed_over(opened, tmp_path):
    model, ledger = Model(), opened(tmp_path)
    for seed in range(3):
        asyncio.run(ledger.answer(replace(REQUEST, seed=seed), model.chat))
    ledger.close()
    segment = next(tmp_path.glob("*.jsonl"))
    segment.write_bytes(segment.read_bytes()[:-20])
    assert len(opened(tmp_path)) == 2


def test_an_older_ledger_answers_without_being_written_to(opened, tmp_path):
    model = Model()
    asyncio.run(opened(tmp_path / "old").answer(REQUEST, model.chat))
    before = [path.read_bytes() for path in (tmp_path / "old").iterdir()]
    ledger = opened(tmp_path / "new", reuse=[tmp_path / "old"])
    _, paid = asyncio.run(ledger.answer(REQUEST, model.chat))
    assert (paid, model.calls) == (False, 1)
    assert [path.read_bytes() for path in (tmp_path / "old").iterdir()] == before


def test_the_index_finds_what_was_added_first_and_last_after_it_settled_many_times():
    index, keys = (
        Index(),
        [sha256(str(number)).digest()[:16] for number in range(3 * MAX_FRESH + 5)],
    )
    for number, key in enumerate(keys):
        index.add(key, number % 7, number * 100, number % 1000)
    for number in (0, 1, MAX_FRESH, 2 * MAX_FRESH - 1, len(keys) - 1):
        assert list(index.locations(keys[number])) == [
            (number % 7, number * 100, number % 1000)
        ]
    assert (len(index), list(index.locations(b"x" * 16))) == (len(keys), [])
    index.add(keys[0], 5, 1, 2)
    assert next(index.locations(keys[0])) == (5, 1, 2)


def test_compacted_segments_hold_each_reply_once(opened, tmp_path):
    model = Model()
    for number in range(3):
        with Ledger(tmp_path) as ledger:
            asyncio.run(ledger.answer(replace(REQUEST, seed=number), model.chat))
    segment = next(tmp_path.glob("*.jsonl"))
    (tmp_path / "twice.jsonl").write_bytes(segment.read_bytes() + b'{"key": "cut')
    before = usage_by_model(tmp_path)
    assert (
        compact(tmp_path),
        len(list(tmp_path.iterdir())),
        usage_by_model(tmp_path),
    ) == (3, 1, before)
    reply, paid = asyncio.run(
        opened(tmp_path).answer(replace(REQUEST, seed=1), model.chat)
    )
    assert (reply.text, paid, model.calls) == ("answer 2 ü", False, 3)


def test_a_ledger_at_a_url_is_uploaded_bit_by_bit_and_read_back(tmp_path):
    model, place, store = Model(), f"local://{tmp_path}/store", tmp_path / "store"

    async def ask(*seeds: int, wait: bool = False) -> None:
        with Ledger(place) as ledger:
            for seed in seeds:
                await ledger.answer(replace(REQUEST, seed=seed), model.chat)
                while wait and not (
                    store.exists() and len(list(store.iterdir())) == seed
                ):
                    await asyncio.sleep(0.1)

    asyncio.run(ask(1, 2, wait=True))
    asyncio.run(ask(2, 3))
    assert model.calls == 3 and len(list(store.iterdir())) == 3
    assert sum(used.calls for used in usage_by_model(place).values()) == 3


def test_several_answers_to_one_request_are_one_reply(opened, tmp_path):
    async def draw(request: ChatRequest) -> ChatReply:
        said = (
            Completion("one", Finish.stop, None),
            Completion("two", Finish.length, 7),
        )
        return ChatReply("one", Finish.stop, 5, 0, 9, answers=said, thinking_tokens=2)

    first, _ = asyncio.run(opened(tmp_path).answer(replace(REQUEST, n=2), draw))
    again, paid = asyncio.run(opened(tmp_path).answer(replace(REQUEST, n=2), draw))
    assert (again, paid, len(again.completions)) == (first, False, 2)


def test_a_flipped_bit_never_gives_another_reply_and_is_asked_again(opened, tmp_path):
    model, ledger = Model(), opened(tmp_path / "good")
    first = asyncio.run(ledger.answer(REQUEST, model.chat))[0]
    ledger.close()
    line = next((tmp_path / "good").glob("*.jsonl")).read_bytes()
    folder = tmp_path / "bad"
    folder.mkdir()
    for bit in range(8 * len(line)):
        flipped = bytearray(line)
        flipped[bit // 8] ^= 1 << bit % 8
        (folder / "segment.jsonl").write_bytes(flipped)
        with Ledger(folder) as damaged:
            assert (len(damaged), damaged.damaged > 0) == (0, True), flipped
    model = Model()
    again, paid = asyncio.run(opened(folder).answer(REQUEST, model.chat))
    assert (again.text, paid, model.calls) == (first.text, True, 1)


def test_replies_are_private(opened, tmp_path):
    ledger = opened(tmp_path / "work" / "ledger")
    asyncio.run(ledger.answer(REQUEST, Model().chat))
    segment = next((tmp_path / "work" / "ledger").glob("*.jsonl"))
    assert segment.stat().st_mode & 0o777 == 0o600
    assert segment.parent.stat().st_mode & 0o777 == 0o700
