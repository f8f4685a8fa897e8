"""Tables for a terminal, for documents and for programs."""

import json

import pytest

from src.utils.table import Table

TABLE = Table(
    ("name", "size", "what it is"),
    [
        ("`a`, `b`", "1,234", "a short one."),
        ("c", "5", "words that take more room than a narrow terminal has"),
        ("d", "6", ""),
    ],
    "lrl",
    below={"what it is": "that is: "},
    note="a note",
)


def test_rows_that_fit_are_lines():
    assert TABLE.text().splitlines()[:4] == [
        "name   size  what it is",
        "----  -----  ----------------------------------------------------",
        "a, b  1,234  a short one.",
        "c         5  words that take more room than a narrow terminal has",
    ]
    assert TABLE.text(65) == TABLE.text()


def test_long_cells_go_below_their_row_in_a_narrow_terminal():
    assert TABLE.text(40).splitlines() == [
        "name   size",
        "----  -----",
        "a, b  1,234",
        "    that is: a short one.",
        "c         5",
        "    that is: words that take more room",
        "    than a narrow terminal has",
        "d         6",
        "",
        "a note",
    ]


def test_several_cells_below_a_row_share_its_lines():
    table = Table(
        ("name", "meaning", "values"), [("key", "What it means.", "1, 2")], "lll", {"meaning": "", "values": "v: "}
    )
    assert table.text(20).splitlines()[2:] == ["key", "    What it means;", "    v: 1, 2"]


def test_name_that_makes_a_column_wide_is_cut():
    table = Table(("name", "on a backbone with a long name", "what"), [("a", "12", "it is long")], "lrl", {"what": ""})
    assert table.text(20).splitlines() == [
        "name  on a backbone…",
        "----  --------------",
        "a                 12",
        "    it is long",
    ]


def test_markdown_keeps_backticks_and_alignment():
    assert TABLE.markdown().splitlines()[:3] == [
        "| name | size | what it is |",
        "|---|--:|---|",
        "| `a`, `b` | 1,234 | a short one. |",
    ]
    lines = TABLE.markdown(padded=True).splitlines()
    assert len({len(line) for line in lines[:5]}) == 1
    assert lines[5] == "a note"


def test_json_is_one_object_per_row():
    rows = json.loads(TABLE.json())
    assert rows[0] == {"name": "a, b", "size": "1,234", "what it is": "a short one."}
    assert len(rows) == 3


def test_row_with_a_missing_cell_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        Table(("a", "b"), [("1",)], "ll").text()
