"""Outcomes: what a policy's own answers say of some of the prompts.

Belongs here: which prompts are answered, what names a rollout, pass rates, the observations that labels are folded
from. Does not belong here: making completions (models.rollouts), scoring one (verifiers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.domain.folds import hash_fractions
from saerl_assets.domain.frames import FrameBuilder
from saerl_assets.domain.labels import OBSERVATION_SCHEMA, observation_id
from saerl_assets.domain.spec import OutcomesSpec, digest

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]
    Integers = NDArray[np.int64]

PURPOSE = "rollouts"
SPLITS = ("train", "evaluation")

CHOSEN_SCHEMA: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "cluster_id": pl.UInt32(),
    "split": pl.String(),
}
ROLLOUT_SCHEMA: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "sample": pl.UInt32(),
    "rollout_id": pl.String(),
    "completion": pl.String(),
    "score": pl.Float64(),
    "n_tokens": pl.UInt32(),
    "is_truncated": pl.Boolean(),
    "sampling_id": pl.String(),
    "policy_digest": pl.String(),
    "verifier": pl.String(),
    "engine": pl.String(),
    "made_at": pl.Datetime("us"),
}
OUTCOME_SCHEMA: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "cluster_id": pl.UInt32(),
    "split": pl.String(),
    "pass_rate": pl.Float64(),
    "n_rollouts": pl.UInt32(),
    "n_truncated": pl.UInt32(),
    "mean_tokens": pl.Float64(),
    "policy_digest": pl.String(),
    "verifier": pl.String(),
}


def choose_prompts(
    prompts: pl.DataFrame, assignments: pl.DataFrame, *, n_prompts: int, seed: int, needs_answer: bool
) -> pl.DataFrame:
    """The prompts that the policy answers: of each split its share, of each cluster in it its share.

    Every cluster gives at least one where there are as many prompts as clusters. Which ones is decided by the hash of
    the prompt, so that a later version with the same prompts and clusters takes the same ones, and a larger sample
    holds the smaller one where the clusters' shares allow it. Of several responses to one question one is taken: the
    policy is asked the same.

    Args:
        prompts: Table `prompts`: prompt_id, messages, split, answer.
        assignments: Table `cluster_assignments`: prompt_id, cluster_id.
        n_prompts: How many; all where there are fewer.
        seed: Seed of the version.
        needs_answer: Whether prompts without a reference answer are left out.

    Returns:
        Columns of `CHOSEN_SCHEMA`, sorted by prompt_id.
    """
    usable = prompts.filter(pl.col("answer").is_not_null()) if needs_answer else prompts
    hashed = usable.select("prompt_id", "messages", "split").with_columns(
        hash=pl.Series(hash_fractions(usable["prompt_id"].to_list(), seed=seed, purpose=PURPOSE), dtype=pl.Float64)
    )
    asked = (
        hashed.join(assignments.select("prompt_id", pl.col("cluster_id").cast(pl.UInt32)), on="prompt_id", how="inner")
        .sort("hash", "prompt_id")
        .unique("messages", keep="first", maintain_order=True)
    )
    sides = [asked.filter(pl.col("split") == split) for split in SPLITS]
    shares = quotas(np.array([side.height for side in sides]), n_prompts)
    taken = [_of_clusters(side, int(share)) for side, share in zip(sides, shares, strict=True)]
    return pl.concat(taken).select(*CHOSEN_SCHEMA).sort("prompt_id")


def quotas(sizes: Integers, n: int) -> Integers:
    """How many each group gives of `n` in all: in proportion to its size, at least one where that fits.

    One after the other goes to the group that lacks most of its share.

    Args:
        sizes: int64 [n_groups], members of each.
        n: Wanted in all.

    Returns:
        int64 [n_groups], no more than the sizes, `n` in all or everything.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    n = min(n, int(sizes.sum()))
    filled = np.flatnonzero(sizes)
    given = np.zeros(len(sizes), dtype=np.int64)
    if n == 0:
        return given
    if n >= len(filled):
        given[filled] = 1
    share = n * sizes / sizes.sum()
    given = np.maximum(given, np.minimum(np.floor(share).astype(np.int64), sizes))
    while given.sum() > n:  # the ones that were given to small groups come from those that are most above their share
        given[int(np.argmax(np.where(given > 1, given - share, -np.inf)))] -= 1
    while given.sum() < n:
        given[int(np.argmax(np.where(given < sizes, share - given, -np.inf)))] += 1
    return np.asarray(given, dtype=np.int64)


def sampling_id(policy_digest: str, outcomes: OutcomesSpec, seed: int) -> str:
    """What decides a completion beside the prompt and the sample's number: policy, sampling and template.

    Versions that agree in it share their rollouts.
    """
    chosen = outcomes.model_dump(include={"temperature", "top_p", "max_new_tokens", "template", "dtype"})
    return digest({"policy": policy_digest, "seed": seed, **chosen})[:32]


def rollout_id(sampling: str, prompt_id: str, sample: int) -> str:
    """Identity of a rollout, 32 hex digits; the seed of its sampling is in it too."""
    return observation_id("rollout", sampling, prompt_id, sample)


def wanted_rollouts(chosen: pl.DataFrame, n_rollouts: int, sampling: str) -> pl.DataFrame:
    """One row per rollout that a version is to have: prompt_id, sample, rollout_id; prompt by prompt."""
    pairs = [(prompt, sample) for prompt in chosen["prompt_id"] for sample in range(n_rollouts)]
    return pl.DataFrame(
        [(prompt, sample, rollout_id(sampling, prompt, sample)) for prompt, sample in pairs],
        schema={name: ROLLOUT_SCHEMA[name] for name in ("prompt_id", "sample", "rollout_id")},
        orient="row",
    )


def fold_rollouts(rollouts: pl.DataFrame, chosen: pl.DataFrame) -> pl.DataFrame:
    """One row per prompt that was answered (table `outcomes`): its pass rate, of how many, how many were cut off."""
    return (
        rollouts.sort("prompt_id", "sample")
        .group_by("prompt_id", maintain_order=True)
        .agg(
            pass_rate=pl.col("score").mean(),
            n_rollouts=pl.len().cast(pl.UInt32),
            n_truncated=pl.col("is_truncated").sum().cast(pl.UInt32),
            mean_tokens=pl.col("n_tokens").mean(),
            policy_digest=pl.col("policy_digest").first(),
            verifier=pl.col("verifier").first(),
        )
        .join(chosen, on="prompt_id", how="inner")
        .select(pl.col(name).cast(dtype) for name, dtype in OUTCOME_SCHEMA.items())
        .sort("prompt_id")
    )


def observations_of(rollouts: pl.DataFrame, outcomes: OutcomesSpec) -> pl.DataFrame:
    """What rollouts say, for `label_observations`.

    Two observations of each, its score and one minus it; where the spec names an `agreement_label`, one of each prompt
    with two rollouts or more, see `agreement`.
    """
    builder = FrameBuilder(OBSERVATION_SCHEMA)
    for rollout, prompt, sample, score in rollouts.select("rollout_id", "prompt_id", "sample", "score").iter_rows():
        for label, value in ((outcomes.correct_label, score), (outcomes.difficulty_label, 1.0 - score)):
            origin = observation_id("rollouts", label, rollout)
            builder.add(label, origin, prompt, value, "rollouts", f"rollout {sample}")
    if outcomes.agreement_label is not None:
        label = outcomes.agreement_label
        for (prompt,), group in rollouts.sort("rollout_id").group_by("prompt_id", maintain_order=True):
            if group.height > 1:
                origin = observation_id("rollouts", label, *group["rollout_id"])
                value = agreement(group["score"].to_numpy())
                builder.add(label, origin, str(prompt), value, "rollouts", f"{group.height} rollouts")
    return builder.frame()


def agreement(scores: Doubles) -> float:
    """How alike two answers to one prompt are scored on average, 0 to 1.

    Args:
        scores: float64 [n], 0 to 1, two or more. Of scores of 0 and 1 with the true mean p it estimates
            1 - 2 p (1 - p) without bias: 1 where the group's rewards teach GRPO nothing, 0.5 where they teach it most.
    """
    ordered, n = np.sort(scores), len(scores)
    difference = 2.0 * float((2 * np.arange(n) - n + 1) @ ordered) / (n * (n - 1))
    return 1.0 - difference


def _of_clusters(side: pl.DataFrame, n: int) -> pl.DataFrame:
    """So many prompts of one split, the first ones by hash of every cluster; the frame is sorted by hash."""
    sizes = side.group_by("cluster_id").len().sort("cluster_id")
    shares = quotas(sizes["len"].to_numpy(), n)
    share = sizes.select("cluster_id", quota=pl.Series(shares, dtype=pl.Int64))
    numbered = side.with_columns(place=pl.int_range(pl.len()).over("cluster_id"))
    return numbered.join(share, on="cluster_id", how="left").filter(pl.col("place") < pl.col("quota"))
