"""From rows to prompts: nothing is lost, duplicates fold, what cannot be used is rejected with its reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from random import Random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import SourceRow
from saerl_assets.domain.labels import OBSERVATION_SCHEMA, fold_labels
from saerl_assets.domain.prompts import (
    PROMPTS_SCHEMA,
    Intake,
    TokenisedText,
    check_rejected,
    take_prompts,
)
from saerl_assets.domain.spec import VersionSpec

SUFFIX = " Let's think step by step."


class WordTokeniser:
    """A token per word, numbered by its length; remembers what it was given."""

    def __init__(self) -> None:
        self.prompts: list[list[dict[str, str]] | str] = []
        self.responses: list[str | None] = []

    def __call__(
        self, prompts: Sequence[list[dict[str, str]] | str], responses: Sequence[str | None]
    ) -> list[TokenisedText]:
        self.prompts += prompts
        self.responses += responses
        return [self._one(*pair) for pair in zip(prompts, responses, strict=True)]

    def _one(self, prompt: list[dict[str, str]] | str, response: str | None) -> TokenisedText:
        text = prompt if isinstance(prompt, str) else " ".join(message["content"] for message in prompt)
        ids, response_ids = word_lengths(text), word_lengths(response or "")
        return TokenisedText(ids + response_ids, len(ids) if response else 0)


def word_lengths(text: str) -> list[int]:
    """Token ids of a text; a zero-width space is none."""
    return [len(word) for word in text.split() if word != "\u200b"]


def spec(**sections: object) -> VersionSpec:
    data = {"source": "path:x.jsonl", **dict(sections.pop("data", {}))}  # type: ignore[call-overload]
    return VersionSpec.model_validate({"key": "x-v1", "data": data, **sections})


def rows(*values: Mapping[str, object] | None) -> Iterator[SourceRow]:
    for position, value in enumerate(values):
        problem = None if value is not None else ("broken_json", "Line is not JSON.")
        yield SourceRow(
            position,
            position + 1,
            None if value is None else dict(value),
            problem,
            "{oops" if problem else "",
        )


def take(version: VersionSpec, *values: Mapping[str, object] | None, tokenise: WordTokeniser | None = None) -> Intake:
    return take_prompts(rows(*values), version, tokenise or WordTokeniser(), file="x.jsonl")


def codes(intake: Intake) -> list[tuple[int, str]]:
    return list(intake.rejected.select("position", "reason_code").iter_rows())


def by_text(intake: Intake, text: str) -> dict[str, object]:
    return intake.prompts.row(by_predicate=pl.col("text") == text, named=True)


def test_a_row_becomes_a_prompt() -> None:
    version = spec(data={"answer": "answer", "topic": "info.topic"}, labels={"difficulty": {"column": "info.level"}})
    row: dict[str, object] = {
        "prompt": " What is 6 x 7?\r\n",
        "answer": 42,
        "info": {"topic": "sums", "level": 3, "id": 9},
        "date": None,
    }
    intake = take(version, row)
    (prompt,) = intake.prompts.iter_rows(named=True)
    assert prompt.pop("prompt_id") == intake.observations["prompt_id"].item()
    assert len(prompt.pop("text_id")) == 32
    assert prompt == {
        "position": 0,
        "messages": '[{"role": "user", "content": "What is 6 x 7?"}]',
        "is_chat": False,
        "text": "What is 6 x 7?",
        "response": None,
        "answer": "42",
        "topic": "sums",
        "split": "train",
        "token_ids": [4, 2, 1, 1, 2],
        "n_tokens": 5,
        "n_prefix_tokens": 0,
        "extra": '{"info": {"id": 9}, "date": null}',
        "n_rows": 1,
    }
    assert intake.observations.drop("prompt_id", "observation_id").row(0, named=True) == {
        "label": "difficulty",
        "value": 3.0,
        "source": "column",
        "place": "x.jsonl:1",
    }


def test_frames_have_the_tables_columns_even_where_they_are_empty() -> None:
    for intake in (take(spec(), {"prompt": "a"}), take(spec(), {"prompt": None})):
        assert dict(intake.prompts.schema) == PROMPTS_SCHEMA
        assert dict(intake.observations.schema) == OBSERVATION_SCHEMA
        assert intake.rejected.columns == ["position", "file", "line", "reason_code", "reason", "raw"]


TEXTS = st.sampled_from(["one", "one ", "two words", "three whole words", "é", "é", " ", "\u200b"])
ROWS = st.lists(
    st.none()
    | st.fixed_dictionaries(
        {
            "prompt": TEXTS
            | st.none()
            | st.just(5)
            | st.just([])
            | TEXTS.map(lambda t: [{"role": "user", "content": t}])
        },
        optional={
            "answer": st.sampled_from(["1", " 1", "2", None]),
            "level": st.sampled_from([1, 2, None, "hard"]),
        },
    ),
    min_size=1,
    max_size=30,
)


def property_spec(values: Sequence[Mapping[str, object] | None]) -> VersionSpec:
    """Maps the fields that the rows have: one that no row has is an error of its own."""
    found = {name for value in values if value for name in value}
    data = {"answer": "answer"} if "answer" in found else {}
    labels = {"difficulty": {"column": "level"}} if "level" in found else {}
    return spec(data=data, labels=labels, reader={"max_tokens": 2})


@given(ROWS)
@settings(deadline=None)
def test_every_row_is_in_exactly_one_place(values: list[dict[str, object] | None]) -> None:
    intake = take(property_spec(values), *values)
    assert len(values) == intake.prompts["n_rows"].sum() + intake.rejected.height
    assert intake.counts["rows"] == intake.counts["rows_taken"] + intake.counts["rejected"]
    assert intake.counts["prompts"] == intake.counts["rows_taken"] - intake.counts["duplicates_folded"]
    assert intake.prompts["prompt_id"].is_unique().all()
    assert intake.prompts["prompt_id"].is_sorted()
    assert intake.rejected["position"].is_sorted()
    assert not set(intake.rejected["position"]) & set(intake.prompts["position"])
    assert set(intake.observations["prompt_id"]) <= set(intake.prompts["prompt_id"])
    assert intake.observations["observation_id"].is_unique().all()


@given(ROWS, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_prompts_and_their_labels_do_not_depend_on_the_order_of_the_rows(
    values: list[dict[str, object] | None], random: Random
) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    version = property_spec(values)
    one, other = take(version, *values), take(version, *shuffled)
    identity = ["prompt_id", "answer", "split", "text_id", "n_rows"]
    assert one.prompts.select(identity).equals(other.prompts.select(identity))
    labels = [fold_labels(intake.observations) for intake in (one, other)]
    assert labels[0].equals(labels[1])
    assert Counter(code for _, code in codes(one)) == Counter(code for _, code in codes(other))


def test_what_cannot_be_used_is_rejected_with_its_reason() -> None:
    version = spec(data={"answer": "answer"}, reader={"max_tokens": 3})
    values: list[dict[str, object] | None] = [
        {"prompt": "fine", "answer": "x"},
        None,
        {"answer": "x"},
        {"prompt": None},
        {"prompt": "  "},
        {"prompt": 12},
        {"prompt": [{"content": "no role"}]},
        {"prompt": "one two three four"},
        {"prompt": "\u200b"},
        {"prompt": "listed", "answer": ["x"]},
    ]
    intake = take(version, *values)
    assert codes(intake) == [
        (1, "broken_json"),
        (2, "missing_field"),
        (3, "null_prompt"),
        (4, "blank_prompt"),
        (5, "not_text"),
        (6, "bad_messages"),
        (7, "too_long"),
        (8, "no_tokens"),
        (9, "not_text"),
    ]
    raws = dict(intake.rejected.select("position", "raw").iter_rows())
    assert raws[1] == "{oops"
    assert json.loads(raws[6]) == {"prompt": [{"content": "no role"}]}
    assert json.loads(raws[7]) == {"prompt": "one two three four", "answer": None}
    assert intake.rejected["line"].to_list() == list(range(2, 11))
    assert "reader.max_tokens = 3" in intake.rejected["reason"][6]


def test_duplicates_fold_into_the_first_row_and_their_labels_are_averaged() -> None:
    version = spec(data={"answer": "answer"}, labels={"difficulty": {"column": "level"}})
    intake = take(
        version,
        {"prompt": "other", "level": 7},
        {"prompt": "same", "level": 1, "n": "first"},
        {"prompt": [{"role": "user", "content": "same "}], "level": 4, "answer": " 5 ", "n": "second"},
        {"prompt": "same\r\n", "level": 4, "answer": "5"},
    )
    same = by_text(intake, "same")
    assert (same["position"], same["n_rows"], same["is_chat"], same["answer"]) == (1, 3, False, "5")
    assert same["extra"] == '{"n": "first"}'
    labels = fold_labels(intake.observations)
    assert labels.filter(prompt_id=same["prompt_id"]).row(0)[2:] == (3.0, 3, 3.0)
    assert intake.counts["duplicates_folded"] == 2
    assert intake.counts["label_conflicts"] == intake.counts["label_conflicts_folded"] == 1
    assert intake.counts["prompts_without_answer"] == 1


def test_duplicates_whose_answers_disagree_are_rejected_with_all_their_rows() -> None:
    version = spec(data={"answer": "answer"}, labels={"difficulty": {"column": "level"}})
    intake = take(
        version,
        {"prompt": "same", "answer": "1/2", "level": 1},
        {"prompt": "other", "answer": "7", "level": 2},
        {"prompt": "same", "answer": "1/2 ", "level": 3},
        {"prompt": "same", "answer": "0.5", "level": 4},
    )
    assert codes(intake) == [(position, "answer_conflict") for position in (0, 2, 3)]
    assert [json.loads(raw)["answer"] for raw in intake.rejected["raw"]] == ["1/2", "1/2", "0.5"]
    assert "'1/2', but '0.5' on line 4" in intake.rejected["reason"][0]
    assert intake.prompts["text"].to_list() == ["other"]
    assert intake.observations["value"].to_list() == [2.0]
    assert intake.counts["answer_conflicts"] == 1
    assert (intake.counts["label_conflicts"], intake.counts["label_conflicts_folded"]) == (1, 0)


def test_an_unreadable_label_costs_the_observation_and_not_the_row() -> None:
    version = spec(labels={"correct": {"column": "ok"}})
    values = [True, False, 0.25, "0.5", "yes", float("nan"), float("inf"), None, [1]]
    intake = take(
        version,
        *({"prompt": f"p{place}", "ok": value} for place, value in enumerate(values)),
        {"prompt": "q"},
    )
    assert intake.prompts.height == 10
    assert sorted(intake.observations["value"]) == [0.0, 0.25, 0.5, 1.0]
    assert intake.counts["labels_unreadable"] == 4
    assert intake.notes["first_labels_unreadable"] == "x.jsonl:5: ok = 'yes' is not a finite number."


@pytest.mark.parametrize(
    ("sections", "key", "guess"),
    [
        ({"data": {"prompt": "promt"}}, "data.prompt", "'prompt'"),
        ({"data": {"answer": "ground_truth"}}, "data.answer", "'reward_model.ground_truth'"),
        (
            {"labels": {"difficulty": {"column": "reward_model.dificulty"}}},
            "labels.difficulty.column",
            "difficulty",
        ),
        ({"split": {"column": "splt"}}, "split.column", "Fields that there are"),
        ({"data": {"keep": ["idx"]}}, "data.keep.0", "Fields that there are"),
    ],
)
def test_a_field_that_no_row_has_is_one_error(sections: dict[str, object], key: str, guess: str) -> None:
    values = [{"prompt": f"p{n}", "reward_model": {"ground_truth": n, "difficulty": n}} for n in range(5)]
    with pytest.raises(SaerlError, match=key) as caught:
        take(spec(**sections), *values)
    assert caught.value.code == "unknown_field"
    assert guess in caught.value.remedy


def test_a_wrong_prompt_field_is_told_early() -> None:
    n_read = 0

    def endless() -> Iterator[SourceRow]:
        nonlocal n_read
        while True:
            n_read += 1
            yield SourceRow(n_read - 1, n_read, {"question": "why?"})

    with pytest.raises(SaerlError, match="'prompt'"):
        take_prompts(endless(), spec(), WordTokeniser(), file="x.jsonl")
    assert n_read <= 10_000


def test_a_field_that_only_a_late_row_has_is_no_error() -> None:
    version = spec(labels={"difficulty": {"column": "level"}})
    intake = take(version, *({"prompt": f"p{n}"} for n in range(200)), {"prompt": "late", "level": 3})
    assert intake.observations["place"].to_list() == ["x.jsonl:201"]


def test_a_source_without_rows_is_an_error() -> None:
    with pytest.raises(SaerlError, match="source_empty"):
        take(spec())


def test_too_much_rejected_stops_with_what_and_where() -> None:
    values: list[Mapping[str, object] | None] = [
        None,
        {"prompt": ""},
        *({"prompt": f"p{n}"} for n in range(8)),
    ]
    intake = take(spec(), *values)
    check_rejected(intake, spec(data={"max_rejected_fraction": 0.2}))
    with pytest.raises(SaerlError, match="too_many_rejected") as caught:
        check_rejected(intake, spec(data={"max_rejected_fraction": 0.19}))
    assert "2 of 10 rows (20.0%)" in caught.value.problem
    assert "blank_prompt 1, broken_json 1" in caught.value.problem
    assert "Line 1:" in caught.value.problem
    assert caught.value.where == "x.jsonl"
    with pytest.raises(SaerlError, match="no_prompts"):
        check_rejected(take(spec(), None), spec(data={"max_rejected_fraction": 1.0}))


def test_a_shared_suffix_is_left_out_for_reading_and_kept_in_the_messages() -> None:
    tokenise = WordTokeniser()
    version = spec(data={"strip_suffix": "auto"})
    chat = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"And 2?{SUFFIX}"},
        {"role": "assistant", "content": "Well:"},
    ]
    intake = take(version, {"prompt": f"What is 1?{SUFFIX}"}, {"prompt": chat}, tokenise=tokenise)
    assert intake.affixes == {"prefix": "", "suffix": SUFFIX}
    assert sorted(intake.prompts["text"]) == ["Be brief.\nAnd 2?\nWell:", "What is 1?"]
    assert tokenise.prompts == ["What is 1?", "Be brief.\nAnd 2?\nWell:"]
    assert all(SUFFIX in messages for messages in intake.prompts["messages"])


def test_a_chat_template_gets_messages_with_the_stripped_content() -> None:
    tokenise = WordTokeniser()
    version = spec(data={"strip_suffix": SUFFIX}, reader={"template": "chat"})
    intake = take(version, {"prompt": f"What is 1?{SUFFIX}"}, {"prompt": "And 2?"}, tokenise=tokenise)
    assert tokenise.prompts == [
        [{"role": "user", "content": "What is 1?"}],
        [{"role": "user", "content": "And 2?"}],
    ]
    assert intake.counts["prompts_without_suffix"] == 1


def test_the_identity_is_that_of_the_whole_prompt() -> None:
    whole, bare = {"prompt": f"What is 1?{SUFFIX}"}, {"prompt": "What is 1?"}
    stripped = take(spec(data={"strip_suffix": SUFFIX}), whole, bare).prompts
    assert set(stripped["prompt_id"]) == set(take(spec(), whole, bare).prompts["prompt_id"])
    assert stripped["text_id"].n_unique() == 1


def test_responses_are_read_only_where_the_scope_says_so() -> None:
    values: list[dict[str, object]] = [
        {"prompt": "a b", "response": "c"},
        {"prompt": "a b", "response": "c d"},
        {"prompt": "a"},
    ]
    tokenise = WordTokeniser()
    intake = take(spec(data={"response": "response"}), *values, tokenise=tokenise)
    assert (intake.prompts.height, set(tokenise.responses)) == (3, {None})
    assert intake.prompts["n_prefix_tokens"].to_list() == [0, 0, 0]
    values.append({"prompt": "a", "response": "\u200b"})
    read = take(spec(data={"response": "response"}, reader={"scope": "response"}), *values)
    assert codes(read) == [(2, "missing_response"), (3, "no_tokens")]
    assert sorted(read.prompts["n_prefix_tokens"]) == [2, 2]
    assert sorted(read.prompts["n_tokens"]) == [3, 4]


def test_where_only_the_response_is_pooled_its_start_is_part_of_the_texts_identity() -> None:
    values = [{"prompt": "a", "response": "b c"}, {"prompt": "a b", "response": "c"}]
    both = take(spec(data={"response": "response"}, reader={"scope": "prompt_and_response"}), *values)
    only = take(spec(data={"response": "response"}, reader={"scope": "response"}), *values)
    assert both.prompts["text_id"].n_unique() == 1
    assert only.prompts["text_id"].n_unique() == 2


def test_the_split_follows_the_prompt_and_nothing_else() -> None:
    values = [{"prompt": f"prompt {n}"} for n in range(2_000)]
    small = take(spec(seed=1, split={"evaluation_fraction": 0.1}), *values[:1_000]).prompts
    large = take(spec(seed=2, split={"evaluation_fraction": 0.1}), *reversed(values)).prompts
    joined = small.join(large, on="prompt_id")
    assert joined.height == 1_000
    assert (joined["split"] == joined["split_right"]).all()
    assert 150 <= (large["split"] == "evaluation").sum() <= 250
    wider = take(spec(split={"evaluation_fraction": 0.3}), *values).prompts.filter(split="evaluation")
    assert set(large.filter(split="evaluation")["prompt_id"]) < set(wider["prompt_id"])


def test_responses_to_one_question_are_on_one_side_of_the_split() -> None:
    """On that of the question itself, where it is a prompt of its own."""
    values = [{"prompt": f"prompt {n}", "response": f"answer {m}"} for n in range(200) for m in range(4)]
    wanted = spec(data={"response": "response"}, split={"evaluation_fraction": 0.2})
    answered = take(wanted, *values, *({"prompt": f"prompt {n}"} for n in range(100))).prompts
    assert answered.height == 900
    sides = answered.group_by("messages").agg(pl.col("split").unique())
    assert sides["split"].list.len().to_list() == [1] * 200
    asked = take(spec(split={"evaluation_fraction": 0.2}), *({"prompt": f"prompt {n}"} for n in range(200))).prompts
    joined = asked.join(sides, on="messages", suffix="_of_responses")
    assert (joined["split"] == joined["split_of_responses"].list.first()).all()
    assert set(asked["split"]) == {"train", "evaluation"}


def test_a_prompt_without_a_response_is_where_it_has_always_been() -> None:
    """A change here moves prompts between training and evaluation, in every version."""
    found = take(spec(split={"evaluation_fraction": 0.1}), *({"prompt": f"prompt {n}"} for n in range(60))).prompts
    apart = found.filter(split="evaluation").sort("position")["text"].to_list()
    assert apart == [f"prompt {n}" for n in (19, 32, 38, 39, 49)]


def test_a_column_can_name_the_split_and_evaluation_wins() -> None:
    values = [
        {"prompt": "a", "part": "train"},
        {"prompt": "b", "part": "test"},
        {"prompt": "c", "part": "train"},
        {"prompt": "c", "part": "test"},
        {"prompt": "d"},
    ]
    intake = take(spec(split={"column": "part"}), *values)
    assert dict(intake.prompts.select("text", "split").iter_rows()) == {
        "a": "train",
        "b": "evaluation",
        "c": "evaluation",
        "d": "train",
    }
    assert (intake.counts["split_conflicts"], intake.counts["evaluation_prompts"]) == (1, 2)


def test_named_fields_are_carried_along_under_their_paths() -> None:
    intake = take(
        spec(data={"keep": ["info.id", "prompt"]}),
        {"prompt": "a", "info": {"id": 1, "x": 2}},
        {"prompt": "b"},
    )
    assert by_text(intake, "a")["extra"] == '{"info.id": 1, "prompt": "a"}'
    assert by_text(intake, "b")["extra"] == '{"prompt": "b"}'


def test_a_limit_takes_the_first_rows_and_reads_no_more() -> None:
    source = rows(*({"prompt": f"p{n}"} for n in range(9)))
    intake = take_prompts(source, spec(data={"limit": 4}), WordTokeniser(), file="x.jsonl")
    assert intake.counts["rows"] == 4
    assert next(source).position == 4


def test_progress_is_told_with_the_rows_expected() -> None:
    told: list[tuple[int, int, str]] = []

    def progress(done: int, total: int, *, unit: str, note: str = "") -> None:
        told.append((done, total, unit + note))

    values = ({"prompt": f"p{n}"} for n in range(6_000))
    take_prompts(rows(*values), spec(), WordTokeniser(), file="x.jsonl", n_rows=6_000, progress=progress)
    assert told[0] == (5_000, 6_000, "rows")
    assert told[-1] == (6_000, 6_000, "prompts")
