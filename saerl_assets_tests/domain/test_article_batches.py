"""The article's `build_diverse_batch` beside the planners: what its pseudo-code gets wrong and they do not."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saerl_assets.domain.arms import PLANNERS, Members, order_arm
from saerl_assets.domain.spec import BatchSpec

if TYPE_CHECKING:
    from collections.abc import Callable

Batches = list[list[int]]
SIZE = 16


def article_batch(clusters: list[int], size: int, rng: random.Random) -> list[int]:
    """One batch, line by line as the article has it; prompts are their places."""
    prompts = range(len(clusters))
    groups = [[prompt for prompt in prompts if clusters[prompt] == cluster] for cluster in sorted(set(clusters))]
    batch: list[int] = []
    for group in groups:
        n_samples = max(1, int(len(group) / len(groups) * size))
        batch.extend(rng.sample(group, n_samples))
    while len(batch) < size:
        batch.append(rng.choice(prompts))
    return batch


def article_epoch(clusters: list[int], size: int, seed: int = 0) -> Batches:
    """As many batches as an epoch has; the article's function remembers nothing between them."""
    rng = random.Random(seed)  # noqa: S311 - what the article calls
    return [article_batch(clusters, size, rng) for _ in range(-(-len(clusters) // size))]


def proportional_epoch(clusters: list[int], size: int, seed: int = 0) -> Batches:
    """The same with the mistake of its proportion put right: shares of all prompts, not of the number of clusters."""
    rng = random.Random(seed)  # noqa: S311 - what the article calls
    counts = Counter(clusters)

    def one() -> list[int]:
        batch: list[int] = []
        for cluster in sorted(counts):
            group = [prompt for prompt in range(len(clusters)) if clusters[prompt] == cluster]
            batch.extend(rng.sample(group, max(1, int(len(group) / len(clusters) * size))))
        while len(batch) < size:
            batch.append(rng.choice(range(len(clusters))))
        return batch

    return [one() for _ in range(-(-len(clusters) // size))]


def planned_epoch(planner: str) -> Callable[[list[int], int], Batches]:
    """An epoch of one of the planners."""

    def plan(clusters: list[int], size: int) -> Batches:
        n = len(clusters)
        members = Members(
            np.array(clusters, np.int64), np.arange(n, dtype=np.float64) % 7, np.arange(n, dtype=np.int64)
        )
        order = order_arm(planner, members, BatchSpec(batch_size=size), 0).tolist()
        return [order[start : start + size] for start in range(0, n, size)]

    return plan


def over_their_size(batches: Batches, size: int) -> int:
    return sum(len(batch) > size for batch in batches)


def with_a_prompt_twice(batches: Batches) -> int:
    return sum(len(set(batch)) < len(batch) for batch in batches)


def seen(batches: Batches) -> Counter[int]:
    return Counter(prompt for batch in batches for prompt in batch)


def test_the_articles_proportion_asks_a_cluster_for_more_than_it_has() -> None:
    """`len(cluster) / len(clusters)` divides by the number of clusters, so that 60 prompts in 3 make a share of 20."""
    with pytest.raises(ValueError, match="larger than population"):
        article_epoch([0] * 60 + [1] * 30 + [2] * 10, SIZE)


def test_the_articles_batches_are_over_their_size() -> None:
    clusters = list(range(20)) * 2
    batches = article_epoch(clusters, 4)
    assert {len(batch) for batch in batches} == {20}, "one prompt of each cluster at least, however small the batch"
    assert over_their_size(batches, 4) == len(batches)
    # The proportion put right does not help: every cluster still gets one.
    assert over_their_size(proportional_epoch(clusters, 4), 4) == 10
    for planner in PLANNERS:
        assert {len(batch) for batch in planned_epoch(planner)(clusters, 4)} == {4}


def test_the_articles_batches_hold_prompts_twice_and_draw_with_replacement() -> None:
    clusters = [0] * 31 + [1] * 31 + [2] * 31 + [3] * 3
    batches = proportional_epoch(clusters, 15)
    assert with_a_prompt_twice(batches), "`random.choice` may fill up with what `random.sample` took"
    counts = seen(batches)
    assert max(counts.values()) > 1, "between batches nothing is remembered"
    assert len(counts) < len(clusters), "so some are trained on several times and others never"
    for planner in PLANNERS:
        own = planned_epoch(planner)(clusters, 15)
        assert with_a_prompt_twice(own) == 0
        assert seen(own) == Counter(range(len(clusters)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=30, max_size=70), st.integers(2, 12), st.sampled_from(PLANNERS))
def test_where_the_article_fails_the_planners_keep_every_rule(clusters: list[int], size: int, planner: str) -> None:
    batches = planned_epoch(planner)(clusters, size)
    assert seen(batches) == Counter(range(len(clusters)))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    assert 1 <= len(batches[-1]) <= size
    assume(len(clusters) >= 2 * size)
    other = proportional_epoch(clusters, size)
    assert seen(other) != Counter(range(len(clusters))), "drawn with replacement, an epoch is never all prompts once"
