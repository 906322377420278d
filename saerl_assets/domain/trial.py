"""What a trial shows: whether a policy that trains in one order needs fewer steps than in another.

Belongs here: from accuracies over steps to steps to a target, their ratio to the baseline with its interval, and the
verdict in words. Does not belong here: training and evaluating (trial).

Every figure is taken from the mean curve of an arm over its seeds. Such a curve is made monotone before it is read
(isotonic regression, weighted equally), the same way for every arm: the first step at which a noisy curve happens to
touch a target would come too early, and the earlier, the noisier the curve. Between two evaluations it is read as a
straight line.

An arm that has not reached the target by the last step needs more steps than there were, so that its ratio is only
known to be at least something; where the baseline has not, to be at most something; where the baseline has it before
its first step, because it did not improve, there are no steps to count by and no ratio. Each of these is carried
through the bootstrap: an interval is open where more of the samples are than its tail has.

The interval of the ratio is a bootstrap over seeds, drawn jointly for arm and baseline because a seed stands for the
same draws in both; the target that is the baseline's own end is taken anew from each sample, so that its uncertainty is
in the interval. Percentiles of a bootstrap over five trainings are too narrow. The tails are therefore as much smaller
as makes those of a mean as wide as Student's t has them (Hesterberg 2015, The American Statistician 69(4)). That
of the final difference is Student's t of the paired differences. Both are over trainings alone: the held-out prompts,
the labels and the features are the same in each.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import polars as pl

from saerl_assets.domain.arms import PLANNERS
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.seeds import derive_seed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from saerl_assets.domain.spec import VersionSpec

    Doubles = NDArray[np.float64]
    Integers = NDArray[np.int64]

Judgement: TypeAlias = Literal["better", "worse"]

BASELINE = "shuffle"
CONFIDENCE = 0.95
N_BOOTSTRAP = 4_000
"""Samples drawn, where there are too many to take each once."""
MOST_DISTINCT = 2_000
"""Up to so many distinct samples of the seeds each is taken once, with its weight; of seven seeds there are 1,716."""
MIN_SEEDS = 2
"""Seeds below which there is no interval."""
MIN_SEEDS_OF_VERDICT = 5
"""Seeds below which an interval is too rough to call one arm better than another: that of four covers the true ratio
nine times of ten at best."""

AT_LEAST, AT_MOST, EXACT = "at_least", "at_most", "exact"

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
    "ratio_bound": pl.String(),
    "mean_seconds": pl.Float64(),
    "signal_seconds": pl.Float64(),
    "signal_gpu_seconds": pl.Float64(),
    "time_ratio": pl.Float64(),
    "verdict": pl.String(),
}
"""One row per arm.

`is_censored`: its mean curve does not reach the target; `steps_to_target` is then the last step. `n_censored` counts
its seeds that never do, each curve read by itself. `ratio_bound` says what `step_ratio` is: `exact`, `at_least` (the
arm does not get there) or `at_most` (the baseline does not); both are null where neither does or the baseline has the
target before its first step. `step_ratio_low` is 0 and `step_ratio_high` null where that end is open. `time_ratio`: the
seconds of training to the target and those of the signals, over the baseline's; bounded as the ratio of steps is.
"""


def arms_asked_for(spec: VersionSpec) -> list[str]:
    """The arms that a version's trial trains on, the baseline first; none without `[trial]`."""
    if spec.trial is None:
        return []
    arms = spec.trial.arms if spec.trial.arms is not None else sorted({*PLANNERS, *spec.batches.controls})
    return list(dict.fromkeys([BASELINE, *arms]))


@dataclass(frozen=True)
class SignalCost:
    """What the signals that an arm is planned on took, in seconds."""

    seconds: float
    """On the clock, of all steps."""
    gpu_seconds: float
    """Of those that held a GPU; 0 without one."""


def summarise_trial(
    evaluations: pl.DataFrame, *, target: float | None, seed: int, costs: Mapping[str, SignalCost] | None = None
) -> pl.DataFrame:
    """What each arm came to, beside the baseline, over the seeds that all of its trainings have finished.

    Args:
        evaluations: Columns of `EVALUATION_SCHEMA`; the same steps for every arm and seed. An arm is compared with the
            baseline over the seeds that both have.
        target: Accuracy to be reached, 0 to 1; where None, that with which the baseline's mean curve, made monotone,
            ends.
        seed: Seed of the bootstrap.
        costs: By arm what its signals cost; arms that are not in it have unknown costs. The baseline's are 0.

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
    known = {BASELINE: SignalCost(0.0, 0.0), **(costs or {})}
    rows = []
    for arm, found in curves.items():
        row = _summarise_arm(arm, found, base, steps, target, derive_seed(seed, "trial")) | {
            "mean_seconds": seconds[arm]
        }
        if arm in known:
            row |= {"signal_seconds": known[arm].seconds, "signal_gpu_seconds": known[arm].gpu_seconds}
        rows.append(row)
    summary = _with_time_ratio(pl.DataFrame(rows, schema=SUMMARY_SCHEMA), steps)
    n_steps = int(steps[-1]) if len(steps) else 0
    said = [verdict_of(row, n_steps=n_steps) for row in summary.iter_rows(named=True)]
    summary = summary.with_columns(verdict=pl.Series(said, dtype=pl.String))
    return by_steps(summary)


def by_steps(summary: pl.DataFrame) -> pl.DataFrame:
    """The rows of a summary: the baseline, those that get to the target by their steps, the others by their end."""
    last = -pl.when("is_censored").then("final_accuracy").otherwise(0.0)
    return summary.sort(pl.col("arm") != BASELINE, "is_censored", "steps_to_target", last, "arm", nulls_last=True)


def judge_arm(row: Mapping[str, Any]) -> Judgement | None:
    """Whether an arm is better or worse than the baseline; None where nothing could be shown.

    Better: the whole interval of the ratio is below 1. Worse: it is above 1, or the arm does not reach the target and
    the whole interval of its final difference is below 0. A baseline that ends at its own target about at the last step
    leaves no room for a ratio far above 1: an arm that is worse mostly shows by the latter.

    Args:
        row: A row of `summarise_trial`.
    """
    if row["n_seeds"] < MIN_SEEDS_OF_VERDICT or row["arm"] == BASELINE:
        return None
    low, high, last_high = row["step_ratio_low"], row["step_ratio_high"], row["final_difference_high"]
    if high is not None and high < 1.0:
        return "better"
    is_behind = row["ratio_bound"] != EXACT and last_high is not None and last_high < 0.0
    return "worse" if is_behind or (low is not None and low > 1.0) else None


def verdict_of(row: Mapping[str, Any], *, n_steps: int) -> str:
    """One arm's result in a sentence.

    Args:
        row: A row of `summarise_trial`.
        n_steps: Steps of every training.
    """
    arm, n_seeds = row["arm"], row["n_seeds"]
    seeds = f"{n_seeds} seed{'' if n_seeds == 1 else 's'}"
    if arm == BASELINE or row["target"] is None:
        return f"{arm}: {row['final_accuracy']:.1%} after {n_steps:,} steps, {seeds}."
    told = f"{_told_of_steps(row, n_steps)}; {_told_of_the_end(row)} ({seeds})"
    if n_seeds < MIN_SEEDS_OF_VERDICT:
        return f"{told}: {MIN_SEEDS_OF_VERDICT} seeds at least make a verdict."
    judged = {"better": "fewer steps", "worse": "worse", None: "no difference could be shown"}
    return f"{told}: {judged[judge_arm(row)]}."


def interval_of(row: Mapping[str, Any]) -> str:
    """The interval of an arm's ratio in words, such as `0.55 to 0.92` or `over 0.98`; empty where there is none."""
    low, high = row["step_ratio_low"], row["step_ratio_high"]
    if low is None:
        return ""
    return f"over {low:.2f}" if high is None else f"{low:.2f} to {high:.2f}"


def _told_of_steps(row: Mapping[str, Any], n_steps: int) -> str:
    arm, target, ratio = row["arm"], row["target"], row["step_ratio"]
    if ratio is None:
        nobody = f"neither {arm} nor {BASELINE} reached {target:.1%} in {n_steps:,} steps"
        idle = f"{BASELINE} had {target:.1%} before its first step, so that no steps can be counted for {arm}"
        return nobody if row["is_censored"] else idle
    interval = interval_of(row)
    found = f" (95% interval {interval})" if interval else ""
    if row["ratio_bound"] == AT_LEAST:
        return f"{arm} did not reach {target:.1%} in {n_steps:,} steps, at least {ratio:.2f} of {BASELINE}'s{found}"
    at_most = "at most " if row["ratio_bound"] == AT_MOST else ""
    return f"{arm} reached {target:.1%} in {at_most}{ratio:.2f} of {BASELINE}'s steps{found}"


def _told_of_the_end(row: Mapping[str, Any]) -> str:
    points, low, high = (row[name] for name in ("final_difference", "final_difference_low", "final_difference_high"))
    said = f"it ended {100 * points:+.1f} points beside it"
    return said if low is None else f"{said}, {100 * low:+.1f} to {100 * high:+.1f}"


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


def _with_time_ratio(summary: pl.DataFrame, steps: Integers) -> pl.DataFrame:
    """The summary with the ratio of seconds to the target, those of the signals counted in, where all are known."""
    if not len(steps):
        return summary
    spent = pl.col("steps_to_target") / float(steps[-1]) * pl.col("mean_seconds") + pl.col("signal_seconds")
    base = summary.select(spent.filter(pl.col("arm") == BASELINE)).to_series()
    if not len(base) or not base[0]:
        return summary
    return summary.with_columns(time_ratio=pl.when(pl.col("step_ratio").is_not_null()).then(spent / base[0]))


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
    compared = _compare(ours.mean(axis=0), theirs.mean(axis=0), steps, target)
    row |= {"first_accuracy": float(ours[:, 0].mean()), "final_accuracy": float(ours[:, -1].mean())}
    row |= {
        "final_difference": float(ours[:, -1].mean() - theirs[:, -1].mean()),
        "target": compared.target,
        "steps_to_target": float(steps[-1]) if compared.steps is None else compared.steps,
        "is_censored": compared.steps is None,
        "n_censored": sum(steps_to_reach(steps, monotone(one), compared.target) is None for one in ours),
        "step_ratio": compared.ratio,
        "ratio_bound": compared.bound,
    }
    if len(shared) >= MIN_SEEDS and arm != BASELINE:
        row |= _difference_interval(ours[:, -1] - theirs[:, -1])
        row |= _ratio_interval(ours, theirs, steps, target, seed) if compared.ratio is not None else {}
    return row


@dataclass(frozen=True)
class _Compared:
    """Two mean curves beside each other."""

    target: float
    steps: float | None
    """To the target; None: not reached."""
    ratio: float | None
    bound: str | None
    """`EXACT`, `AT_LEAST` or `AT_MOST`; None without a ratio."""
    low: float
    high: float
    """What the ratio is known to lie between, 0 to infinity."""


def _compare(ours: Doubles, theirs: Doubles, steps: Integers, target: float | None) -> _Compared:
    own, base = monotone(ours), monotone(theirs)
    wanted = float(base[-1]) if target is None else target
    found, needed, last = steps_to_reach(steps, own, wanted), steps_to_reach(steps, base, wanted), float(steps[-1])
    if needed == 0.0 or (found is None and needed is None):
        return _Compared(wanted, found, None, None, 0.0, math.inf)
    ratio = (last if found is None else found) / (last if needed is None else needed)
    if found is None:
        return _Compared(wanted, None, ratio, AT_LEAST, ratio, math.inf)
    if needed is None:
        return _Compared(wanted, found, ratio, AT_MOST, 0.0, ratio)
    return _Compared(wanted, found, ratio, EXACT, ratio, ratio)


def _ratio_interval(
    ours: Doubles, theirs: Doubles, steps: Integers, target: float | None, seed: int
) -> dict[str, float | None]:
    """The interval of the ratio, of its bounds where that is all that a sample knows."""
    shares, weights = _samples(len(ours), seed)
    compared = [_compare(share @ ours, share @ theirs, steps, target) for share in shares]
    tail = _tail(len(ours))
    low = _quantile(np.array([one.low for one in compared]), weights, tail)
    high = _quantile(np.array([one.high for one in compared]), weights, 1 - tail)
    return {"step_ratio_low": low, "step_ratio_high": high if math.isfinite(high) else None}


def _difference_interval(differences: Doubles) -> dict[str, float | None]:
    """Student's t interval of the mean of paired differences, float64 [n], n two or more."""
    from scipy.stats import t

    n = len(differences)
    half = t.ppf((1 + CONFIDENCE) / 2, n - 1) * differences.std(ddof=1) / math.sqrt(n)
    return {
        "final_difference_low": float(differences.mean() - half),
        "final_difference_high": float(differences.mean() + half),
    }


def _samples(n: int, seed: int) -> tuple[Doubles, Doubles]:
    """Samples of n seeds with replacement: float64 [m, n] shares of each seed, float64 [m] weights of the samples."""
    if math.comb(2 * n - 1, n) > MOST_DISTINCT:
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=N_BOOTSTRAP)
        return drawn / n, np.full(N_BOOTSTRAP, 1 / N_BOOTSTRAP)
    chosen = itertools.combinations_with_replacement(range(n), n)
    counts = np.array([np.bincount(one, minlength=n) for one in chosen])
    ways = [math.factorial(n) / math.prod(math.factorial(int(count)) for count in row) for row in counts]
    return counts / n, np.array(ways) / float(n) ** n


def _tail(n: int) -> float:
    """What is cut off on either side, of a bootstrap over n: less than 0.025, the less the smaller n."""
    from scipy.stats import norm, t

    return float(norm.cdf(-math.sqrt(n / (n - 1)) * t.ppf((1 + CONFIDENCE) / 2, n - 1)))


def _quantile(values: Doubles, weights: Doubles, share: float) -> float:
    """The smallest of the values that so much of the weight does not exceed; no mean of two, which may be infinite."""
    order = np.argsort(values, kind="stable")
    at = int(np.searchsorted(np.cumsum(weights[order]), share - 1e-12))
    return float(values[order][min(at, len(values) - 1)])


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
