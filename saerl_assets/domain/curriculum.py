"""A curriculum that goes on from what a training measures: which prompts the next epoch may take.

Belongs here: the decision from a training's feedback, and which prompts it unlocks. Does not belong here: the order
among them (arms, planners), and reading logs (training_feedback).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from saerl_assets.domain.spec import BatchSpec, FeedbackSpec

    Doubles: TypeAlias = NDArray[np.float64]

Decision = Literal["started", "unlocked", "repeated", "moved"]

STEP_SCHEMA: dict[str, pl.DataType] = {
    "manifest_id": pl.String(),
    "parent_manifest_id": pl.String(),
    "epoch": pl.UInt32(),
    "rule": pl.String(),
    "decision": pl.String(),
    "n_stages_unlocked": pl.UInt32(),
    "target": pl.Float64(),
    "measure": pl.String(),
    "measured": pl.Float64(),
    "n_steps_measured": pl.UInt32(),
    "explanation": pl.String(),
}


@dataclass(frozen=True)
class Epoch:
    """One epoch of such a curriculum."""

    number: int
    decision: Decision
    explanation: str
    """Why it is this one, in words."""
    parent_manifest_id: str | None = None
    """The manifest whose training was measured."""
    n_stages: int | None = None
    """Rule `stages`: so many of the parts are unlocked."""
    target: float | None = None
    """Rule `target`: rank among the prompts, 0 to 1."""
    measured: float | None = None
    n_steps_measured: int = 0


def first_epoch(spec: BatchSpec, feedback: FeedbackSpec) -> Epoch:
    """What a training starts with."""
    if feedback.rule == "stages":
        words = f"It starts with the easiest of {spec.n_stages} parts."
        return Epoch(spec.first_epoch, "started", words, n_stages=1)
    words = f"It starts with the prompts nearest to rank {feedback.first_target:g}."
    return Epoch(spec.first_epoch, "started", words, target=feedback.first_target)


def next_epoch(
    now: Epoch, manifest_id: str, measured: pl.DataFrame, n_steps: int, spec: BatchSpec, feedback: FeedbackSpec
) -> Epoch | None:
    """The epoch after the one that a training is in, once its log says enough.

    `stages`: the next part is unlocked as soon as the measure, averaged over the last `window_steps` steps, passes the
    threshold. If the training ends its epoch without passing, the next epoch has the same parts, in another order.

    `target`: once the epoch has ended, the target moves as AdaRFT's does (Shi et al., arXiv 2504.05520, algorithm 1):
    T' = clip(T + eta tanh(alpha (R - beta)), 0, 1), where R is the mean reward over the epoch's steps. AdaRFT moves it
    after each batch and picks the next one; a manifest is planned ahead, so here an epoch takes the place of the batch.
    Difficulty is a rank, so that the range is 0 to 1 and AdaRFT's eta of 50 on a scale of 100 is 0.5.

    Args:
        now: The epoch that the manifest is of.
        manifest_id: The manifest.
        measured: Feedback of its training: `step` (from 0), `prompt_id`, and the measure's column, with nulls.
        n_steps: Steps of the manifest's exported arm.
        spec: How batches are made.
        feedback: The rule.

    Returns:
        The next epoch, or None while the log does not say enough.
    """
    steps = (
        measured.select("step", pl.col(feedback.measure).alias("value"))
        .drop_nulls()
        .group_by("step")
        .agg(pl.col("value").mean())
        .sort("step")
    )
    if steps.is_empty():
        return None
    is_over = int(steps["step"].max()) >= n_steps - 1  # type: ignore[arg-type]
    after = replace(now, number=now.number + 1, parent_manifest_id=manifest_id)
    if feedback.rule == "target":
        return _moved(after, steps["value"].to_numpy(), feedback) if is_over else None
    return _unlocked(after, steps["value"].to_numpy(), n_steps, spec, feedback, is_over=is_over)


def batches_of(spec: BatchSpec, epoch: Epoch) -> BatchSpec:
    """How one epoch is planned: what is unlocked between epochs is not unlocked by steps as well."""
    curriculum = "none" if spec.curriculum == "staged" else spec.curriculum
    return spec.model_copy(update={"first_epoch": epoch.number, "epochs": 1, "curriculum": curriculum})


def step_row(epoch: Epoch, manifest_id: str, feedback: FeedbackSpec) -> pl.DataFrame:
    """The epoch as a row of the table curriculum_steps."""
    row = {
        "manifest_id": manifest_id,
        "parent_manifest_id": epoch.parent_manifest_id,
        "epoch": epoch.number,
        "rule": feedback.rule,
        "decision": epoch.decision,
        "n_stages_unlocked": epoch.n_stages,
        "target": epoch.target,
        "measure": feedback.measure,
        "measured": epoch.measured,
        "n_steps_measured": epoch.n_steps_measured,
        "explanation": epoch.explanation,
    }
    return pl.DataFrame([row], schema=STEP_SCHEMA)


def epoch_of(row: Mapping[str, Any]) -> Epoch:
    """The epoch that a row of curriculum_steps tells of."""
    return Epoch(
        number=row["epoch"],
        decision=row["decision"],
        explanation=row["explanation"],
        parent_manifest_id=row["parent_manifest_id"],
        n_stages=row["n_stages_unlocked"],
        target=row["target"],
        measured=row["measured"],
        n_steps_measured=row["n_steps_measured"],
    )


def moved_target(target: float, reward: float, feedback: FeedbackSpec) -> float:
    """AdaRFT's rule on a scale of 0 to 1: an easy epoch raises the target, a hard one lowers it."""
    step = feedback.step_size * math.tanh(feedback.sensitivity * (reward - feedback.wanted_reward))
    return min(1.0, max(0.0, target + step))


def lock_prompts(candidates: pl.DataFrame, epoch: Epoch, spec: BatchSpec, feedback: FeedbackSpec) -> pl.DataFrame:
    """The candidates with the column `not_unlocked`: why an epoch does not take a prompt yet, null where it does.

    Prompts are ranked by (difficulty, prompt_id) among those that nothing else keeps out; the others lie among them by
    their difficulty, so that what stands in for a filtered prompt is as hard as it.

    Args:
        candidates: As for `batches.plan_manifest`.
        epoch: The epoch.
        spec: How batches are made.
        feedback: The rule.
    """
    left_out = [name for name in ("contaminated", "near_duplicate") if name in candidates.columns]
    takes_part = pl.all_horizontal("kept", *(pl.col(name).is_null() for name in left_out))
    if spec.max_prompt_tokens is not None:
        takes_part &= pl.col("n_tokens") <= spec.max_prompt_tokens
    ordered = candidates.with_columns(takes_part.alias("_takes_part")).sort("difficulty", "prompt_id")
    is_member = ordered["_takes_part"].to_numpy()
    n = int(is_member.sum())
    place = np.cumsum(is_member) - is_member  # members that come before
    if epoch.n_stages is not None:
        part = np.minimum(place * spec.n_stages // max(n, 1), spec.n_stages - 1)
        is_open = part < epoch.n_stages
        reason = f"Part {{}} of {spec.n_stages} by difficulty; epoch {epoch.number} has unlocked {epoch.n_stages}."
        reasons = [reason.format(each + 1) for each in range(spec.n_stages)]
        said = [None if shown else reasons[number] for shown, number in zip(is_open, part, strict=True)]
    else:
        rank = place / max(n - 1, 1)
        distance = np.abs(rank - float(epoch.target or 0.0))
        wanted = min(n, max(spec.batch_size, round(feedback.target_fraction * n)))
        furthest = np.sort(distance[is_member])[wanted - 1] if n else 0.0
        is_open = _nearest(distance, is_member, wanted)
        beyond = f"is further than {furthest:.3f} from the target {epoch.target:.3f} of epoch {epoch.number}."
        far = f"Its rank {{:.3f}} {beyond}"
        said = [None if shown else far.format(each) for shown, each in zip(is_open, rank, strict=True)]
    return ordered.drop("_takes_part").with_columns(pl.Series("not_unlocked", said, dtype=pl.String))


def _nearest(distance: Doubles, is_member: NDArray[np.bool_], wanted: int) -> NDArray[np.bool_]:
    """Exactly `wanted` members, the nearest; of others those that are as near as the furthest of them."""
    members = np.flatnonzero(is_member)
    chosen = members[np.argsort(distance[members], kind="stable")[:wanted]]
    is_open = np.zeros(len(distance), dtype=np.bool_)
    is_open[chosen] = True
    if len(chosen):
        is_open |= ~is_member & (distance <= distance[chosen].max())
    return is_open


def _unlocked(
    after: Epoch, values: Doubles, n_steps: int, spec: BatchSpec, feedback: FeedbackSpec, *, is_over: bool
) -> Epoch | None:
    window = min(feedback.window_steps, n_steps)
    if len(values) < window and not is_over:
        return None
    mean = float(values[-window:].mean())
    n_measured = min(len(values), window)
    is_loss = feedback.measure == "loss"
    passes = mean <= feedback.threshold if is_loss else mean >= feedback.threshold
    if not passes and not is_over:
        return None
    bound = f"{'at most' if is_loss else 'at least'} {feedback.threshold:g}"
    found = f"The {feedback.measure} of the last {n_measured} steps was {mean:.4g}"
    n_before = after.n_stages or 1
    n_stages = min(n_before + 1, spec.n_stages) if passes else n_before
    if not passes:
        words = f"{found}, not {bound}: the same {n_stages} of {spec.n_stages} parts again."
    elif n_stages == n_before:
        words = f"{found}, {bound} as wanted; all {spec.n_stages} parts are unlocked already."
    else:
        words = f"{found}, {bound} as wanted: part {n_stages} of {spec.n_stages} is unlocked."
    decision: Decision = "unlocked" if n_stages > n_before else "repeated"
    return replace(
        after, decision=decision, explanation=words, n_stages=n_stages, measured=mean, n_steps_measured=n_measured
    )


def _moved(after: Epoch, values: Doubles, feedback: FeedbackSpec) -> Epoch:
    reward = float(values.mean())
    before = float(after.target or 0.0)
    target = moved_target(before, reward, feedback)
    words = (
        f"The {feedback.measure} of {len(values)} steps was {reward:.4g}, wanted {feedback.wanted_reward:g}: the "
        f"target moves from rank {before:.3f} to {target:.3f}."
    )
    return replace(
        after, decision="moved", explanation=words, target=target, measured=reward, n_steps_measured=len(values)
    )
