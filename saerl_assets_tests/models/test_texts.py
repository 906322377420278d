"""Shards and batches of texts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from saerl_assets.models import texts as texts_module
from saerl_assets.models.texts import BATCH_COST_TOKENS, Text, batches, plan_shards
from saerl_assets_tests.models.readers import texts_strategy


@given(texts_strategy(), st.integers(1, 6), st.integers(0, 100))
def test_shards_hold_every_text_once_whatever_the_order(texts: list[Text], size: int, seed: int) -> None:
    shuffled = [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]
    shards = plan_shards(texts, texts_per_shard=size)
    assert plan_shards(shuffled, texts_per_shard=size) == shards
    found = [text.text_id for shard in shards for text in shard.texts]
    assert sorted(found) == sorted(text.text_id for text in texts)
    assert [len(shard.texts) for shard in shards[:-1]] == [size] * (len(shards) - 1)
    assert len({shard.shard_id for shard in shards}) == len(shards)
    for shard in shards:
        lengths = [len(text.token_ids) for text in shard.texts]
        assert lengths == sorted(lengths)


def test_a_shard_is_named_by_what_decides_its_rows() -> None:
    (shard,) = plan_shards([Text("a", [1, 2])], texts_per_shard=2)
    (same,) = plan_shards([Text("a", np.array([1, 2], dtype=np.int32))], texts_per_shard=9)
    (other,) = plan_shards([Text("a", [1, 2], first_pooled=1)], texts_per_shard=2)
    assert shard.shard_id == same.shard_id != other.shard_id


def test_long_texts_make_shards_of_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts_module, "MAX_SHARD_TOKENS", 10)
    texts = [Text(f"{number}", [1] * n_tokens) for number, n_tokens in enumerate([4, 6, 1, 30, 2, 2])]
    shards = plan_shards(texts, texts_per_shard=3)
    assert [sorted(text.text_id for text in shard.texts) for shard in shards] == [["0", "1"], ["2"], ["3"], ["4", "5"]]


def test_no_texts_make_no_shards() -> None:
    assert plan_shards([], texts_per_shard=3) == []


@given(texts_strategy(), st.integers(1, 200))
def test_batches_hold_every_text_in_its_order_and_keep_to_the_budget(texts: list[Text], budget: int) -> None:
    ordered = sorted(texts, key=lambda text: len(text.token_ids))
    found = list(batches(ordered, budget))
    assert [text for batch in found for text in batch] == ordered
    assert all(padded(batch) <= budget or len(batch) == 1 for batch in found)


@settings(max_examples=50)
@example([0, 0], 1)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=8), st.integers(1, 1_000))
def test_no_other_cut_costs_less(lengths: list[int], budget: int) -> None:
    ordered = [Text(f"{place}", [1] * length) for place, length in enumerate(sorted(lengths))]
    every_cut = itertools.product([False, True], repeat=len(ordered) - 1)
    costs = [cost(cut_at(ordered, cuts)) for cuts in every_cut if keeps_to(cut_at(ordered, cuts), budget)]
    assert cost(list(batches(ordered, budget))) == min(costs)


def padded(batch: Sequence[Text]) -> int:
    return len(batch) * max(len(text.token_ids) for text in batch)


def cost(found: Sequence[Sequence[Text]]) -> int:
    return sum(padded(batch) + BATCH_COST_TOKENS for batch in found)


def keeps_to(found: Sequence[Sequence[Text]], budget: int) -> bool:
    return all(padded(batch) <= budget or len(batch) == 1 for batch in found)


def cut_at(texts: Sequence[Text], cuts: Sequence[bool]) -> list[list[Text]]:
    found = [[texts[0]]]
    for text, is_cut in zip(texts[1:], cuts, strict=True):
        if is_cut:
            found.append([text])
        else:
            found[-1].append(text)
    return found


def test_a_large_budget_wants_large_batches() -> None:
    texts = [Text(f"{length}", [1] * length) for length in range(50, 60)]
    assert len(list(batches(texts, 100_000))) == 1
    assert len(list(batches(texts, 600))) > 1
