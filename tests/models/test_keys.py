"""Keys go only where the user sends them, and are not shown when a server sends them back."""

from __future__ import annotations

import json

import pytest

from simforge.errors import UsageError
from simforge.models import addresses, keys
from simforge.models.replies import finish_of
from simforge.types import Access, Finish

KEY = "sk-se/cret+12345678"
DEFAULT = keys.DEFAULT_VARIABLE


@pytest.fixture(autouse=True)
def _variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in (("MINE", KEY), ("OTHER", "other-key"), (DEFAULT, "ours")):
        monkeypatch.setenv(variable, value)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


TWO = 'endpoints={"https://h/v1": {key_variable: MINE}, "https://b/v1": {key_variable: OTHER}}'


@pytest.mark.parametrize(
    ("allowed", "references", "settings", "url", "variable", "answer"),
    [
        ((), (), (), "https://api.openai.com/v1", DEFAULT, True),
        ((), (), (), "http://api.openai.com/v1", DEFAULT, False),
        ((), (), (TWO,), "https://h/v1", "MINE", True),
        ((), (), (TWO,), "https://b/v1", "MINE", False),
        ((), (), (TWO,), "https://h/v1", "OTHER", False),
        ((), (), (TWO.replace("//h/v1", "//h*"),), "https://host/v1", "MINE", True),
        ((), (), ("pack.description=see http://x.org/",), "http://x.org", DEFAULT, 0),
        ((), ("user=openai:m@http://h:81/v1",), (), "http://h:81/v1", DEFAULT, True),
        ((), ("user=openai:m@http://h:81/v1",), (), "http://h:82/v1", DEFAULT, False),
        ((), ("user=openai:m@https://h/v1",), (), "http://h/v1", DEFAULT, False),
        ((), ("openai:m@https://h",), (), "https://h", DEFAULT, True),
        (("h=MINE",), (), (), "https://h:443/v1", "MINE", True),
        (("h:443=MINE",), (), (), "https://h/v1", "MINE", True),
        (("h=MINE",), (), (), "https://h:444/v1", "MINE", False),
        (("h=MINE",), (), (), "https://h/v1", "OTHER", False),
    ],
)
def test_a_key_goes_only_where_the_user_says(
    allowed, references, settings, url, variable, answer
):
    consent = keys.consent_of(allowed, references, settings)
    assert consent.allows(url, variable) == answer


@pytest.mark.parametrize(
    "grant",
    ["h", f"h={KEY}", "h/v1=MINE", "http://[x=MINE", "h=sk_not_a_variable", "=MINE"],
)
def test_a_grant_that_is_none_is_told_without_what_was_typed(grant):
    with pytest.raises(UsageError, match="--key must be written") as refused:
        keys.consent_of([grant], [])
    assert "sk" not in str(refused.value)


@pytest.mark.parametrize(
    "written",
    [
        KEY,
        KEY.replace("/", "\\/"),
        "".join(f"\\u{ord(letter):04x}" for letter in KEY),
        "".join(f"\\u{ord(letter):04X}" for letter in KEY),
    ],
)
def test_a_key_that_comes_back_is_removed_however_it_is_written(written):
    redactor = keys.Redactor(Access("MINE", (), "{}"))
    body = redactor.body(f'{{"error": "not {written} \\u00e9"}}'.encode())
    assert json.loads(body) == {"error": "not [removed] é"}
    assert (
        redactor.text("http://x/?t=sk-se%2Fcret%2B12345678") == "http://x/?t=[removed]"
    )


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        *((word, Finish.stop) for word in ("stop", "STOP", "eos", "end_turn")),
        ("MAX_TOKENS", Finish.length),
        ("SAFETY", Finish.content_filter),
    ],
)
def test_finish_reasons_of_other_services_are_known(reason, finish):
    assert finish_of(reason) is finish


@pytest.mark.parametrize(
    "url",
    [
        "HTTP://me:pass-word@h/v1",
        "http://h/v1?key=abc",
        "http://h/v1?a=1;key=abc",
        "http://h/v1#key=abc",
        "http://h/v1?sas=abc",
    ],
)
def test_a_url_with_a_secret_is_refused_and_not_shown(url):
    with pytest.raises(UsageError, match="holds a password or a key") as refused:
        addresses.parse(f"m@{url}", "openai", "openai:m@http://h/v1")
    assert "pass-word" not in str(refused.value) and "abc" not in str(refused.value)
