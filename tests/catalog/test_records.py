"""Files of others: what they hold arrives, whatever the order of their rows."""

from __future__ import annotations

import json

import pytest

from simforge.catalog import records


@pytest.mark.parametrize(
    ("name", "content", "rows"),
    [
        (
            "fields.json",
            json.dumps([{"m": {"a": 1}}, {"m": {"a": 2, "b": "x"}}]),
            [({"a": 1, "b": None},), ({"a": 2, "b": "x"},)],
        ),
        ("pandas.json", '{"a": {"0": 1, "1": 2}, "b": {"0": "x", "1": "y"}}', [(1, "x"), (2, "y")]),
        ("numbers.json", '[{"s": 1}, {"s": 2.5}, {"s": null}]', [(1.0,), (2.5,), (None,)]),
        ("kinds.json", '[{"m": {"a": 1}}, {"m": "x"}]', [('{"a": 1}',), ("x",)]),
        ("half.json", '[{"s": "\\ud800"}, {"s": "\\ud83d\\ude00"}]', [("�",), ("😀",)]),
        ("half.jsonl", '{"s": "\\ude00"}\n{"s": "\\ud83d\\ude00"}', [("�",), ("😀",)]),
        (
            "prompts.jsonl",
            '{"prompt": "{name} asks"}\n{"prompt": "{\\"a\\": 1}"}',
            [("{name} asks",), ('{"a": 1}',)],
        ),
        ("packed.jsonl", '{"row": "{\\"a\\": 1}"}\n{"row": "{\\"a\\": 2}"}', [(1,), (2,)]),
        ("marks.csv", "# c\nname,age\nAnn,3\n# Bo,4\n\nCy,5\n\n", [("Ann", 3), ("# Bo", 4), ("Cy", 5)]),
        ("semicolons.csv", "a;b\n1;2\n", [(1, 2)]),
        ("old_mac.csv", "a,b\r1,2\r", [(1, 2)]),
    ],
)  # fmt: skip
def test_what_a_file_holds_arrives(name, content, rows, tmp_path):
    (tmp_path / name).write_bytes(content.encode())
    assert records.read_table(tmp_path / name, comments=True).rows() == rows
