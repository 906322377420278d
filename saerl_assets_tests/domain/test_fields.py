"""Dotted paths, names of fields, and JSON that can always be stored."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.fields import (
    MAX_RAW_CHARACTERS,
    MISSING,
    Field,
    SourceRow,
    field_names,
    raw_of,
    shown,
    to_json,
    unknown_field,
    without,
)

ROW: dict[str, object] = {
    "prompt": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}],
    "extra_info": {"difficulty": 3, "index": None},
    "a.b": "dotted column",
    "answers": ["x", "y"],
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("extra_info.difficulty", 3),
        ("extra_info.index", None),
        ("prompt.1.content", "yes"),
        ("answers.0", "x"),
        ("a.b", "dotted column"),
        ("answers.2", MISSING),
        ("answers.-1", MISSING),
        ("answers.first", MISSING),
        ("extra_info.difficulty.deeper", MISSING),
        ("extra_info.nothing", MISSING),
        ("nothing", MISSING),
    ],
)
def test_a_field_is_found_by_its_dotted_path(path: str, value: object) -> None:
    assert Field(path).of(ROW) is value


def test_taking_fields_out_leaves_the_others_and_the_row_itself_as_they_were() -> None:
    before = json.dumps(ROW)
    rest = without(ROW, [Field("extra_info.difficulty"), Field("a.b"), Field("prompt.0.content"), Field("answers.0")])
    assert rest == {
        "prompt": [{"role": "user"}, {"role": "assistant", "content": "yes"}],
        "extra_info": {"index": None},
        "answers": [None, "y"],
    }
    assert json.dumps(ROW) == before


def test_an_object_that_gives_up_all_its_fields_goes_too() -> None:
    row: dict[str, object] = {"reward": {"model": {"truth": 1}}, "x": 2}
    assert without(row, [Field("reward.model.truth"), Field("not.there")]) == {"x": 2}


def test_names_are_leaves_in_the_order_of_their_appearance() -> None:
    assert field_names([{"b": {"c": 1}}, ROW]) == [
        "b.c",
        "prompt",
        "prompt.0.role",
        "prompt.0.content",
        "extra_info.difficulty",
        "extra_info.index",
        "a.b",
        "answers",
    ]


def test_an_unknown_field_is_answered_with_the_closest_one_and_all_there_are() -> None:
    known = field_names([ROW])
    assert "'prompt'?" in unknown_field("promt", "data.prompt", known, "x.jsonl").remedy
    nested = unknown_field("difficulty", "labels.difficulty.column", known, "x.jsonl")
    assert "'extra_info.difficulty'?" in nested.remedy
    assert all(name in nested.remedy for name in known)
    assert nested.where == "x.jsonl"


@given(VALUES)
def test_json_can_always_be_encoded_and_read_back_strictly(value: object) -> None:
    def refuse(constant: str) -> object:
        raise AssertionError(constant)

    text = to_json(value)
    text.encode()
    json.loads(text, parse_constant=refuse)
    assert "\n" not in text


def test_json_of_what_json_does_not_know() -> None:
    value = {"t": datetime(2024, 5, 1, tzinfo=UTC), "n": float("nan"), "b": b"\x00", "s": "\ud800", "é": 1}
    assert json.loads(to_json(value)) == {
        "t": "2024-05-01T00:00:00+00:00",
        "n": None,
        "b": "b'\\x00'",
        "s": "\ud800",
        "é": 1,
    }
    assert "é" in to_json({"é": 1})


def test_raw_rows_and_examples_are_cut_and_can_be_encoded() -> None:
    raw = raw_of(SourceRow(0, 1, {"x": "\ud800" + "y" * 5_000}))
    assert len(raw) == MAX_RAW_CHARACTERS
    raw.encode()
    assert raw_of(SourceRow(0, 1, None, ("broken_json", "why"), "{oops")) == "{oops"
    assert shown("a\n b \\frac") == "'a b \\frac'"
    assert len(shown("z" * 500)) == 80
