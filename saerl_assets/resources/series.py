"""The numbers of a version that Dagster draws as time series, one point a materialisation.

Belongs here: which numbers of which table, under names that stay the same. Does not belong here: storing (tables), and
what is a figure or a text (metadata).

They are computed from the very rows that are stored. A number that a version does not have is left out. What needs
more than one number is a view: saerl sql "FROM feature_use".
"""

from collections.abc import Callable

import polars as pl

Numbers = dict[str, float | int | None]


def numbers_of(table: str, rows: pl.DataFrame) -> dict[str, float | int]:
    """The time series of one table, for the rows of one version; empty for a table that has none.

    Args:
        table: Its name.
        rows: As an asset returned them.
    """
    found = SERIES[table](rows) if table in SERIES and rows.height else {}
    return {name: _plain(value) for name, value in found.items() if value is not None and value == value}  # noqa: PLR0124 - NaN


def _plain(value: float | int) -> float | int:
    return int(value) if isinstance(value, int) else round(float(value), 6)


def _mean(rows: pl.DataFrame, column: str) -> float | None:
    return rows.select(pl.col(column).cast(pl.Float64).mean()).item()  # type: ignore[no-any-return]


def _share(rows: pl.DataFrame, condition: pl.Expr) -> float | None:
    return rows.select(condition.mean()).item()  # type: ignore[no-any-return]


def _count(rows: pl.DataFrame, condition: pl.Expr) -> int:
    return int(rows.select(condition.sum()).item())


def _measures(rows: pl.DataFrame) -> Numbers:
    """Tables with one row per measure: each under its own name."""
    return dict(rows.select("measure", "value").iter_rows())


def _prompts(rows: pl.DataFrame) -> Numbers:
    return {
        "n_training_prompts": _count(rows, pl.col("split") == "train"),
        "n_evaluation_prompts": _count(rows, pl.col("split") == "evaluation"),
        "mean_tokens": _mean(rows, "n_tokens"),
    }


def _labels(rows: pl.DataFrame) -> Numbers:
    conflicting = pl.col("spread") > 0
    return {"n_labelled_prompts": rows["prompt_id"].n_unique(), "conflicting_fraction": _share(rows, conflicting)}


def _sae_health(rows: pl.DataFrame) -> Numbers:
    """By layer, because a version has one SAE for each."""
    figures = ("explained_variance", "l0", "dead_fraction", "loss_recovered")
    return {f"{name}_layer{row['layer']}": row[name] for row in rows.iter_rows(named=True) for name in figures}


def _feature_density(rows: pl.DataFrame) -> Numbers:
    return {
        "dead_fraction": _share(rows, pl.col("n_prompts") == 0),
        "single_prompt_fraction": _share(rows, pl.col("n_prompts") == 1),
        "median_prompts_per_feature": rows.select(pl.col("n_prompts").cast(pl.Float64).median()).item(),
    }


def _clusters(rows: pl.DataFrame) -> Numbers:
    return {
        "n_clusters": rows.height,
        "largest_fraction": rows["prompt_fraction"].max(),  # type: ignore[dict-item]
        "median_cluster_size": rows["n_prompts"].cast(pl.Float64).median(),  # type: ignore[dict-item]
    }


def _cluster_drift(rows: pl.DataFrame) -> Numbers:
    fates = ("kept", "new", "gone")
    return {f"n_clusters_{fate}": _count(rows, pl.col("fate") == fate) for fate in fates}


def _difficulty_scores(rows: pl.DataFrame) -> Numbers:
    active = rows["n_active_features"].cast(pl.Float64)
    quantiles = {"p10": 0.1, "p50": 0.5, "p90": 0.9}
    return {
        **{f"active_features_{name}": active.quantile(share, "linear") for name, share in quantiles.items()},
        "mean_difficulty": _mean(rows, "difficulty"),
    }


def _difficulty_proxy(rows: pl.DataFrame) -> Numbers:
    held_out = rows.filter(pl.col("rows") == "held_out")
    found: Numbers = {
        f"spearman_{name}": value for name, value in held_out.select("score_name", "spearman").iter_rows()
    }
    proxy = held_out.filter(pl.col("score_name") == "proxy")
    return found | ({"proxy_over_length": proxy["over_length"][0]} if proxy.height else {})


def _quality_probe(rows: pl.DataFrame) -> Numbers:
    held_out = rows.filter(pl.col("rows") == "held_out")
    if held_out.is_empty():
        return {}
    names = ("auroc", "auroc_low", "auroc_high", "brier", "base_rate", "calibration_error", "n_rows")
    return {f"held_out_{name}": held_out[name][0] for name in names}


def _quality_scores(rows: pl.DataFrame) -> Numbers:
    return {"dropped_fraction": _share(rows, ~pl.col("kept")), "mean_quality": _mean(rows, "quality")}


def _signal_evidence(rows: pl.DataFrame) -> Numbers:
    """By label the best signal's value, and what the SAE's best pooling has over length."""
    found: Numbers = {}
    for (label,), signals in rows.group_by("label", maintain_order=True):
        sae = signals.filter(pl.col("predictor").str.starts_with("sae_"))
        found[f"{label}_best"] = signals["value"].max()  # type: ignore[assignment]
        found[f"{label}_sae"] = sae["value"].max()  # type: ignore[assignment]
        found[f"{label}_sae_over_length"] = sae["over_length"].max()  # type: ignore[assignment]
    return found


def _hygiene(column: str) -> Callable[[pl.DataFrame], Numbers]:
    return lambda rows: {f"n_{column}": rows["prompt_id"].n_unique()}


def _batch_manifest(rows: pl.DataFrame) -> Numbers:
    return {
        "n_arms": rows["arm"].n_unique(),
        "n_epochs": rows["epoch"].n_unique(),
        "n_steps": rows.select("epoch", "step").n_unique(),
        "n_prompts_in_order": rows["prompt_id"].n_unique(),
    }


def _deferred(rows: pl.DataFrame) -> Numbers:
    counts = rows.unique(["prompt_id", "reason_code"])["reason_code"].value_counts()
    return {f"n_{code}": n for code, n in counts.sort("reason_code").iter_rows()}


def _batch_metrics(rows: pl.DataFrame) -> Numbers:
    """By planner arm; controls are in the table."""
    found: Numbers = {}
    for (arm,), batches in rows.filter(pl.col("arm").is_in(["clustered", "balanced"])).group_by("arm"):
        found[f"cluster_entropy_{arm}"] = _mean(batches, "cluster_entropy")
        found[f"feature_overlap_{arm}"] = _mean(batches, "feature_overlap")
        found[f"mean_quality_{arm}"] = _mean(batches, "mean_quality")
    return dict(sorted(found.items()))


def _artifacts(rows: pl.DataFrame) -> Numbers:
    return {"n_bytes": int(rows["n_bytes"].sum()), "n_broken": _count(rows, ~pl.col("intact"))}


SERIES: dict[str, Callable[[pl.DataFrame], Numbers]] = {
    "prompts": _prompts,
    "labels": _labels,
    "sae_health": _sae_health,
    "feature_density": _feature_density,
    "clusters": _clusters,
    "cluster_assignments": lambda rows: {"mean_similarity": _mean(rows, "similarity")},
    "cluster_quality": _measures,
    "cluster_drift": _cluster_drift,
    "version_drift": _measures,
    "near_duplicates": _hygiene("near_duplicates"),
    "contamination": _hygiene("contaminated"),
    "signal_evidence": _signal_evidence,
    "difficulty_proxy": _difficulty_proxy,
    "difficulty_scores": _difficulty_scores,
    "quality_probe": _quality_probe,
    "quality_scores": _quality_scores,
    "batch_manifest": _batch_manifest,
    "deferred_prompts": _deferred,
    "batch_metrics": _batch_metrics,
    "trainer_exports": lambda rows: {"n_exported_rows": int(rows["n_rows"].sum())},
    "artifacts": _artifacts,
    "version_report": lambda rows: {"n_bytes": int(rows["n_bytes"].sum())},
}
"""By table the numbers that are followed over versions."""
