"""Checks of `quality_probe` and `quality_scores`.

Belongs here: whether the probe may be trusted, and that it did not drop too much. Does not belong here: the probe.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict
from saerl_assets.resources.home import HomeResource


@dg.asset_check(asset="quality_probe")
def probe_beats_chance(
    context: dg.AssetCheckExecutionContext, home: HomeResource, quality_probe: pl.DataFrame
) -> dg.AssetCheckResult:
    """The probe predicts outcomes of prompts that it was not trained on better than chance."""
    minimum = home.version(context.run.tags["dagster/partition"]).spec.quality.min_auroc
    return auroc_suffices(quality_probe, minimum)


def auroc_suffices(metrics: pl.DataFrame, minimum: float) -> dg.AssetCheckResult:
    """The held-out AUROC against the least that the spec accepts."""
    held_out = metrics.filter((pl.col("rows") == "held_out") & pl.col("auroc").is_not_null())
    if held_out.is_empty():
        return verdict([], " ".join(metrics["explanation"].unique(maintain_order=True)))
    auroc = float(held_out["auroc"][0])
    return verdict(
        [f"Held-out AUROC {auroc:.3f} is below {minimum:.2f}: the probe filters nothing."] if auroc < minimum else [],
        f"Held-out AUROC {auroc:.3f}; 0.5 is chance.",
        {"auroc": auroc, "n_rows": int(held_out["n_rows"][0])},
        severity=dg.AssetCheckSeverity.WARN,
    )


@dg.asset_check(asset="quality_scores", additional_ins={"prompts": dg.AssetIn("prompts")}, blocking=True)
def filter_within_limits(
    context: dg.AssetCheckExecutionContext,
    home: HomeResource,
    quality_scores: pl.DataFrame,
    prompts: pl.DataFrame,
) -> dg.AssetCheckResult:
    """Every prompt has a verdict, and no more are dropped than the spec allows."""
    allowed = home.version(context.run.tags["dagster/partition"]).spec.quality.max_dropped_fraction
    return dropped_within(quality_scores, prompts, allowed)


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
