"""Label values, label files matched to prompts, and the fold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import SourceRow
from saerl_assets.domain.labels import (
    OBSERVATION_SCHEMA,
    LabelFile,
    fold_labels,
    label_value,
    observations_from_file,
)
from saerl_assets.domain.prompts import TokenisedText, take_prompts
from saerl_assets.domain.spec import VersionSpec


def spec(prompt: str | None = None, **data: object) -> VersionSpec:
    return VersionSpec.model_validate(
        {
            "key": "x-v1",
            "data": {"source": "path:x.jsonl", **data},
            "labels": {"correct": {"column": "ok", "source": "path:labels.jsonl", "prompt": prompt}},
        }
    )


def rows(*values: Mapping[str, object] | None) -> Iterator[SourceRow]:
    for position, value in enumerate(values):
        problem = None if value is not None else ("broken_json", "Line is not JSON.")
        yield SourceRow(position, position + 1, None if value is None else dict(value), problem)


def tokenise(prompts: Sequence[object], responses: Sequence[str | None]) -> list[TokenisedText]:
    return [TokenisedText([1], 0) for _ in zip(prompts, responses, strict=True)]


def prompts_of(version: VersionSpec, *values: Mapping[str, object]) -> pl.DataFrame:
    return take_prompts(rows(*values), version, tokenise, file="x.jsonl").prompts


def match(version: VersionSpec, prompts: pl.DataFrame, *values: Mapping[str, object] | None) -> LabelFile:
    return observations_from_file(rows(*values), "correct", prompts, spec=version, file="labels.jsonl", digest="d1")


@pytest.mark.parametrize(
    ("value", "number"),
    [(True, 1.0), (False, 0.0), (3, 3.0), (-0.5, -0.5), (" 1.50 ", 1.5), ("1e-3", 1e-3), (".5", 0.5)],
)
def test_numbers_truth_values_and_numbers_as_text_are_values(value: object, number: float) -> None:
    assert label_value(value) == number


@pytest.mark.parametrize(
    "value", ["hard", "", "nan", "inf", "1_000", "0x10", float("nan"), float("-inf"), 10**400, [1], {"a": 1}]
)
def test_nothing_else_is(value: object) -> None:
    assert label_value(value) is None


def test_rows_of_a_label_file_find_their_prompts() -> None:
    version = spec()
    prompts = prompts_of(version, {"prompt": "a"}, {"prompt": [{"role": "user", "content": "b"}]})
    found = match(
        version,
        prompts,
        {"prompt": " a\r\n", "ok": True, "task_id": "t/1"},
        {"prompt": "b", "ok": 0},
        {"prompt": "a", "ok": False},
        {"prompt": "c", "ok": 1},
        {"prompt": "a", "ok": None},
        {"prompt": "a", "ok": "yes"},
        {"prompt": None, "ok": 1},
        None,
    )
    assert dict(found.observations.schema) == OBSERVATION_SCHEMA
    ids = dict(prompts.select("text", "prompt_id").iter_rows())
    assert list(found.observations.select("prompt_id", "value", "source", "place").iter_rows()) == [
        (ids["a"], 1.0, "file", "labels.jsonl:1"),
        (ids["b"], 0.0, "file", "labels.jsonl:2"),
        (ids["a"], 0.0, "file", "labels.jsonl:3"),
    ]
    assert found.counts == {
        "rows": 8,
        "observations": 3,
        "rows_without_prompt": 1,
        "rows_without_value": 1,
        "rows_unusable": 2,
        "labels_unreadable": 1,
    }
    assert found.notes["first_rows_without_prompt"] == "labels.jsonl:4: The version has no prompt 'c'."
    assert found.notes["first_rows_unusable"].startswith("labels.jsonl:7:")


def test_reading_a_file_again_adds_nothing_and_another_file_does() -> None:
    version = spec()
    prompts = prompts_of(version, {"prompt": "a"})
    values = [{"prompt": "a", "ok": 1}, {"prompt": "a", "ok": 0}]
    once, again = match(version, prompts, *values), match(version, prompts, *values)
    other = observations_from_file(rows(*values), "correct", prompts, spec=version, file="labels.jsonl", digest="d2")
    assert once.observations.equals(again.observations)
    assert not set(once.observations["observation_id"]) & set(other.observations["observation_id"])
    taken_up = [found.observations.with_columns(observed_at=pl.lit(day)) for day, found in enumerate((once, again))]
    both = fold_labels(pl.concat(taken_up))
    assert both.row(0, named=True)["n_observations"] == 2


def test_a_label_file_can_call_the_prompt_otherwise() -> None:
    version = spec(prompt="task.question")
    prompts = prompts_of(version, {"prompt": "a"})
    assert match(version, prompts, {"task": {"question": "a"}, "ok": 1}).counts["observations"] == 1


def test_a_row_without_a_response_speaks_of_the_prompt_with_all_its_responses() -> None:
    version = spec(response="reply")
    prompts = prompts_of(
        version, {"prompt": "a", "reply": "x"}, {"prompt": "a", "reply": "y"}, {"prompt": "b", "reply": "x"}
    )
    all_of_a = match(version, prompts, {"prompt": "a", "ok": 1}).observations
    assert set(all_of_a["prompt_id"]) == set(prompts.filter(text="a")["prompt_id"])
    assert all_of_a["observation_id"].is_unique().all()
    one = match(version, prompts, {"prompt": "a", "reply": "y", "ok": 1}).observations
    assert one["prompt_id"].to_list() == prompts.filter(text="a", response="y")["prompt_id"].to_list()


@pytest.mark.parametrize(
    ("values", "code", "remedy"),
    [
        ([], "source_empty", "label"),
        ([{"prompt": "a", "okay": 1}], "unknown_field", "'okay'"),
        ([{"question": "a", "ok": 1}], "unknown_field", "question"),
        ([{"prompt": "b", "ok": 1}], "labels_unmatched", "labels.correct.prompt"),
        ([{"prompt": "a", "ok": "maybe"}], "labels_unmatched", "labels.correct.column"),
        ([None], "labels_unmatched", "labels.correct.prompt"),
    ],
)
def test_a_file_that_says_nothing_is_an_error(
    values: list[Mapping[str, object] | None], code: str, remedy: str
) -> None:
    version = spec()
    with pytest.raises(SaerlError) as caught:
        match(version, prompts_of(version, {"prompt": "a"}), *values)
    assert caught.value.code == code
    assert remedy in caught.value.remedy
    assert caught.value.where == "labels.jsonl"


OBSERVATIONS = st.lists(
    st.tuples(
        st.sampled_from(["difficulty", "correct"]),
        st.integers(0, 30).map(str),
        st.sampled_from(["p1", "p2", "p3"]),
        st.floats(-1e6, 1e6),
    ),
    unique_by=lambda row: (row[0], row[1]),
)


@given(OBSERVATIONS, st.randoms(use_true_random=False))
def test_the_fold_is_the_mean_whatever_the_order(drawn: list[tuple[str, str, str, float]], random: Random) -> None:
    taken = [(label, origin, prompt, value, "column", "x:1") for label, origin, prompt, value in drawn]
    shuffled = [*taken, *taken]
    random.shuffle(shuffled)
    frames = [pl.DataFrame(each, schema=OBSERVATION_SCHEMA, orient="row") for each in (taken, shuffled)]
    folded, again = map(fold_labels, frames)
    assert folded.equals(again)
    assert folded["n_observations"].sum() == len(drawn)
    for prompt, label, value, n_observations, spread in folded.iter_rows():
        values = [row[3] for row in drawn if (row[2], row[0]) == (prompt, label)]
        assert value == pytest.approx(sum(values) / len(values), abs=1e-6)
        assert (n_observations, spread) == (len(values), max(values) - min(values))
    assert folded.select("prompt_id", "label").rows() == sorted(folded.select("prompt_id", "label").rows())


def test_no_observations_fold_into_an_empty_table() -> None:
    folded = fold_labels(pl.DataFrame(schema=OBSERVATION_SCHEMA))
    assert folded.height == 0
    assert dict(folded.schema) == {
        "prompt_id": pl.String,
        "label": pl.String,
        "value": pl.Float64,
        "n_observations": pl.UInt32,
        "spread": pl.Float64,
    }
