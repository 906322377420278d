"""From scores to batches: the manifest of a version, with every arm and everything that an arm leaves out.

Belongs here: who takes part in an arm, whole batches, the frames and the name of the manifest. Does not
belong here: the order itself (arms, planners) and how batches are measured (batch_metrics).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import polars as pl

from saerl_assets.domain.arms import PLANNED_ON, PLANNERS, Members, order_arm
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.manifests import DEFERRED_COLUMNS, MANIFEST_COLUMNS, group_entry, name_groups
from saerl_assets.domain.seeds import derive_seed, random_words

if TYPE_CHECKING:
    from collections.abc import Collection

    from numpy.typing import NDArray

    from saerl_assets.domain.spec import BatchSpec

    IntArray: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Plan:
    """One manifest."""

    manifest_id: str
    """Its name, see `manifests.manifest_digest`."""
    manifest: pl.DataFrame
    """Table `batch_manifest` with `manifest_id`, by (arm, epoch, step, slot)."""
    deferred: pl.DataFrame
    """Table `deferred_prompts` with `manifest_id`, by (arm, epoch, prompt_id)."""


def plan_manifest(candidates: pl.DataFrame, spec: BatchSpec, *, key: str, seed: int) -> Plan:
    """Plans every arm of every epoch.

    Arms are both planners and the controls of the spec; what each does is said in `arms.order_arm`. In every
    arm and epoch each candidate is in the order exactly once (padding apart) or deferred for one of these
    reasons, the first that fits:

    - `too_long`: it has more than `max_prompt_tokens` tokens.
    - `contaminated`: it repeats an evaluation row.
    - `near_duplicate`: it was folded into the representative of its group. What speaks against that one speaks
      against its copies: none takes its place where it is left out too.
    - `not_unlocked`: the curriculum that follows the training has not come to it, see `curriculum.lock_prompts`.
    - `out_of_range`: it ranks outside what `difficulty.min_rank` and `max_rank` keep.
    - `filtered`: the quality filter did not keep it. The arm `random_drop` takes these and those out of range
      nevertheless, and defers as many prompts, drawn at random and the same in every epoch, as `random_drop`.
    - `tail`: with `tail = "drop"` and n prompts left, the n modulo B with the smallest random numbers of this
      epoch are put aside before anything is ordered, so that no kind of prompt is always the one left out.

    So all arms but `random_drop` have the same members, all arms the same number of prompts and of batches,
    and all batches B slots. With `tail = "short"` the last batch of an epoch has n modulo B slots instead,
    those that the arm's order puts last; with `tail = "pad"` it is filled up with the prompts that the epoch
    saw first, marked `is_padding`, which doubles a prompt within the batch only where there are fewer than B
    prompts in all. A staged curriculum unlocks stages early rather than leave prompts out, so `not_unlocked`
    occurs only where the curriculum follows what a training measures.

    The result depends on the set of candidates, not on the order of their rows. Random numbers are hashes of
    (seed, epoch, arm) and of the prompt's place among the sorted ids; `cluster_id` and `difficulty` are the
    prompt's own also in arms that plan with others.

    Args:
        candidates: One row per training prompt: prompt_id String, cluster_id UInt32, difficulty Float64,
            n_tokens UInt32, kept Boolean, quality Float64 or null; optionally reason String, why the filter
            did not keep it, and contaminated, near_duplicate, not_unlocked and out_of_range, each a String that says
            why the prompt is left out, null where it is not. Where the spec names a control of `arms.PLANNED_ON`, also
            what that is planned on: dense_cluster_id UInt32, dense_difficulty or true_difficulty Float64.
        spec: How to plan.
        key: The version's key; part of the name.
        seed: The version's seed.

    Returns:
        The manifest. Time O(n log n) for each arm and epoch.

    Raises:
        SaerlError: `no_prompts` if nothing is left to plan, `batch_too_large` if not one batch can be filled,
            `bad_candidates` for a prompt twice, a difficulty that is not a finite number or a control's signal that
            is missing.
    """
    intake = _take_in(candidates, spec, key)
    manifests, deferrals, groups = [], [], []
    for arm in sorted({*PLANNERS, *spec.controls}):
        for epoch in range(spec.first_epoch, spec.first_epoch + spec.epochs):
            manifest, deferred = _plan_epoch(intake, arm, epoch, seed)
            groups.append(group_entry(arm, epoch, manifest, deferred))
            manifests.append(manifest)
            deferrals.append(deferred)
    manifest_id = name_groups(groups, key=key)
    name = pl.lit(manifest_id).alias("manifest_id")
    return Plan(
        manifest_id,
        pl.concat(manifests).select(name, *MANIFEST_COLUMNS),
        pl.concat(deferrals).select(name, *DEFERRED_COLUMNS),
    )


@dataclass(frozen=True)
class _Intake:
    """The candidates, sorted by id and numbered by their place, and what is the same for all arms."""

    spec: BatchSpec
    prompts: pl.DataFrame
    """prompt_id, cluster_id and difficulty, as the manifest shows them."""
    members: Members
    """All candidates."""
    fitting: IntArray
    """Those that no arm leaves out."""
    kept: IntArray
    """Those of them that no filter dropped."""
    left_out: dict[str, pl.DataFrame]
    """By reason what every arm leaves out."""
    filtered: pl.DataFrame
    """What the filters dropped; `random_drop` draws as many in their place."""


def _take_in(candidates: pl.DataFrame, spec: BatchSpec, key: str) -> _Intake:
    """Sorts and checks the candidates and finds out who is to be planned."""
    prompts = candidates.sort("prompt_id")
    planned_on = {column for arm in spec.controls for column in PLANNED_ON.get(arm, ())}
    _check(prompts, planned_on, key)
    left_out, fits = _leave_out(prompts, spec)
    filtered, kept = _filter(prompts, fits)
    intake = _Intake(
        spec=spec,
        prompts=prompts.select(
            "prompt_id", pl.col("cluster_id").cast(pl.UInt32), pl.col("difficulty").cast(pl.Float64)
        ),
        members=_members(prompts, planned_on),
        fitting=np.flatnonzero(fits),
        kept=np.flatnonzero(kept),
        left_out=left_out,
        filtered=filtered,
    )
    _check_room(intake, key)
    return intake


def _members(prompts: pl.DataFrame, planned_on: Collection[str]) -> Members:
    """All candidates as arrays, with what the controls of the spec are planned on and no more."""

    def numbered(column: str) -> IntArray:
        return prompts[column].rank("dense").cast(pl.Int64).to_numpy() - 1

    def measured(column: str) -> NDArray[np.float64]:
        return prompts[column].cast(pl.Float64).to_numpy()

    return Members(
        cluster=numbered("cluster_id"),
        difficulty=measured("difficulty"),
        n_tokens=prompts["n_tokens"].cast(pl.Int64).to_numpy(),
        dense_cluster=numbered("dense_cluster_id") if "dense_cluster_id" in planned_on else None,
        dense_difficulty=measured("dense_difficulty") if "dense_difficulty" in planned_on else None,
        true_difficulty=measured("true_difficulty") if "true_difficulty" in planned_on else None,
    )


def _leave_out(prompts: pl.DataFrame, spec: BatchSpec) -> tuple[dict[str, pl.DataFrame], NDArray[np.bool_]]:
    """What every arm leaves out, by the first reason that fits, and which prompts that leaves: bool [n_prompts]."""
    limit = spec.max_prompt_tokens
    is_long = (prompts["n_tokens"] > limit).to_numpy() if limit is not None else np.zeros(prompts.height, np.bool_)
    too_long = pl.format("It has {} tokens, more than batches.max_prompt_tokens = {}.", "n_tokens", pl.lit(limit))
    left_out = {"too_long": _deferred(prompts.filter(is_long), "too_long", too_long)}
    fits = ~is_long
    for code in ("contaminated", "near_duplicate", "not_unlocked"):
        if code in prompts.columns:
            applies = prompts[code].is_not_null().to_numpy()
            left_out[code] = _deferred(prompts.filter(fits & applies), code, pl.col(code))
            fits &= ~applies
    return left_out, fits


def _filter(prompts: pl.DataFrame, fits: NDArray[np.bool_]) -> tuple[pl.DataFrame, NDArray[np.bool_]]:
    """What the filters drop of the prompts that fit, and which of these they keep: bool [n_prompts]."""
    nothing = pl.Series("out_of_range", [None] * prompts.height, dtype=pl.String)
    in_range = prompts.get_column("out_of_range", default=nothing).is_null().to_numpy()
    kept = prompts["kept"].to_numpy()
    said = pl.col("reason") if "reason" in prompts.columns else pl.lit("The quality filter did not keep it.")
    dropped = [_deferred(prompts.filter(fits & in_range & ~kept), "filtered", said)]
    if not in_range.all():
        dropped.append(_deferred(prompts.filter(fits & ~in_range), "out_of_range", pl.col("out_of_range")))
    return pl.concat(dropped), fits & in_range & kept


def _check(prompts: pl.DataFrame, planned_on: Collection[str], key: str) -> None:
    """Refuses candidates from which no order follows. They are sorted by prompt_id."""
    scores = "cluster_assignments, difficulty_scores and quality_scores"
    bad = {
        "has no id": prompts["prompt_id"].is_null(),
        "is there twice": (prompts["prompt_id"] == prompts["prompt_id"].shift(1)).fill_null(value=False),
        "has no finite difficulty": ~prompts["difficulty"].is_finite().fill_null(value=False),
        "has no cluster": prompts["cluster_id"].is_null(),
        "has no number of tokens": prompts["n_tokens"].is_null(),
        "is neither kept nor dropped": prompts["kept"].is_null(),
    }
    made_by = dict.fromkeys(bad, scores)
    for column in sorted(planned_on):
        problem = f"has no {column}, on which a control arm is planned"
        nothing = pl.Series(column, [None] * prompts.height, dtype=pl.Float64)
        bad[problem] = ~prompts.get_column(column, default=nothing).cast(pl.Float64).is_finite().fill_null(value=False)
        made_by[problem] = "control_signals"
    for problem, rows in bad.items():
        if rows.any():
            raise SaerlError(
                "bad_candidates",
                f"Prompt {prompts.filter(rows)['prompt_id'][0]!r} {problem}, one of {rows.sum()} such rows.",
                where=key,
                remedy=f"Materialise {made_by[problem]} again.",
            )


def _check_room(intake: _Intake, key: str) -> None:
    """Refuses a plan without a batch."""
    n_kept, size = len(intake.kept), intake.spec.batch_size
    if n_kept == 0:
        counts = {code: frame.height for code, frame in intake.left_out.items()}
        hygiene = "".join(
            f"{counts[code]} {words}, "
            for code, words in (("contaminated", "repeat evaluation rows"), ("near_duplicate", "repeat each other"))
            if counts.get(code)
        )
        n_filtered = intake.filtered.filter(pl.col("reason_code") == "filtered").height
        n_outside = intake.filtered.height - n_filtered
        ranks = f", {n_outside} are outside the range of difficulty" if n_outside else ""
        raise SaerlError(
            "no_prompts",
            f"None of the {intake.prompts.height} training prompts is left to plan: {counts['too_long']} "
            f"are too long, {hygiene}{n_filtered} were dropped by the quality filter{ranks}.",
            where=f"{key}: batches, quality" + (", difficulty" if ranks else "") + (", hygiene" if hygiene else ""),
            remedy=("Keep more between difficulty.min_rank and max_rank. " if ranks else "")
            + "Raise batches.max_prompt_tokens, or let quality.filter drop fewer."
            + (" The table contamination has the evidence." if counts.get("contaminated") else ""),
        )
    if n_kept < size and intake.spec.tail == "drop":
        raise SaerlError(
            "batch_too_large",
            f"{n_kept} prompts do not fill one batch of {size}.",
            where=f"{key}: batches.batch_size",
            remedy=f"Set it to {n_kept} or less, or set batches.tail to 'short' or 'pad'.",
        )


def _plan_epoch(intake: _Intake, arm: str, epoch: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of both tables for one arm and epoch, in order."""
    taking_part, deferred = _participants(intake, arm, epoch, seed)
    members = intake.members.take(taking_part)
    order = taking_part[order_arm(arm, members, intake.spec, derive_seed(seed, epoch, arm))]
    rows = fill_up(order, intake.spec.batch_size) if intake.spec.tail == "pad" else order
    place = np.arange(len(rows))
    manifest = intake.prompts[rows].with_columns(
        pl.lit(arm).alias("arm"),
        pl.lit(epoch, dtype=pl.UInt32).alias("epoch"),
        pl.Series("step", place // intake.spec.batch_size, dtype=pl.UInt32),
        pl.Series("slot", place % intake.spec.batch_size, dtype=pl.UInt32),
        pl.Series("is_padding", place >= len(order)),
    )
    left_out = pl.concat(deferred).sort("prompt_id")
    left_out = left_out.with_columns(pl.lit(arm).alias("arm"), pl.lit(epoch, dtype=pl.UInt32).alias("epoch"))
    return manifest.select(MANIFEST_COLUMNS), left_out.select(DEFERRED_COLUMNS)


def _participants(intake: _Intake, arm: str, epoch: int, seed: int) -> tuple[IntArray, list[pl.DataFrame]]:
    """The prompts of an arm in an epoch, ascending, and the others with their reasons."""
    left_out = list(intake.left_out.values())
    taking_part, deferred = intake.kept, [*left_out, intake.filtered]
    if arm == "random_drop":
        drawn = np.argsort(random_words(len(intake.fitting), derive_seed(seed, "random_drop")))
        n_dropped = len(intake.fitting) - len(intake.kept)
        taking_part = np.sort(intake.fitting[drawn[n_dropped:]])
        dropped = intake.prompts[intake.fitting[drawn[:n_dropped]]]
        by_range = (intake.filtered["reason_code"] == "out_of_range").any()
        place = "what quality and the range of difficulty leave out" if by_range else "the quality filter"
        reason = pl.lit(f"Dropped at random, in place of {place}.")
        deferred = [*left_out, _deferred(dropped, "random_drop", reason)]
    size = intake.spec.batch_size
    n_left_over = len(taking_part) % size
    if intake.spec.tail == "drop" and n_left_over:
        hashes = random_words(intake.prompts.height, derive_seed(seed, epoch, "tail"))
        drawn = taking_part[np.argsort(hashes[taking_part])]
        reason = pl.lit(f"{len(taking_part)} prompts leave {n_left_over} over when cut into batches of {size}.")
        deferred.append(_deferred(intake.prompts[drawn[:n_left_over]], "tail", reason))
        taking_part = np.sort(drawn[n_left_over:])
    return taking_part, deferred


def fill_up(order: IntArray, batch_size: int) -> IntArray:
    """Fills the last batch with what comes first in the order, again from the start if that runs out."""
    n_missing = -len(order) % batch_size
    return np.concatenate([order, order[np.arange(n_missing) % len(order)]])


def _deferred(prompts: pl.DataFrame, code: str, reason: pl.Expr) -> pl.DataFrame:
    """The prompts with one reason: prompt_id, reason_code, reason."""
    return prompts.select("prompt_id", pl.lit(code).alias("reason_code"), reason.cast(pl.String).alias("reason"))
