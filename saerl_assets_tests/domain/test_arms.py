from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saerl_assets.domain.arms import Members, order_arm, unlock_step
from saerl_assets.domain.spec import BatchSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray


def members_of(clusters: list[int], difficulty: list[float] | None = None) -> Members:
    n = len(clusters)
    return Members(
        cluster=np.array(clusters, dtype=np.int64),
        difficulty=np.array(difficulty if difficulty is not None else np.arange(n) % 7, dtype=np.float64),
        n_tokens=np.arange(n, dtype=np.int64)[::-1].copy(),
    )


def stages_of(difficulty: NDArray[np.float64], n_stages: int) -> NDArray[np.int64]:
    """Stages of distinct difficulties, found in another way."""
    rank = (difficulty[:, None] > difficulty).sum(axis=1)
    return np.array(rank * n_stages // len(difficulty))


def test_shuffle_ignores_everything_but_the_seed() -> None:
    spec = BatchSpec(batch_size=4)
    one = order_arm("shuffle", members_of([0] * 50), spec, 1)
    assert (one == order_arm("shuffle", members_of(list(range(50)), [3.0] * 50), spec, 1)).all()
    assert (one != order_arm("shuffle", members_of([0] * 50), spec, 2)).any()


def test_easy_to_hard_is_global_and_breaks_ties_by_hash() -> None:
    members = members_of([0, 1] * 30)
    orders = [order_arm("easy_to_hard", members, BatchSpec(), seed) for seed in (1, 2)]
    for order in orders:
        assert (np.diff(members.difficulty[order]) >= 0).all()
    assert (orders[0] != orders[1]).any()
    by_hash = [order_arm("shuffle", members, BatchSpec(), seed).tolist() for seed in (1, 2)]
    for order, hashes in zip(orders, by_hash, strict=True):
        assert order.tolist() == sorted(hashes, key=lambda prompt: members.difficulty[prompt])


@pytest.mark.parametrize("planner", ["clustered", "balanced"])
def test_sorted_rises_inside_every_cluster_and_none_does_not(planner: str) -> None:
    members = members_of([0] * 40 + [1] * 24 + [2] * 8, list(np.random.default_rng(0).permutation(72)))
    rises = {}
    for curriculum in ("sorted", "none"):
        spec = BatchSpec.model_validate({"batch_size": 8, "mix_fraction": 0.0, "curriculum": curriculum})
        order = order_arm(planner, members, spec, 5)
        by_cluster = [members.difficulty[order[members.cluster[order] == cluster]] for cluster in range(3)]
        rises[curriculum] = all((np.diff(own) > 0).all() for own in by_cluster)
    assert rises == {"sorted": True, "none": False}


def test_difficulty_rises_overall() -> None:
    rng = np.random.default_rng(1)
    members = members_of(rng.integers(0, 8, 800).tolist(), rng.normal(size=800).tolist())
    for planner in ("clustered", "balanced"):
        order = order_arm(planner, members, BatchSpec(batch_size=16), 3)
        means = members.difficulty[order].reshape(-1, 16).mean(axis=1)
        assert np.corrcoef(means, np.arange(len(means)))[0, 1] > 0.9


def test_random_clusters_keep_their_sizes_but_not_their_members() -> None:
    members = members_of([0] * 32 + [1] * 16 + [2] * 16)
    spec = BatchSpec(batch_size=8, mix_fraction=0.0)
    order = order_arm("random_clusters", members, spec, 4)
    pure = [len(set(members.cluster[order[at : at + 8]].tolist())) == 1 for at in range(0, 64, 8)]
    assert not all(pure)
    assert sorted(order.tolist()) == list(range(64))


def test_length_as_difficulty_orders_by_length() -> None:
    members = members_of([0] * 64)
    order = order_arm("length_difficulty", members, BatchSpec(batch_size=8, mix_fraction=0.0), 4)
    assert (np.diff(members.n_tokens[order]) > 0).all()


def test_the_dense_state_and_the_true_difficulty_take_the_place_of_the_saes() -> None:
    rng = np.random.default_rng(6)
    members = members_of(rng.integers(0, 3, 96).tolist())
    dense, hard, true = rng.integers(0, 4, 96), rng.permutation(96).astype(float), rng.permutation(96).astype(float)
    known = replace(members, dense_cluster=dense, dense_difficulty=hard, true_difficulty=true)
    for planner in ("clustered", "balanced"):
        spec = BatchSpec.model_validate({"planner": planner, "batch_size": 8, "curriculum": "staged"})
        for arm, instead in (
            ("dense_state", replace(members, cluster=dense, difficulty=hard)),
            ("true_difficulty", replace(members, difficulty=true)),
        ):
            order = order_arm(arm, known, spec, 4)
            assert (order == order_arm(planner, instead, spec, 4)).all(), "the planner itself, on other signals"
            assert (order != order_arm(planner, members, spec, 4)).any()
            rows = np.arange(95, -1, -2)
            fewer = order_arm(planner, instead.take(rows), spec, 4)
            assert (order_arm(arm, known.take(rows), spec, 4) == fewer).all(), "each prompt keeps its own"


@pytest.mark.parametrize("arm", ["dense_state", "true_difficulty"])
def test_an_arm_is_not_planned_on_what_is_not_there(arm: str) -> None:
    with pytest.raises(ValueError, match=f"the arm {arm} is planned on"):
        order_arm(arm, members_of([0] * 8), BatchSpec(batch_size=4), 1)


def test_controls_are_planned_with_the_specs_planner() -> None:
    rng = np.random.default_rng(0)
    members = members_of(rng.integers(0, 9, 320).tolist())
    n_clusters = {}
    for planner in ("clustered", "balanced"):
        spec = BatchSpec.model_validate({"planner": planner, "batch_size": 16, "mix_fraction": 0.0})
        order = order_arm("length_difficulty", members, spec, 4)
        n_clusters[planner] = np.mean([len(set(members.cluster[batch])) for batch in order.reshape(-1, 16)])
    assert n_clusters["clustered"] < 3 < n_clusters["balanced"]


def test_stages_unlock_on_time() -> None:
    assert [unlock_step(stage, 0.1, 10) for stage in range(4)] == [0, 1, 2, 3]
    assert unlock_step(1, 0.25, 10) == 3
    assert unlock_step(3, 0.5, 10) == 15


@settings(deadline=None)
@given(
    clusters=st.lists(st.integers(0, 3), min_size=8, max_size=90),
    size=st.integers(1, 8),
    planner=st.sampled_from(["clustered", "balanced"]),
    n_stages=st.integers(2, 5),
    stage_fraction=st.floats(0.01, 1.0),
    mix_fraction=st.floats(0, 1),
    seed=st.integers(0, 5),
)
def test_no_stage_comes_before_its_time(
    clusters: list[int],
    size: int,
    planner: str,
    n_stages: int,
    stage_fraction: float,
    mix_fraction: float,
    seed: int,
) -> None:
    n = len(clusters)
    members = members_of(clusters, np.random.default_rng(seed).permutation(n).tolist())
    spec = BatchSpec.model_validate(
        {
            "planner": planner,
            "batch_size": size,
            "curriculum": "staged",
            "n_stages": n_stages,
            "stage_fraction": stage_fraction,
            "mix_fraction": mix_fraction,
        }
    )
    order = order_arm(planner, members, spec, seed)
    assert sorted(order.tolist()) == list(range(n))
    stage = stages_of(members.difficulty, n_stages)
    n_steps = -(-n // size)
    for later in range(1, n_stages):
        prompts = np.flatnonzero(stage[order] >= later)
        if not len(prompts):
            continue
        first = int(prompts[0]) // size
        if first >= unlock_step(later, stage_fraction, n_steps):
            continue
        # Early: then no batch could be made any more of what was unlocked before.
        waiting = order[first * size :]
        waiting = waiting[stage[waiting] < later]
        fits = Counter(members.cluster[waiting].tolist()) if planner == "clustered" else {0: len(waiting)}
        assert all(count < size for count in fits.values())


def test_staged_draws_easy_and_hard_alike_from_what_is_unlocked() -> None:
    members = members_of([0] * 400, list(range(400)))
    spec = BatchSpec(batch_size=10, curriculum="staged", n_stages=2, stage_fraction=0.1, mix_fraction=0.0)
    order = order_arm("clustered", members, spec, 3)
    assert (order[:40] < 200).all()
    later = np.mean(order[40:200] < 200)
    assert 0.3 < later < 0.6


def test_staged_keeps_unmixed_batches_to_one_cluster_but_for_at_most_k() -> None:
    rng = np.random.default_rng(2)
    members = members_of(rng.integers(0, 7, 500).tolist(), rng.normal(size=500).tolist())
    spec = BatchSpec(batch_size=8, curriculum="staged", mix_fraction=0.0)
    order = order_arm("clustered", members, spec, 3)
    mixed = [len(set(members.cluster[order[at : at + 8]].tolist())) > 1 for at in range(0, 500, 8)]
    assert sum(mixed) <= 7
