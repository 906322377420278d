"""The order of one arm in one epoch: curricula and control arms around the planners, in numpy.

Belongs here: from clusters and difficulties to an order of prompts. Does not belong here: how batches are
drawn (planners); who takes part, padding and tables (batches).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from saerl_assets.domain.planners import Task, draw_balanced, draw_clustered
from saerl_assets.domain.seeds import derive_seed, random_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from saerl_assets.domain.spec import BatchSpec

    IntArray: TypeAlias = NDArray[np.int64]
    Draw: TypeAlias = Callable[[Task, IntArray, int | None], IntArray]

PLANNERS = ("balanced", "clustered")

PLANNED_ON = {"dense_state": ("dense_cluster_id", "dense_difficulty"), "true_difficulty": ("true_difficulty",)}
"""By control arm the columns of `control_signals` that it is planned on; all others need none of them."""


@dataclass(frozen=True)
class Members:
    """The n prompts of one arm in one epoch, as parallel arrays."""

    cluster: IntArray
    """[n] 0 to K - 1; a cluster may have no members here."""
    difficulty: NDArray[np.float64]
    """[n] larger means harder."""
    n_tokens: IntArray
    """[n] length of the prompt."""
    dense_cluster: IntArray | None = None
    """[n] 0 to K' - 1, of the dense states; None where no arm is planned on it, as the next two."""
    dense_difficulty: NDArray[np.float64] | None = None
    """[n] from the dense states."""
    true_difficulty: NDArray[np.float64] | None = None
    """[n] the label itself where it is known."""

    def take(self, rows: IntArray) -> Members:
        """Those of some row numbers, in their order."""
        dense, difficulty, true = self.dense_cluster, self.dense_difficulty, self.true_difficulty
        return Members(
            self.cluster[rows],
            self.difficulty[rows],
            self.n_tokens[rows],
            dense_cluster=None if dense is None else dense[rows],
            dense_difficulty=None if difficulty is None else difficulty[rows],
            true_difficulty=None if true is None else true[rows],
        )

    def of_arm(self, arm: str) -> Members:
        """The same with the clusters and the difficulty that a control arm is planned on in place of the version's.

        Raises:
            ValueError: The members have none for it; a defect of the caller.
        """
        if arm == "length_difficulty":
            return replace(self, difficulty=self.n_tokens.astype(np.float64))
        if arm not in PLANNED_ON:
            return self
        if arm == "true_difficulty" and self.true_difficulty is not None:
            return replace(self, difficulty=self.true_difficulty)
        if arm == "dense_state" and self.dense_cluster is not None and self.dense_difficulty is not None:
            return replace(self, cluster=self.dense_cluster, difficulty=self.dense_difficulty)
        message = f"the arm {arm} is planned on {' and '.join(PLANNED_ON[arm])}, which these members do not have"
        raise ValueError(message)


def order_arm(arm: str, members: Members, spec: BatchSpec, seed: int) -> IntArray:
    """The order of one arm.

    `clustered` and `balanced` are the planners, see `draw_clustered` and `draw_balanced`. The control arms:

    - `shuffle`: a random order. `easy_to_hard`: all prompts by (difficulty, hash). Neither knows clusters or
      curricula.
    - `random_clusters`: `spec.planner`, on clusters of the same sizes with random members.
    - `length_difficulty`: `spec.planner`, with the number of tokens as the difficulty.
    - `random_drop`: `spec.planner`; that its members were dropped at random is the caller's part.
    - `dense_state`: `spec.planner`, on the clusters and the difficulty of the dense states.
    - `true_difficulty`: `spec.planner`, with the label itself as the difficulty where it is known.

    Args:
        arm: Name of a planner or of a control.
        members: n prompts, numbered 0 to n - 1 by their place, with what the arm is planned on.
        spec: How to plan.
        seed: 64-bit seed of this arm in this epoch. A random number of every prompt, its hash, breaks all
            ties.

    Returns:
        int64 [n], a permutation of the prompts. Batch t is `order[t * B : (t + 1) * B]`; only the last can be
        shorter.

    Raises:
        ValueError: The members lack what the arm is planned on; a defect of the caller.
    """
    by_hash = np.argsort(random_words(len(members.cluster), seed))
    if arm == "shuffle":
        return by_hash
    if arm == "easy_to_hard":
        return _easy_to_hard(by_hash, members.difficulty)
    if arm == "random_clusters":
        shuffled = np.argsort(random_words(len(by_hash), derive_seed(seed, "random clusters")))
        members = replace(members, cluster=members.cluster[shuffled])
    members = members.of_arm(arm)
    draw = draw_clustered if (arm if arm in PLANNERS else spec.planner) == "clustered" else draw_balanced
    n_clusters = int(members.cluster.max()) + 1
    task = Task(members.cluster, random_words(n_clusters, derive_seed(seed, "turn")), spec)
    return _follow_curriculum(task, members.difficulty, by_hash, draw)


def _easy_to_hard(by_hash: IntArray, difficulty: NDArray[np.float64]) -> IntArray:
    """All prompts by (difficulty, hash)."""
    return by_hash[np.argsort(difficulty[by_hash], kind="stable")]


def _follow_curriculum(task: Task, difficulty: NDArray[np.float64], by_hash: IntArray, draw: Draw) -> IntArray:
    """Plans under the spec's curriculum.

    - `sorted`: a cluster's prompts are taken by (difficulty, hash).
    - `none`: by hash.
    - `staged`: see `_follow_stages`.
    """
    if task.spec.curriculum == "none":
        return draw(task, by_hash, None)
    by_difficulty = _easy_to_hard(by_hash, difficulty)
    if task.spec.curriculum == "sorted":
        return draw(task, by_difficulty, None)
    stage = np.empty(len(by_hash), dtype=np.int64)
    stage[by_difficulty] = np.arange(len(by_hash)) * task.spec.n_stages // len(by_hash)
    return _follow_stages(task, stage, by_hash, draw)


def _follow_stages(task: Task, stage: IntArray, sequence: IntArray, draw: Draw) -> IntArray:
    """Plans from one unlocking to the next.

    The prompts by (difficulty, hash) are cut into `n_stages` stages of equal size, the first one unlocked
    from the start, stage s from step `unlock_step(s)` on. From what is unlocked, a cluster's prompts are
    taken by hash, easy or hard. Where the planner can make no further batch of what is unlocked, the next
    stage is unlocked early. So every prompt gets its turn, also where the pacing alone would end before the
    last stage, and no arm defers a prompt as `not_unlocked`. `clustered` fills its batches with one cluster
    as far as it can: prompts that do not fill one wait for the later stages of their cluster. Neighbours are
    mixed between two unlockings, never across one.
    """
    spec, n = task.spec, len(stage)
    n_steps, done = math.ceil(n / spec.batch_size), 0
    waiting = np.ones(n, dtype=bool)
    parts = []
    for last in range(spec.n_stages):
        unlocked = sequence[waiting[sequence] & (stage[sequence] <= last)]
        if last == spec.n_stages - 1:
            parts.append(draw(task, unlocked, None))
            break
        end = min(unlock_step(last + 1, spec.stage_fraction, n_steps), n_steps)
        part = draw(task, unlocked, end - done)
        waiting[part] = False
        done += len(part) // spec.batch_size
        parts.append(part)
    return np.concatenate(parts)


def unlock_step(stage: int, stage_fraction: float, n_steps: int) -> int:
    """The step, counted from 0, at which the pacing unlocks a stage; it can lie behind the last one."""
    # Rounding first keeps 3 * 0.1 * 10 from becoming 4.
    return math.ceil(round(stage * stage_fraction * n_steps, 6))
