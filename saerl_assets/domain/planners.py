"""The two planners: how prompts that are in the order of a curriculum become batches, in numpy.

Belongs here: `clustered` (the paper) and `balanced` (the article). Does not belong here: curricula and
control arms (arms).

Both take a sequence of prompts and return batches end to end. Prompts are taken without replacement and by
position, so that no planner can lose a prompt, double one or overfill a batch.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from saerl_assets.domain.spec import BatchSpec

    IntArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """What a planner plans: the prompts 0 to n - 1 of one arm in one epoch."""

    cluster: IntArray
    """[n] the prompts' clusters, 0 to K - 1."""
    turn: NDArray[np.uint64]
    """[K] distinct numbers: among clusters that are equally far, the one with the smallest comes first."""
    spec: BatchSpec


def draw_clustered(task: Task, sequence: IntArray, n_steps: int | None) -> IntArray:
    """Batches of one cluster each, drawn from the clusters in turn, their neighbours mixed.

    1. The prompts of each cluster, in the order of `sequence`, are cut into batches of B.
    2. Batches follow one another by how far into its cluster each reaches: the relative rank, within its
       cluster, of its middle prompt; ties go by the clusters' turn. So all clusters advance together, and
       where they are sorted, difficulty rises overall.
    3. What is left of the clusters, fewer than B prompts of each, is joined in order of relative rank and cut
       into mixed batches, at most as many as there are clusters. They are placed among the others by the
       relative rank of their last prompt, so that nothing is taken before what precedes it in its cluster.
       Only at the very end can there be a shorter batch.
    4. Neighbouring batches exchange prompts, see `exchange`.

    After Jing et al., arXiv 2605.27354: cluster first, easy to hard within a cluster, moderate mixing of
    neighbours. The rule of 2 and the size of the exchange are this project's choice.

    Args:
        task: The prompts.
        sequence: int64 [u], those that may be used, in the order in which each cluster is to be taken.
        n_steps: Make at most so many batches, each whole and of one cluster before the exchange, and leave
            the other prompts; None uses all of them.

    Returns:
        int64 [at most u], batches end to end.
    """
    size, turn = task.spec.batch_size, task.turn
    grouped, _, counts = group(task.cluster, sequence)
    count = np.repeat(counts, counts)
    index = np.arange(len(grouped)) - np.repeat(np.cumsum(counts) - counts, counts)
    progress = (2 * index + 1) / (2 * count)
    is_whole = index < count // size * size
    batches = grouped[is_whole].reshape(-1, size)
    place = progress[is_whole].reshape(-1, size)[:, size // 2]
    tail = grouped[:0]
    if n_steps is None:
        rest = np.lexsort((turn[task.cluster[grouped[~is_whole]]], progress[~is_whole]))
        rest, rest_progress = grouped[~is_whole][rest], progress[~is_whole][rest]
        n_mixed = len(rest) // size * size
        batches = np.concatenate([batches, rest[:n_mixed].reshape(-1, size)])
        place = np.concatenate([place, rest_progress[:n_mixed].reshape(-1, size)[:, -1]])
        tail = rest[n_mixed:]
    order = np.lexsort((turn[task.cluster[batches[:, -1]]], place))[:n_steps]
    return np.concatenate([exchange(batches[order], task.spec.mix_fraction).ravel(), tail])


def exchange(batches: IntArray, fraction: float) -> IntArray:
    """Exchanges a fraction of every batch with the tails of its neighbours.

    The tail of a batch is its last `fraction` of slots, rounded to an even number. Half of it is swapped for
    prompts of the batches that follow, half for prompts of those before: each prompt changes place with
    exactly one other, so none is lost or doubled. Up to a fraction of 2/3 the partners are the two adjacent
    batches. Above, a neighbour would supply more than the batch keeps, so as many batches on each side take
    part as prevent that: r with `fraction <= 2 r / (2 r + 1)`. At 1, the full mix, no two prompts of a batch
    come from the same one. At the ends of the order, slots without a partner stay as they are.

    Args:
        batches: int64 [T, B].
        fraction: 0 to 1.

    Returns:
        int64 [T, B].
    """
    n_batches, size = batches.shape
    # Half up, not half to even: a larger fraction never exchanges less.
    n_pairs = min(math.floor(fraction * size / 2 + 0.5), size // 2)
    if n_pairs == 0:
        return batches
    reach = n_pairs if fraction == 1.0 else math.ceil(round(fraction / (2 * (1 - fraction)), 6))
    pair = np.arange(n_pairs)
    distance = np.repeat(1 + pair % min(reach, n_pairs), 2)
    # Tail slots come in pairs: what leaves the first one of a batch enters the second one of a later batch.
    slot = size - 2 * n_pairs + np.arange(2 * n_pairs)
    is_first = slot % 2 == (size - 2 * n_pairs) % 2
    partner = np.arange(n_batches)[:, None] + np.where(is_first, distance, -distance)
    partner_slot = np.where(is_first, slot + 1, slot - 1)
    has_partner = (partner >= 0) & (partner < n_batches)
    mixed = batches.copy()
    mixed[:, slot] = np.where(has_partner, batches[np.clip(partner, 0, n_batches - 1), partner_slot], batches[:, slot])
    return mixed


def draw_balanced(task: Task, sequence: IntArray, n_steps: int | None) -> IntArray:
    """Batches that each draw from a few clusters in proportion to what is left of them.

    A batch takes the `clusters_per_batch` clusters of which the largest share is left, ties by the clusters'
    turn, so that all of them run out together. They share its B slots in proportion to the prompts that are
    left of them, see `apportion`, and give their next prompts in the order of `sequence`. Where so few are
    left that these clusters cannot fill the batch, the next ones join. Only the very last batch can be
    shorter.

    After https://arxiv.org/abs/2605.27354 as retold by the article ('3-5 clusters per batch'), whose
    pseudo-code draws with replacement and can exceed the batch.

    Args:
        task: The prompts.
        sequence: int64 [u], those that may be used, in the order in which each cluster is to be taken.
        n_steps: Make at most so many whole batches, and leave the other prompts; None uses all of them.

    Returns:
        int64 [at most u], batches end to end.
    """
    size = task.spec.batch_size
    grouped, clusters, counts = group(task.cluster, sequence)
    steps = math.ceil(len(grouped) / size) if n_steps is None else min(n_steps, len(grouped) // size)
    sizes, left = counts.tolist(), counts.tolist()
    turn = task.turn[clusters].tolist()
    # The share that is gone, so that the heap's smallest is the cluster with the largest share left.
    heap = [(0.0, turn[cluster], cluster) for cluster in range(len(sizes))]
    heapq.heapify(heap)
    wanted = min(task.spec.clusters_per_batch, size)
    takers: list[int] = []
    amounts: list[int] = []
    for _ in range(steps):
        chosen: list[int] = []
        total = 0
        while heap and (len(chosen) < wanted or total < size):
            cluster = heapq.heappop(heap)[2]
            chosen.append(cluster)
            total += left[cluster]
        shares = apportion(size, [left[cluster] for cluster in chosen])
        for cluster, share in zip(chosen, shares, strict=True):
            left[cluster] -= share
            if left[cluster]:
                heapq.heappush(heap, (1 - left[cluster] / sizes[cluster], turn[cluster], cluster))
        takers += chosen
        amounts += shares
    return grouped[_positions(counts, np.array(takers, dtype=np.int64), np.array(amounts, dtype=np.int64))]


def apportion(n_slots: int, left: list[int]) -> list[int]:
    """Shares out slots in proportion to what is left, by largest remainder, at least one to each.

    Args:
        n_slots: Slots, at least as many as entries of `left`; all of what is left is given if it is not more.
        left: Prompts left of each cluster, 1 or more.

    Returns:
        As many numbers, none above what is left; their sum is the smaller one of `n_slots` and the sum of
        `left`.
    """
    total = sum(left)
    if total <= n_slots:
        return list(left)
    shares = [n_slots * count // total for count in left]
    by_remainder = sorted(range(len(left)), key=lambda entry: -(n_slots * left[entry] % total))
    for entry in by_remainder[: n_slots - sum(shares)]:
        shares[entry] += 1
    for entry, share in enumerate(shares):
        if share == 0:
            shares[shares.index(max(shares))] -= 1
            shares[entry] = 1
    return shares


def group(cluster: IntArray, sequence: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Groups a sequence by cluster, keeping its order inside each of them.

    Returns:
        int64 [u] the grouped prompts; int64 [g] the clusters that occur, ascending; int64 [g] their numbers
        of prompts.
    """
    label = cluster[sequence]
    counts = np.bincount(label)
    clusters = np.flatnonzero(counts)
    # A stable sort of 16-bit numbers is a radix sort, ten times as fast.
    narrow = label.astype(np.min_scalar_type(len(counts)), copy=False)
    return sequence[np.argsort(narrow, kind="stable")], clusters, counts[clusters]


def _positions(counts: IntArray, takers: IntArray, amounts: IntArray) -> IntArray:
    """Where draws lie in the grouped sequence: draw i takes the next `amounts[i]` of group `takers[i]`."""
    by_group = np.argsort(takers, kind="stable")
    gone = np.cumsum(amounts[by_group]) - amounts[by_group]
    # Within a group the draws follow one another, and groups lie end to end: if every group were used up,
    # `gone` would already be the position. What earlier groups kept back is added.
    drawn = np.bincount(takers, weights=amounts, minlength=len(counts)).astype(np.int64)
    kept_before = np.cumsum(counts - drawn) - (counts - drawn)
    start = np.empty_like(takers)
    start[by_group] = gone + kept_before[takers[by_group]]
    end = np.cumsum(amounts)
    return np.repeat(start - (end - amounts), amounts) + np.arange(amounts.sum())
