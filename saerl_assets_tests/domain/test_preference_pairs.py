"""Pairs: from every way in which public sets have them, one prompt with several, and bad ones with their reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import SourceRow
from saerl_assets.domain.preference_pairs import PAIRS_SCHEMA, pairs_of_slots, transcript
from saerl_assets.domain.prompts import Intake, take_prompts
from saerl_assets.domain.spec import VersionSpec, parse_spec
from saerl_assets_tests.domain.table_shapes import assert_is_table
from saerl_assets_tests.domain.test_prompts import WordTokeniser

APART = {"chosen": "chosen", "rejected": "rejected"}
TOGETHER = {**APART, "prompt": "chosen"}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def system(text: str) -> dict[str, str]:
    return {"role": "system", "content": text}


def take(data: Mapping[str, str], *rows: Mapping[str, object], **sections: object) -> Intake:
    spec = VersionSpec.model_validate({"key": "x-v1", "data": {"source": "path:x.jsonl", **data}, **sections})
    numbered = [SourceRow(at, at + 1, dict(row)) for at, row in enumerate(rows)]
    return take_prompts(numbered, spec, WordTokeniser(), file="x.jsonl")


def pairs_of(intake: Intake) -> list[tuple[list[dict[str, str]], int, Any, Any, bool]]:
    """Prompt, number, chosen, rejected and whether it was a chat, by prompt."""
    assert_is_table(intake.pairs, "preference_pairs")
    joined = intake.pairs.join(intake.prompts.select("prompt_id", "messages"), on="prompt_id", how="left")
    return [
        (
            json.loads(row["messages"]),
            row["pair"],
            json.loads(row["chosen"]),
            json.loads(row["rejected"]),
            row["is_chat"],
        )
        for row in joined.sort("position").iter_rows(named=True)
    ]


def test_text_with_a_prompt_of_its_own() -> None:
    intake = take(APART, {"prompt": "Why? ", "chosen": " So. \r\n", "rejected": "No.", "score": 3})
    assert pairs_of(intake) == [([user("Why?")], 0, [assistant(" So.")], [assistant("No.")], False)]
    assert json.loads(intake.prompts["extra"].item()) == {"score": 3}  # the answers are no longer carried along
    assert intake.counts["pairs"] == 1


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [user("Why?")], "chosen": [assistant("So.")], "rejected": [assistant("No.")]},
        {"prompt": "Why?", "chosen": [assistant("So.")], "rejected": [assistant("No.")]},
        # UltraFeedback: the conversation begins with the prompt
        {"prompt": "Why?", "chosen": [user(" Why?"), assistant("So.")], "rejected": [user("Why?"), assistant("No.")]},
    ],
)
def test_messages_with_a_prompt_of_their_own(row: dict[str, object]) -> None:
    assert pairs_of(take(APART, row)) == [([user("Why?")], 0, [assistant("So.")], [assistant("No.")], True)]


def test_the_prompt_is_what_both_conversations_begin_with() -> None:
    beginning = [system("Be brief."), user("Why?"), assistant("Why what?"), user("All of it.")]
    row = {"chosen": [*beginning, assistant("So.")], "rejected": [*beginning, assistant("No."), user("Oh.")]}
    intake = take(TOGETHER, row)
    assert pairs_of(intake) == [(beginning, 0, [assistant("So.")], [assistant("No."), user("Oh.")], True)]
    assert intake.prompts["is_chat"].item() is True
    assert intake.prompts["extra"].item() == "{}"


def test_transcripts_of_human_and_assistant_are_messages() -> None:
    beginning = "\n\nHuman: Why?\n\nAssistant: Why what?\n\nHuman: All\nof it."
    row = {"chosen": f"{beginning}\n\nAssistant: So it is.", "rejected": f"{beginning}\n\nAssistant: So not."}
    prompt = [user("Why?"), assistant("Why what?"), user("All\nof it.")]
    assert pairs_of(take(TOGETHER, row)) == [(prompt, 0, [assistant("So it is.")], [assistant("So not.")], True)]
    assert transcript("Why?") is None
    assert transcript("Assistant: So.") is None
    assert transcript("He said: Human: no.") is None


def test_rows_of_one_prompt_are_its_pairs_in_the_order_of_the_source() -> None:
    intake = take(
        APART,
        {"prompt": "Why?", "chosen": "a", "rejected": "b"},
        {"prompt": "Who?", "chosen": "d", "rejected": "e"},
        {"prompt": "Why?", "chosen": "a", "rejected": "c"},
        {"prompt": "Why?\n", "chosen": "a ", "rejected": "b"},  # the first pair again
        {"prompt": "Why?", "chosen": "b", "rejected": "a"},  # the opposite of it
    )
    assert intake.prompts.height == 2
    numbered = [(prompt[0]["content"], n, a[0]["content"], b[0]["content"]) for prompt, n, a, b, _ in pairs_of(intake)]
    assert numbered == [("Why?", 0, "a", "b"), ("Who?", 0, "d", "e"), ("Why?", 1, "a", "c"), ("Why?", 2, "b", "a")]
    assert intake.pairs.sort("position")["position"].to_list() == [0, 1, 2, 4]
    assert (intake.counts["pairs"], intake.counts["pairs_folded"], intake.counts["pair_conflicts"]) == (4, 1, 1)
    assert intake.counts["rows_taken"] == 5


BAD: list[tuple[dict[str, str], dict[str, object], str, str]] = [
    (APART, {"prompt": "Why?", "chosen": "a"}, "missing_pair", "rejected is missing"),
    (APART, {"prompt": "Why?", "chosen": None, "rejected": "b"}, "missing_pair", "chosen is null"),
    (APART, {"prompt": "Why?"}, "missing_pair", "chosen is missing"),
    (APART, {"prompt": "Why?", "chosen": " \n", "rejected": "b"}, "empty_pair", "chosen holds no answer"),
    (APART, {"prompt": "Why?", "chosen": "a", "rejected": []}, "empty_pair", "rejected is an empty list"),
    (APART, {"prompt": "Why?", "chosen": [user("Why?")], "rejected": "b"}, "empty_pair", "chosen holds no answer"),
    (APART, {"prompt": "Why?", "chosen": "a", "rejected": " a\r\n"}, "equal_pair", "are the same"),
    (
        APART,
        {"prompt": "Why?", "chosen": [user("Why?"), assistant("a")], "rejected": [assistant("a")]},
        "equal_pair",
        "are the same",
    ),
    (
        APART,
        {"prompt": "Why?", "chosen": [user("Who?"), assistant("a")], "rejected": [user("Who?"), assistant("b")]},
        "other_prompt",
        "chosen does not answer the prompt: its first message after it is by the user",
    ),
    (APART, {"prompt": "Why?", "chosen": 3, "rejected": "b"}, "not_text", "chosen is the number 3"),
    (APART, {"prompt": "Why?", "chosen": {"a": 1}, "rejected": "b"}, "not_text", "chosen is an object"),
    (APART, {"prompt": "Why?", "chosen": [{"role": "assistant"}], "rejected": "b"}, "bad_messages", "chosen.0.content"),
    (APART, {"prompt": "Why?", "chosen": "\ud800", "rejected": "b"}, "not_utf8", "surrogate"),
    (APART, {"prompt": " ", "chosen": "a", "rejected": "b"}, "blank_prompt", "white space"),
    (TOGETHER, {"chosen": "a", "rejected": "b"}, "no_shared_prompt", "no transcript"),
    (
        TOGETHER,
        {"chosen": [user("Why?"), assistant("a")], "rejected": [user("Who?"), assistant("b")]},
        "no_shared_prompt",
        "do not begin with the same prompt",
    ),
    (
        TOGETHER,
        {"chosen": [system("x"), assistant("a")], "rejected": [system("x"), assistant("b")]},
        "no_shared_prompt",
        "do not begin with the same prompt",
    ),
    (TOGETHER, {"chosen": [user("Why?")], "rejected": [user("Why?"), assistant("b")]}, "empty_pair", "chosen holds no"),
    (
        TOGETHER,
        {"chosen": [user("Why?"), assistant("a")], "rejected": [user("Why?"), assistant("a")]},
        "equal_pair",
        "are the same",
    ),
    (
        TOGETHER,
        {
            "chosen": [user("Why?"), assistant("a"), user("So?"), assistant("b")],
            "rejected": [user("Why?"), assistant("a"), user("No?"), assistant("c")],
        },
        "other_prompt",
        "they differ in an answer, not in what is asked",
    ),
    (TOGETHER, {"rejected": [user("Why?"), assistant("b")]}, "missing_pair", "chosen is missing"),
]


@pytest.mark.parametrize(("data", "row", "code", "says"), BAD)
def test_a_bad_pair_costs_its_row_with_the_reason(
    data: dict[str, str], row: dict[str, object], code: str, says: str
) -> None:
    good: dict[str, object] = {"prompt": "Good?", "chosen": "Human: Good?\n\nAssistant: a"}
    good["rejected"] = "Human: Good?\n\nAssistant: b"
    intake = take(data, good, row)
    (rejected,) = intake.rejected.iter_rows(named=True)
    assert (rejected["line"], rejected["reason_code"]) == (2, code)
    assert says in rejected["reason"]
    assert rejected["raw"]
    assert intake.pairs.height == intake.prompts.height == 1


def test_pairs_of_prompts_that_are_not_taken_are_not_taken() -> None:
    rows = [
        {"prompt": "Why?", "answer": "1", "chosen": "a", "rejected": "b"},
        {"prompt": "Why?", "answer": "2", "chosen": "a", "rejected": "c"},
        {"prompt": "one two three four five", "answer": "3", "chosen": "a", "rejected": "b"},
        {"prompt": "Who?", "answer": "4", "chosen": "a", "rejected": "b"},
    ]
    intake = take({**APART, "answer": "answer"}, *rows, reader={"max_tokens": 4})
    assert sorted(intake.rejected["reason_code"]) == ["answer_conflict", "answer_conflict", "too_long"]
    assert [prompt[0]["content"] for prompt, *_ in pairs_of(intake)] == ["Who?"]
    assert intake.counts["pairs"] == 1


def test_without_pairs_in_the_spec_there_are_none() -> None:
    intake = take({}, {"prompt": "Why?", "chosen": "a", "rejected": "a"})
    assert intake.pairs.is_empty()
    assert dict(intake.pairs.schema) == PAIRS_SCHEMA
    assert "pairs" not in intake.counts
    assert json.loads(intake.prompts["extra"].item()) == {"chosen": "a", "rejected": "a"}


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ('chosen = "a"', "data.chosen is there, but not data.rejected"),
        ('rejected = "a"', "data.rejected is there, but not data.chosen"),
        ('chosen = "a"\nrejected = "a"', "both name 'a'"),
        ('[exports]\ntrainers = ["trl_dpo"]', "needs data.chosen and data.rejected"),
        (
            'prompt = "a"\nchosen = "a"\nrejected = "b"\n[labels.correct]\nsource = "path:l.jsonl"\ncolumn = "c"',
            "labels.correct.prompt is missing",
        ),
    ],
)
def test_a_spec_that_names_half_a_pair_is_an_error(lines: str, says: str) -> None:
    with pytest.raises(SaerlError) as caught:
        parse_spec(f'key = "x-v1"\n[data]\nsource = "path:x.jsonl"\n{lines}\n', "x.toml")
    assert caught.value.code == "spec_invalid"
    assert says in str(caught.value)


def test_a_field_that_no_row_has_is_one_error() -> None:
    with pytest.raises(SaerlError, match=r"data\.rejected names") as caught:
        take({"chosen": "chosen", "rejected": "rejektet"}, {"prompt": "Why?", "chosen": "a", "rejected": "b"})
    assert "Did you mean 'rejected'?" in caught.value.remedy


SAID = st.text("ab", min_size=1, max_size=2)


@settings(deadline=None)
@given(st.lists(st.tuples(SAID, SAID, SAID), min_size=1, max_size=12))
def test_every_pair_of_the_source_is_in_the_table_once(rows: list[tuple[str, str, str]]) -> None:
    intake = take(APART, *({"prompt": p, "chosen": a, "rejected": b} for p, a, b in rows))
    found = {(prompt[0]["content"], a[0]["content"], b[0]["content"]) for prompt, _, a, b, _ in pairs_of(intake)}
    good = [row for row in rows if row[1] != row[2]]
    assert found == set(good)
    assert intake.pairs.height == len(set(good))
    assert intake.rejected.height == len(rows) - len(good)


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 6))
def test_epochs_take_the_pairs_of_a_prompt_in_turn(n_pairs: list[int], n_epochs: int) -> None:
    pairs = pl.DataFrame(
        [
            {
                "prompt_id": f"p{at}",
                "pair": pair,
                "chosen": f"{at}+{pair}",
                "rejected": f"{at}-{pair}",
                "is_chat": False,
            }
            for at, n in enumerate(n_pairs)
            for pair in range(n)
        ],
        schema_overrides={"pair": pl.UInt32},
    )
    slots = pl.DataFrame(
        [
            {"epoch": epoch, "slot": at, "prompt_id": f"p{at}"}
            for epoch in range(n_epochs)
            for at in range(len(n_pairs))
        ],
        schema_overrides={"epoch": pl.UInt32},
    )
    found = pairs_of_slots(slots, pairs.sample(fraction=1.0, shuffle=True, seed=0))
    assert found.select(slots.columns).equals(slots)
    expected = [f"{at}+{epoch % n}" for epoch in range(n_epochs) for at, n in enumerate(n_pairs)]
    assert found["chosen"].to_list() == expected
    assert found["rejected"].to_list() == [said.replace("+", "-") for said in expected]
