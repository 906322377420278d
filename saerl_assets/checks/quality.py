"""Checks of `quality_probe`, `probe_calibration` and `quality_scores`.

Belongs here: whether the probe may be trusted, and that it did not drop too much. Does not belong here: the probe.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict
from saerl_assets.domain.calibration import calibration_error
from saerl_assets.domain.spec import QualitySpec
from saerl_assets.domain.staleness import newer_area
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.predictors import encoders_behind

WARN = dg.AssetCheckSeverity.WARN

BRIER_TOLERANCE = 0.01
"""A probe that says next to nothing may be worse than the base rate by so much by chance."""


@dg.asset_check(asset="quality_probe")
def probe_beats_chance(
    context: dg.AssetCheckExecutionContext, home: HomeResource, quality_probe: pl.DataFrame
) -> dg.AssetCheckResult:
    """The probe predicts outcomes of prompts that it was not trained on better than chance."""
    return auroc_suffices(quality_probe, _spec(context, home).min_auroc)


def auroc_suffices(metrics: pl.DataFrame, minimum: float) -> dg.AssetCheckResult:
    """The held-out AUROC against the least that the spec accepts, and its interval against chance."""
    held_out = _measured(metrics, "held_out")
    if held_out is None:
        return verdict([], _explanation(metrics))
    auroc, low, high = (float(held_out[name] or 0.0) for name in ("auroc", "auroc_low", "auroc_high"))
    problems = []
    if auroc < minimum:
        problems.append(f"Held-out AUROC {auroc:.3f} is below {minimum:.2f}: the probe filters nothing.")
    elif low <= 0.5:
        problems.append(
            f"Held-out AUROC {auroc:.3f} may be chance, its 95% interval is {low:.3f} to {high:.3f}: the probe filters "
            "nothing."
        )
    return verdict(
        problems,
        f"Held-out AUROC {auroc:.3f}, 95% interval {low:.3f} to {high:.3f}; 0.5 is chance.",
        {"auroc": auroc, "auroc_low": low, "auroc_high": high, "n_rows": int(held_out["n_rows"] or 0)},
        severity=WARN,
    )


@dg.asset_check(asset="quality_probe")
def probe_does_not_overfit(
    context: dg.AssetCheckExecutionContext, home: HomeResource, quality_probe: pl.DataFrame
) -> dg.AssetCheckResult:
    """The probe does not rank the prompts that it was fitted to much better than others."""
    return gap_within(quality_probe, _spec(context, home).max_auroc_gap)


def gap_within(metrics: pl.DataFrame, allowed: float) -> dg.AssetCheckResult:
    """AUROC on prompts fitted to, minus that on others, against the most that the spec allows."""
    held_out, fitted = _measured(metrics, "held_out"), _measured(metrics, "fitted")
    if held_out is None or fitted is None:
        return verdict([], _explanation(metrics))
    seen, unseen = float(fitted["auroc"] or 0.0), float(held_out["auroc"] or 0.0)
    words = f"AUROC is {seen:.3f} on prompts that it was fitted to and {unseen:.3f} on others, a gap of"
    words = f"{words} {seen - unseen:.3f} where quality.max_auroc_gap = {allowed:g} is allowed"
    return verdict(
        [f"{words}: it has learned prompts by heart. Label more prompts, or try another quality.probe."]
        if seen - unseen > allowed
        else [],
        f"{words}.",
        {"gap": seen - unseen},
        severity=WARN,
    )


@dg.asset_check(
    asset="quality_probe",
    additional_ins={"label_observations": dg.AssetIn("label_observations")},
    additional_deps=["sae_weights", "control_saes"],
)
def probe_is_fresh(
    context: dg.AssetCheckExecutionContext,
    home: HomeResource,
    quality_probe: pl.DataFrame,
    label_observations: pl.DataFrame,
) -> dg.AssetCheckResult:
    """The probe was trained on all labels that there are, and by the reader and the encoders that there are."""
    encoders = encoders_behind(home, context.run.tags["dagster/partition"], quality_probe["predictor"][0])
    return nothing_has_changed(quality_probe, label_observations, encoders, _spec(context, home).label)


def nothing_has_changed(
    metrics: pl.DataFrame, observations: pl.DataFrame, encoders: str | None, label: str
) -> dg.AssetCheckResult:
    """What the probe was trained on against what there is now.

    Args:
        metrics: Table `quality_probe`.
        observations: Table `label_observations`.
        encoders: What makes the columns of the probe's predictor by now.
        label: The label that it was trained on.
    """
    row = metrics.row(0, named=True)
    known = observations.filter(pl.col("label") == label)["observation_id"].n_unique()
    problems = []
    if known != row["n_observations"]:
        problems.append(
            f"There were {row['n_observations']:,} observations of {label!r} when it was trained, there are {known:,}."
        )
    if row["digest"] is not None and row["encoders"] != encoders:
        problems.append(f"It was trained on {row['predictor']} of another reader or other encoders than the version's.")
    if problems:
        problems.append("Materialise labels, quality_probe and quality_scores again.")
    return verdict(problems, f"It knows all {known:,} observations of {label!r}.", {"n_new": known}, severity=WARN)


@dg.asset_check(asset="probe_calibration", additional_ins={"quality_probe": dg.AssetIn("quality_probe")})
def probabilities_hold(
    context: dg.AssetCheckExecutionContext,
    home: HomeResource,
    probe_calibration: pl.DataFrame,
    quality_probe: pl.DataFrame,
) -> dg.AssetCheckResult:
    """On prompts not trained on, outcomes are correct as often as predicted, and better so than by the base rate."""
    return calibrated_within(probe_calibration, quality_probe, _spec(context, home).max_calibration_error)


def calibrated_within(curve: pl.DataFrame, metrics: pl.DataFrame, allowed: float) -> dg.AssetCheckResult:
    """The expected calibration error against what the spec allows, and the Brier score against the base rate's."""
    held_out = _measured(metrics, "held_out")
    if held_out is None or curve.is_empty():
        return verdict([], _explanation(metrics))
    error = calibration_error(curve)
    problems = []
    if error > allowed:
        problems.append(
            f"Predicted and observed shares of correct outcomes are {error:.3f} apart on average, "
            f"quality.max_calibration_error = {allowed:g} is allowed: do not filter by quality.threshold."
        )
    brier, base = (float(held_out[name] or 0.0) for name in ("brier", "base_rate"))
    if brier > base * (1 - base) + BRIER_TOLERANCE:
        problems.append(f"The Brier score is {brier:.3f}, always saying the base rate gives {base * (1 - base):.3f}.")
    return verdict(
        problems,
        f"Predicted and observed shares of correct outcomes are {error:.3f} apart on average, Brier score {brier:.3f}.",
        {"calibration_error": error, "brier": brier},
        severity=WARN,
    )


@dg.asset_check(asset="quality_scores", additional_ins={"prompts": dg.AssetIn("prompts")}, blocking=True)
def filter_within_limits(
    context: dg.AssetCheckExecutionContext,
    home: HomeResource,
    quality_scores: pl.DataFrame,
    prompts: pl.DataFrame,
) -> dg.AssetCheckResult:
    """Every prompt has a verdict, and no more are dropped than the spec allows."""
    return dropped_within(quality_scores, prompts, _spec(context, home).max_dropped_fraction)


def dropped_within(scores: pl.DataFrame, prompts: pl.DataFrame, allowed: float) -> dg.AssetCheckResult:
    """Dropped training prompts against the share that the spec allows."""
    train = prompts.filter(pl.col("split") == "train").join(scores, on="prompt_id", how="left")
    problems = []
    if set(scores["prompt_id"]) != set(prompts["prompt_id"]):
        problems.append("The scored prompts are not the version's prompts.")
    n_dropped = int((~train["kept"].fill_null(value=True)).sum())
    if n_dropped > allowed * train.height + 1e-9:
        problems.append(f"{n_dropped} of {train.height} training prompts are dropped, the spec allows {allowed:.0%}.")
    return verdict(problems, f"{n_dropped} of {train.height} training prompts are dropped.", {"n_dropped": n_dropped})


@dg.asset_check(
    asset="quality_scores",
    additional_ins={
        "quality_probe": dg.AssetIn("quality_probe"),
        "label_observations": dg.AssetIn("label_observations"),
    },
)
def newer_labels_agree(
    context: dg.AssetCheckExecutionContext,
    home: HomeResource,
    quality_scores: pl.DataFrame,
    quality_probe: pl.DataFrame,
    label_observations: pl.DataFrame,
) -> dg.AssetCheckResult:
    """On prompts that were labelled after it was trained, the probe ranks as well as it did on those held out."""
    return newer_within(quality_scores, quality_probe, label_observations, _spec(context, home).label)


def newer_within(
    scores: pl.DataFrame, metrics: pl.DataFrame, observations: pl.DataFrame, label: str
) -> dg.AssetCheckResult:
    """The AUROC on newer labels against the held-out one; it has fallen where their intervals are apart."""
    held_out = _measured(metrics, "held_out")
    if held_out is None:
        return verdict([], _explanation(metrics))
    found = newer_area(scores, observations, label, int(held_out["n_observations"] or 0))
    if found is None:
        return verdict([], "There are no newer labels, or too few to judge by.")
    before, low = float(held_out["auroc"] or 0.0), float(held_out["auroc_low"] or 0.0)
    words = f"On {found.n_rows:,} prompts labelled later AUROC is {found.area:.3f}, at most {found.high:.3f} by its 95%"
    words = f"{words} interval; when it was trained it was {before:.3f}, at least {low:.3f}"
    return verdict(
        [f"{words}: it has become worse. Train it anew."] if found.high < low else [],
        f"{words}.",
        {"auroc_newer": found.area, "auroc": before, "n_newer": found.n_rows},
        severity=WARN,
    )


def _measured(metrics: pl.DataFrame, rows: str) -> dict[str, float | None] | None:
    """The figures on some rows; None where nothing was measured there."""
    found = metrics.filter((pl.col("rows") == rows) & pl.col("auroc").is_not_null())
    return found.row(0, named=True) if found.height else None


def _explanation(metrics: pl.DataFrame) -> str:
    return " ".join(metrics["explanation"].unique(maintain_order=True))


def _spec(context: dg.AssetCheckExecutionContext, home: HomeResource) -> QualitySpec:
    return home.version(context.run.tags["dagster/partition"]).spec.quality
