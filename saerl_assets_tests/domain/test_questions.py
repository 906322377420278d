"""Questions: responses to one are together, a prompt without one is alone, and samples keep them whole."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.fields import to_json
from saerl_assets.domain.messages import prompt_id
from saerl_assets.domain.questions import exchanged, members, numbered, question_ids, redrawn

GROUPS = st.lists(st.integers(0, 6), min_size=1, max_size=30).map(lambda found: np.array(found, dtype=np.int64))


def table(*asked: tuple[str, str | None]) -> pl.DataFrame:
    found = [([{"role": "user", "content": text}], response) for text, response in asked]
    return pl.DataFrame(
        {
            "prompt_id": [prompt_id(messages, response) for messages, response in found],
            "messages": [to_json(messages) for messages, _ in found],
            "response": [response for _, response in found],
        },
        schema={"prompt_id": pl.String, "messages": pl.String, "response": pl.String},
    )


def test_responses_to_a_question_have_its_id_and_a_prompt_without_one_its_own() -> None:
    prompts = table(("a", "1"), ("a", "2"), ("b", "1"), ("a", None), ("ü\n", None))
    found = question_ids(prompts)
    assert found[0] == found[1] == found[3] == prompts["prompt_id"][3]
    assert found[2] not in (found[0], *prompts["prompt_id"])
    assert found[4] == prompts["prompt_id"][4]
    assert question_ids(prompts, np.array([2, 4])) == [found[2], found[4]]
    assert question_ids(prompts.select("prompt_id")) == prompts["prompt_id"].to_list()


def test_groups_are_numbered_as_they_turn_up() -> None:
    assert numbered(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
    assert numbered([]).tolist() == []


@given(GROUPS)
def test_members_are_every_row_once_by_group(groups: np.ndarray) -> None:
    rows = np.arange(len(groups))
    parts = members(rows, groups)
    assert sorted(np.concatenate(parts).tolist()) == rows.tolist()
    assert [part[0] for part in parts] == sorted(part[0] for part in parts)
    assert len(parts) == len(set(groups.tolist()))
    for part in parts:
        assert len(set(groups[part].tolist())) == 1
        assert part.tolist() == sorted(part.tolist())


@given(GROUPS, st.integers(0, 9))
def test_samples_keep_groups_whole(groups: np.ndarray, seed: int) -> None:
    rows = np.arange(len(groups))
    times = np.bincount(redrawn(members(rows, groups), np.random.default_rng(seed)), minlength=len(rows))
    assert all(len(set(times[part].tolist())) == 1 for part in members(rows, groups))
    other = exchanged(members(rows, groups), np.random.default_rng(seed))
    assert sorted(other.tolist()) == rows.tolist()
    assert np.count_nonzero(np.diff(groups[other])) == len(set(groups.tolist())) - 1


def test_groups_of_one_row_are_drawn_as_rows() -> None:
    rows = np.array([4, 7, 9, 12])
    drawn = redrawn(members(rows, np.arange(20)), np.random.default_rng(3))
    assert drawn.tolist() == np.random.default_rng(3).choice(rows, 4).tolist()
