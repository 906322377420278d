from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saerl_assets.domain.planners import Task, apportion, draw_balanced, draw_clustered, exchange
from saerl_assets.domain.seeds import random_words
from saerl_assets.domain.spec import BatchSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    IntArray = NDArray[np.int64]

CLUSTERS = st.lists(st.integers(0, 5), min_size=1, max_size=80)


def task_of(clusters: list[int], **spec: object) -> Task:
    return Task(np.array(clusters, dtype=np.int64), random_words(max(clusters) + 1, 7), BatchSpec.model_validate(spec))


def cut(order: IntArray, size: int) -> list[list[int]]:
    return [order[start : start + size].tolist() for start in range(0, len(order), size)]


# --- the exchange


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.floats(0, 1))
def test_exchange_loses_and_doubles_nothing(n_batches: int, size: int, fraction: float) -> None:
    batches = np.arange(n_batches * size).reshape(n_batches, size)
    mixed = exchange(batches, fraction)
    assert sorted(mixed.ravel().tolist()) == list(range(n_batches * size))
    # Every prompt swaps places with one other: doing it twice is doing nothing.
    assert (exchange(mixed, fraction) == batches).all()


def test_without_mixing_batches_stay_as_they_are() -> None:
    batches = np.arange(40).reshape(5, 8)
    assert (exchange(batches, 0.0) == batches).all()


@pytest.mark.parametrize(("fraction", "n_moved"), [(0.25, 8), (0.5, 16), (2 / 3, 22)])
def test_moderate_mixing_moves_the_fraction_between_adjacent_batches(fraction: float, n_moved: int) -> None:
    origin = exchange(np.arange(7 * 32).reshape(7, 32), fraction) // 32
    for step in range(1, 6):
        came_from = Counter(origin[step].tolist())
        assert came_from == {step: 32 - n_moved, step - 1: n_moved // 2, step + 1: n_moved // 2}
    # The first and the last batch have a neighbour on one side only.
    assert Counter(origin[0].tolist()) == {0: 32 - n_moved // 2, 1: n_moved // 2}


def test_what_is_exchanged_is_the_tail() -> None:
    mixed = exchange(np.arange(5 * 8).reshape(5, 8), 0.5)
    assert (mixed[:, :4] == np.arange(5 * 8).reshape(5, 8)[:, :4]).all()
    assert (mixed[1:4, 4:] != np.arange(5 * 8).reshape(5, 8)[1:4, 4:]).all()


def test_the_full_mix_takes_every_prompt_from_another_batch() -> None:
    origin = exchange(np.arange(100 * 16).reshape(100, 16), 1.0) // 16
    for step in range(8, 92):
        assert len(set(origin[step].tolist())) == 16
        assert step not in origin[step]
        assert abs(origin[step] - step).max() == 8


def test_more_mixing_never_means_fewer_sources() -> None:
    fractions = [0.0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0]
    origins = [exchange(np.arange(99 * 32).reshape(99, 32), fraction) // 32 for fraction in fractions]
    sources = [len(set(origin[50].tolist())) for origin in origins]
    assert sources == sorted(sources)
    for origin, fraction in zip(origins, fractions, strict=True):
        assert (origin[50] != 50).sum() == 2 * round(fraction * 16 + 1e-9)


# --- clustered


@settings(max_examples=300, deadline=None)
@given(CLUSTERS, st.integers(1, 9))
def test_unmixed_clustered_batches_hold_one_cluster_but_for_at_most_k(clusters: list[int], size: int) -> None:
    task = task_of(clusters, batch_size=size, mix_fraction=0.0)
    order = draw_clustered(task, np.arange(len(clusters)), None)
    assert sorted(order.tolist()) == list(range(len(clusters)))
    mixed = [batch for batch in cut(order, size) if len({clusters[prompt] for prompt in batch}) > 1]
    assert len(mixed) <= len(set(clusters))
    # As many one-cluster batches as can be made at all.
    whole = sum(count // size for count in Counter(clusters).values())
    assert len(cut(order, size)) - len(mixed) >= whole


@settings(max_examples=300, deadline=None)
@given(CLUSTERS, st.integers(1, 9))
def test_clustered_keeps_the_sequence_inside_each_cluster(clusters: list[int], size: int) -> None:
    task = task_of(clusters, batch_size=size, mix_fraction=0.0)
    order = draw_clustered(task, np.arange(len(clusters)), None)
    for cluster in set(clusters):
        own = [prompt for batch in cut(order, size) for prompt in sorted(batch) if clusters[prompt] == cluster]
        assert own == sorted(own)


def test_clusters_take_turns_and_advance_together() -> None:
    clusters = [0] * 80 + [1] * 40 + [2] * 20
    task = task_of(clusters, batch_size=4, mix_fraction=0.0)
    batches = cut(draw_clustered(task, np.arange(140), None), 4)
    half = Counter(clusters[prompt] for batch in batches[: len(batches) // 2] for prompt in batch)
    assert half[0] == pytest.approx(40, abs=4)
    assert half[1] == pytest.approx(20, abs=4)
    assert half[2] == pytest.approx(10, abs=4)


def test_clusters_that_are_equally_far_take_their_turns() -> None:
    clusters = [0, 1, 2, 3, 4] * 8
    task = task_of(clusters, batch_size=4, mix_fraction=0.0)
    firsts = [clusters[batch[0]] for batch in cut(draw_clustered(task, np.arange(40), None), 4)]
    turns = np.argsort(task.turn).tolist()
    assert firsts == turns * 2
    assert turns != sorted(turns), "otherwise this shows nothing"


def test_leftovers_that_fill_no_batch_form_mixed_ones() -> None:
    task = task_of([0, 0, 0, 1, 1, 1, 2, 2], batch_size=4, mix_fraction=0.0)
    batches = cut(draw_clustered(task, np.arange(8), None), 4)
    assert [len(batch) for batch in batches] == [4, 4]
    # The easiest prompt of every cluster is in the first one, the hardest in the last.
    assert {0, 3, 6} <= set(batches[0])
    assert {2, 5, 7} <= set(batches[1])


def test_asked_for_some_steps_clustered_makes_whole_batches_of_one_cluster() -> None:
    clusters = [0] * 10 + [1] * 3
    task = task_of(clusters, batch_size=4, mix_fraction=0.0)
    assert draw_clustered(task, np.arange(13), 9).tolist() == list(range(8))
    assert draw_clustered(task, np.arange(13), 1).tolist() == list(range(4))
    assert draw_clustered(task, np.arange(13), 0).tolist() == []


# --- balanced


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(6, 40))
def test_slots_are_apportioned_by_largest_remainder(left: list[int], n_slots: int) -> None:
    shares = apportion(n_slots, left)
    assert sum(shares) == min(n_slots, sum(left))
    assert all(1 <= share <= count for share, count in zip(shares, left, strict=True))
    quotas = [min(n_slots, sum(left)) * count / sum(left) for count in left]
    if all(quota >= 1 for quota in quotas):
        assert all(abs(share - quota) < 1 for share, quota in zip(shares, quotas, strict=True))


def test_a_cluster_smaller_than_its_share_still_gets_a_slot() -> None:
    assert apportion(8, [1000, 1, 1]) == [6, 1, 1]
    assert apportion(8, [3, 2, 1]) == [3, 2, 1]


@settings(deadline=None)
@given(CLUSTERS, st.integers(1, 9), st.integers(1, 4))
def test_balanced_takes_every_prompt_once_in_sequence(clusters: list[int], size: int, wanted: int) -> None:
    task = task_of(clusters, planner="balanced", batch_size=size, clusters_per_batch=wanted)
    order = draw_balanced(task, np.arange(len(clusters)), None)
    assert sorted(order.tolist()) == list(range(len(clusters)))
    for cluster in set(clusters):
        own = [prompt for prompt in order.tolist() if clusters[prompt] == cluster]
        assert own == sorted(own)


@settings(deadline=None)
@given(CLUSTERS, st.integers(1, 9), st.integers(1, 4))
def test_balanced_follows_what_is_left(clusters: list[int], size: int, wanted: int) -> None:
    """Replays the batches: each takes the clusters with the largest share left, in proportion to what is left
    of them."""
    task = task_of(clusters, planner="balanced", batch_size=size, clusters_per_batch=wanted)
    sizes = Counter(clusters)
    left = Counter(clusters)
    for batch in cut(draw_balanced(task, np.arange(len(clusters)), None), size):
        drawn = Counter(clusters[prompt] for prompt in batch)
        assert len(drawn) >= min(wanted, size, len(left))
        if len(drawn) > min(wanted, size):
            fewer = sorted(left, key=lambda cluster: (1 - left[cluster] / sizes[cluster], task.turn[cluster]))[
                : len(drawn) - 1
            ]
            assert sum(left[cluster] for cluster in fewer) < size
        smallest_taken = min(left[cluster] / sizes[cluster] for cluster in drawn)
        assert all(left[cluster] / sizes[cluster] <= smallest_taken for cluster in left if cluster not in drawn)
        expected = apportion(size, [left[cluster] for cluster in sorted(drawn)])
        assert sum(expected) == len(batch)
        quotas = {cluster: len(batch) * left[cluster] / sum(left[other] for other in drawn) for cluster in drawn}
        if all(quota >= 1 for quota in quotas.values()):
            assert all(abs(drawn[cluster] - quotas[cluster]) < 1 for cluster in drawn)
        left = left - drawn


@settings(deadline=None)
@given(CLUSTERS, st.integers(1, 9), st.integers(1, 4), st.integers(0, 9))
def test_some_steps_of_balanced_are_the_first_ones_of_all(
    clusters: list[int], size: int, wanted: int, n_steps: int
) -> None:
    task = task_of(clusters, planner="balanced", batch_size=size, clusters_per_batch=wanted)
    everyone = np.arange(len(clusters))
    whole = draw_balanced(task, everyone, None)
    n_made = min(n_steps, len(clusters) // size)
    assert draw_balanced(task, everyone, n_steps).tolist() == whole[: n_made * size].tolist()


def test_clusters_run_out_together() -> None:
    clusters = [0] * 300 + [1] * 150 + [2] * 90 + [3] * 60 + [4] * 40 + [5] * 30
    task = task_of(clusters, planner="balanced", batch_size=16, clusters_per_batch=3)
    order = draw_balanced(task, np.arange(len(clusters)), None)
    last = {cluster: max(np.flatnonzero(np.array(clusters)[order] == cluster)) // 16 for cluster in range(6)}
    n_steps = len(order) / 16
    assert min(last.values()) > 0.85 * n_steps
    few = [len({clusters[prompt] for prompt in batch}) == 3 for batch in cut(order, 16)]
    assert np.mean(few) > 0.85


def test_asked_for_some_steps_balanced_leaves_the_rest() -> None:
    task = task_of([0] * 10 + [1] * 3, planner="balanced", batch_size=4, clusters_per_batch=2)
    assert len(draw_balanced(task, np.arange(13), 2)) == 8
    assert len(draw_balanced(task, np.arange(13), 9)) == 12
    assert len(draw_balanced(task, np.arange(13), 0)) == 0
