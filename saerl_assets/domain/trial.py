"""What a trial shows: whether a policy that trains in one order needs fewer steps than in another.

Belongs here: from accuracies over steps to steps to a target, their ratio to the baseline with its interval, and the
verdict in words. Does not belong here: training and evaluating (trial).

Every figure is taken from the mean curve of an arm over its seeds. Such a curve is made monotone before it is read
(isotonic regression, weighted equally), the same way for every arm: the first step at which a noisy curve happens to
touch a target would come too early, and the earlier, the noisier the curve. Between two evaluations it is read as a
straight line. The interval is a percentile bootstrap over seeds, drawn jointly for all arms because a seed stands for
the same draws in each of them; the target that is the baseline's own final accuracy is taken anew from each sample, so
that its uncertainty is in the interval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.seeds import derive_seed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]
    Integers = NDArray[np.int64]

BASELINE = "shuffle"
CONFIDENCE = 0.95
N_BOOTSTRAP = 2_000
MIN_SEEDS = 2
"""Seeds below which there is no interval, and so no verdict but that."""

EVALUATION_SCHEMA: dict[str, pl.DataType] = {
    "arm": pl.String(),
    "seed": pl.UInt32(),
    "step": pl.UInt32(),
    "accuracy": pl.Float64(),
    "n_prompts": pl.UInt32(),
    "seconds": pl.Float64(),
}
"""One row per arm, seed and evaluated step: the share of held-out prompts answered right (0 to 1), and the seconds of
training up to there."""

SUMMARY_SCHEMA: dict[str, pl.DataType] = {
    "arm": pl.String(),
    "n_seeds": pl.UInt32(),
    "first_accuracy": pl.Float64(),
    "final_accuracy": pl.Float64(),
    "final_difference": pl.Float64(),
    "final_difference_low": pl.Float64(),
    "final_difference_high": pl.Float64(),
    "target": pl.Float64(),
    "steps_to_target": pl.Float64(),
    "is_censored": pl.Boolean(),
    "n_censored": pl.UInt32(),
    "step_ratio": pl.Float64(),
    "step_ratio_low": pl.Float64(),
    "step_ratio_high": pl.Float64(),
    "is_ratio_open": pl.Boolean(),
    "mean_seconds": pl.Float64(),
    "signal_seconds": pl.Float64(),
    "time_ratio": pl.Float64(),
    "verdict": pl.String(),
}
"""One row per arm. `is_censored`: its mean curve does not reach the target; `steps_to_target` is then the last step,
and `step_ratio` a lower bound (`is_ratio_open`). `n_censored` counts its seeds that never do, each curve read by
itself. `time_ratio`: the seconds of training to the target and those of the signals, over the baseline's."""


def summarise_trial(
    evaluations: pl.DataFrame, *, target: float | None, seed: int, signal_seconds: float | None = None
) -> pl.DataFrame:
    """What each arm came to, beside the baseline, over the seeds that all of its trainings have finished.

    Args:
        evaluations: Columns of `EVALUATION_SCHEMA`; the same steps for every arm and seed. An arm is compared with the
            baseline over the seeds that both have.
        target: Accuracy to be reached, 0 to 1; the baseline's own final accuracy where None.
        seed: Seed of the bootstrap.
        signal_seconds: What the signals cost, in seconds, that all arms but the baseline are planned on; None where
            nobody knows.

    Returns:
        Columns of `SUMMARY_SCHEMA`, the baseline first, then the others by steps to the target. Without the baseline
        the comparisons are null.

    Raises:
        SaerlError: `trial_uneven` where trainings were evaluated at different steps.
    """
    curves = {str(arm): _curves(rows) for (arm,), rows in evaluations.partition_by("arm", as_dict=True).items()}
    steps = _steps(evaluations)
    base = curves.get(BASELINE, {})
    seconds = dict(
        evaluations.group_by("arm", "seed").agg(pl.col("seconds").max()).group_by("arm").agg(pl.col("seconds").mean())
        .iter_rows()
    )  # fmt: skip
    rows = [
        _summarise_arm(arm, found, base, steps, target, derive_seed(seed, "trial", arm))
        | {"mean_seconds": seconds[arm]}
        for arm, found in curves.items()
    ]
    summary = _with_costs(pl.DataFrame(rows, schema=SUMMARY_SCHEMA), steps, signal_seconds)
    n_steps = int(steps[-1]) if len(steps) else 0
    said = [verdict_of(row, n_steps=n_steps) for row in summary.iter_rows(named=True)]
    summary = summary.with_columns(verdict=pl.Series(said, dtype=pl.String))
    return by_steps(summary)


def by_steps(summary: pl.DataFrame) -> pl.DataFrame:
    """The rows of a summary with the baseline first, then the others by steps to the target."""
    return summary.sort(pl.col("arm") != BASELINE, "is_censored", "steps_to_target", "arm", nulls_last=True)


def verdict_of(row: Mapping[str, object], *, n_steps: int) -> str:
    """One arm's result in a sentence.

    Args:
        row: A row of `summarise_trial`.
        n_steps: Steps of every training.
    """
    arm, ratio = row["arm"], row["step_ratio"]
    if arm == BASELINE or ratio is None:
        return f"{arm}: {row['final_accuracy']:.1%} after {n_steps:,} steps, {row['n_seeds']} seeds."
    low, high = row["step_ratio_low"], row["step_ratio_high"]
    seeds = f"{row['n_seeds']} seeds"
    if low is None or high is None:
        return f"{arm}: {seeds}, no interval: nothing can be said yet."
    assert isinstance(low, float)  # noqa: S101 - as the schema says
    assert isinstance(high, float)  # noqa: S101
    interval = f"95% interval {low:.2f} to {high:.2f}, {seeds}"
    if row["is_censored"]:
        told = f"{arm} did not reach {row['target']:.1%} in {n_steps:,} steps: at least {ratio:.2f} of {BASELINE}'s"
        return f"{told} ({interval})."
    reached = f"{arm} reached {row['target']:.1%} in {ratio:.2f} of {BASELINE}'s steps ({interval})"
    if high < 1.0:
        return f"{reached}: fewer."
    return f"{reached}: more." if low > 1.0 else f"{reached}: no difference could be shown."


def steps_to_reach(steps: Integers, curve: Doubles, target: float) -> float | None:
    """The step at which a curve reaches a target, between evaluations along a straight line; None if it never does.

    Args:
        steps: int64 [n], rising.
        curve: float64 [n], never falling.
        target: In the curve's unit.
    """
    reached = np.flatnonzero(curve >= target - 1e-12)
    if not len(reached):
        return None
    at = int(reached[0])
    if at == 0:
        return float(steps[0])
    share = (target - curve[at - 1]) / (curve[at] - curve[at - 1])
    return float(steps[at - 1] + share * (steps[at] - steps[at - 1]))


def _with_costs(summary: pl.DataFrame, steps: Integers, signal_seconds: float | None) -> pl.DataFrame:
    """The summary with what the signals cost and the ratio of seconds to the target, all counted in."""
    if signal_seconds is None or not len(steps):
        return summary
    cost = pl.when(pl.col("arm") == BASELINE).then(0.0).otherwise(signal_seconds)
    summary = summary.with_columns(signal_seconds=cost)
    spent = pl.col("steps_to_target") / float(steps[-1]) * pl.col("mean_seconds") + pl.col("signal_seconds")
    base = summary.select(spent.filter(pl.col("arm") == BASELINE)).to_series()
    if not len(base) or not base[0]:
        return summary
    return summary.with_columns(time_ratio=spent / base[0])


def _summarise_arm(
    arm: str, found: dict[int, Doubles], base: dict[int, Doubles], steps: Integers, target: float | None, seed: int
) -> dict[str, object]:
    """One row of the summary."""
    shared = sorted(found.keys() & base.keys())
    own = np.stack([found[one] for one in sorted(found)])
    row: dict[str, object] = {
        "arm": arm,
        "n_seeds": len(shared or found),
        "first_accuracy": float(own[:, 0].mean()),
        "final_accuracy": float(own[:, -1].mean()),
    }
    if not shared:
        return row
    ours, theirs = np.stack([found[one] for one in shared]), np.stack([base[one] for one in shared])
    compared = _compare(ours, theirs, steps, target)
    row |= {"first_accuracy": float(ours[:, 0].mean()), "final_accuracy": float(ours[:, -1].mean())}
    row |= {
        "final_difference": float(ours[:, -1].mean() - theirs[:, -1].mean()),
        "target": compared.target,
        "steps_to_target": compared.steps,
        "is_censored": compared.is_censored,
        "n_censored": sum(steps_to_reach(steps, monotone(one), compared.target) is None for one in ours),
        "step_ratio": compared.ratio,
        "is_ratio_open": compared.is_censored,
    }
    if len(shared) >= MIN_SEEDS and arm != BASELINE:
        row |= _intervals(ours, theirs, steps, target, seed)
    return row


class _Compared:
    """Two mean curves beside each other."""

    def __init__(self, target: float, found: float | None, base: float | None, last: float) -> None:
        self.target = target
        self.is_censored = found is None
        self.steps = last if found is None else found
        # A target that was reached before the first step took none of either; they are even.
        divisor = last if base is None else base
        self.ratio = self.steps / divisor if divisor > 0 else (1.0 if self.steps == 0 else np.inf)


def _compare(ours: Doubles, theirs: Doubles, steps: Integers, target: float | None) -> _Compared:
    own, base = monotone(ours.mean(axis=0)), monotone(theirs.mean(axis=0))
    wanted = float(base[-1]) if target is None else target
    return _Compared(wanted, steps_to_reach(steps, own, wanted), steps_to_reach(steps, base, wanted), float(steps[-1]))


def _intervals(
    ours: Doubles, theirs: Doubles, steps: Integers, target: float | None, seed: int
) -> dict[str, float | None]:
    """Percentile intervals of the ratio and of the final difference, over seeds drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(ours), size=(N_BOOTSTRAP, len(ours)))
    ratios = np.array([_compare(ours[one], theirs[one], steps, target).ratio for one in drawn])
    differences = (ours[drawn, -1] - theirs[drawn, -1]).mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    # Taken among the samples themselves: an infinite ratio has no middle with another.
    low, high = np.quantile(ratios, [tail, 1 - tail], method="inverted_cdf")
    difference_low, difference_high = np.quantile(differences, [tail, 1 - tail])
    return {
        "step_ratio_low": float(low),
        "step_ratio_high": float(high),
        "final_difference_low": float(difference_low),
        "final_difference_high": float(difference_high),
    }


def monotone(curve: Doubles) -> Doubles:
    """The never falling curve nearest to this one by least squares.

    Args:
        curve: float64 [n].
    """
    from scipy.optimize import isotonic_regression

    return np.asarray(isotonic_regression(curve).x, dtype=np.float64)


def _curves(rows: pl.DataFrame) -> dict[int, Doubles]:
    ordered = rows.sort("seed", "step")
    return {
        int(seed): found["accuracy"].to_numpy().astype(np.float64)
        for (seed,), found in ordered.partition_by("seed", as_dict=True).items()
    }


def _steps(evaluations: pl.DataFrame) -> Integers:
    """The steps of all trainings."""
    kinds = evaluations.sort("step").group_by("arm", "seed").agg("step")["step"].to_list()
    if any(steps != kinds[0] for steps in kinds[1:]):
        raise SaerlError(
            "trial_uneven",
            "Trainings of this trial were evaluated at different steps.",
            remedy="Keep those of one setting only; saerl trial takes every setting as a trial of its own.",
        )
    return np.array(kinds[0] if kinds else [], dtype=np.int64)
