"""Conditions say what SQL would say of the row, and can say nothing else."""

from __future__ import annotations

import polars as pl
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from simforge import catalog
from simforge.text.conditions import parse_condition


def _shipped() -> list[str]:
    found = []
    for path in sorted((catalog.root() / "personas").rglob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            continue
        found += content.get("where", [])
        tilts = (content.get("tilts") or {}).get("toward") or {}
        for poles in tilts.values():
            for conditions in poles.values():
                found += conditions
    return found


def test_every_condition_that_ships_says_what_sql_would(subtests=None):
    conditions = _shipped()
    assert len(conditions) > 40
    for text in conditions:
        condition = parse_condition(text)
        texts = dict(condition.compared)
        rows = {
            name: [texts[name], "zzz", None] * 20
            if name in texts
            else [*range(0, 100, 2), *[None] * 10]
            for name in condition.columns
        }
        frame = pl.DataFrame(rows, strict=False)
        ours = frame.select(x=condition.expression)["x"]
        assert ours.equals(frame.select(x=pl.sql_expr(text))["x"]), text


NAMES = st.sampled_from(["a", "b"])
NUMBERS = st.integers(-5, 5).map(str)
TERMS = st.one_of(NAMES, NUMBERS, st.builds("{} + {}".format, NAMES, NUMBERS))
SIGNS = st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="])
SIMPLE = st.one_of(
    st.builds("{} {} {}".format, TERMS, SIGNS, TERMS),
    st.builds("{} IN ({}, {})".format, NAMES, NUMBERS, NUMBERS),
    st.builds("{} NOT IN ({})".format, NAMES, NUMBERS),
    st.builds("{} BETWEEN {} AND {}".format, NAMES, NUMBERS, NUMBERS),
    st.builds("{} IS NULL".format, NAMES),
    st.builds("{} IS NOT NULL".format, NAMES),
)
CONDITIONS = st.recursive(
    SIMPLE,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=6,
)


@given(CONDITIONS)
def test_made_up_conditions_say_what_sql_would(text):
    values = [-5, -1, 0, 1, 2, 5, None]
    frame = pl.DataFrame(
        {"a": values * 7, "b": [value for value in values for _ in range(7)]}
    )
    ours = frame.select(x=parse_condition(text).expression)["x"]
    assert ours.equals(frame.select(x=pl.sql_expr(text))["x"])


def test_a_condition_names_its_columns_and_the_texts_that_it_compares():
    condition = parse_condition("NOT (job = 'it''s' AND age < 3) OR city IN ('x', 'y')")
    assert condition.columns == ("job", "age", "city")
    assert condition.compared == (("job", "it's"), ("city", "x"), ("city", "y"))


@pytest.mark.parametrize(
    "text",
    [
        "name IN (SELECT c FROM read_csv('http://127.0.0.1:9/x'))",
        "a IN (SELECT * FROM read_parquet('/etc/passwd'))",
        "EXISTS (SELECT 1)",
        "a > 1; DROP TABLE x",
        "age > AVG(age)",
        "REPEAT(job, 999999999) = job",
        "CASE WHEN a THEN 1 END",
        "age::int > 1",
        "job LIKE 'a%'",
        "age >",
        "",
        "(",
        "a = 'x",
        "a IN ()",
        "NOT",
        "a NOT 3",
        "(" * 5_000 + "a > 1" + ")" * 5_000,
        "NOT " * 5_000 + "a",
        " AND ".join(["a > 1"] * 20_000),
        "a > " + "9" * 400,
    ],
    ids=lambda text: text[:30],
)
def test_nothing_else_is_a_condition(text):
    with pytest.raises(ValueError):
        parse_condition(text)
