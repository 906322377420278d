"""Assets `quality_probe` and `quality_scores`: quality.

Belongs here: training and applying a version's probe, keeping its weights. Does not belong here: how it is trained.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import numpy as np
import polars as pl
from safetensors.numpy import load_file, save_file

from saerl_assets.assets.rooms import table_asset
from saerl_assets.domain.features import FeatureSet
from saerl_assets.domain.predictors import PooledFeatures
from saerl_assets.domain.quality import Probe, ProbeResult, score_quality, train_probe
from saerl_assets.report.quality import figure_quality_probe, figure_quality_scores
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture

WEIGHTS_FILE = "probe.safetensors"


@table_asset("signals", "scikitlearn")
def quality_probe(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    prompt_features: FeatureSet,
    prompts: pl.DataFrame,
    labels: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row per probe and set of rows: how well SAE features predict a correct outcome, on prompts not trained on.

    Without outcomes nothing is trained, and the explanation says how to supply them.
    """
    spec = home.version(context.partition_key).spec
    pooling = spec.quality.pooling
    predictor = PooledFeatures(prompt_features, pooling, f"sae_{pooling}")
    result = train_probe(predictor, prompts, labels, spec.quality, spec.seed)
    metrics = result.metrics
    if result.probe is not None:
        with TemporaryDirectory() as folder:
            weights: dict[str, np.ndarray] = {
                "coefficients": result.probe.coefficients,
                "intercept": np.array([result.probe.intercept], dtype=np.float64),
            }
            save_file(weights, Path(folder) / WEIGHTS_FILE)
            digest, path = home.artifacts().put("probe", Path(folder))
        metrics = metrics.with_columns(digest=pl.lit(digest), path=pl.lit(path))
    return dg.MaterializeResult(
        value=metrics,
        metadata={
            "explanation": "; ".join(metrics["explanation"].unique(maintain_order=True)),
            "figure": picture(figure_quality_probe(metrics, min_auroc=spec.quality.min_auroc), "probe accuracy"),
        },
    )


@table_asset("signals", "scikitlearn")
def quality_scores(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    prompt_features: FeatureSet,
    prompts: pl.DataFrame,
    quality_probe: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row per prompt: the predicted probability of a correct outcome, and whether the prompt is kept."""
    spec = home.version(context.partition_key).spec.quality
    predictor = PooledFeatures(prompt_features, spec.pooling, f"sae_{spec.pooling}")
    scores = score_quality(predictor, prompts, _trained(home, quality_probe), spec)
    return dg.MaterializeResult(
        value=scores,
        metadata={
            "n_dropped": int((~scores["kept"]).sum()),
            "figure": picture(figure_quality_scores(scores), "quality with the cut"),
        },
    )


def _trained(home: HomeResource, metrics: pl.DataFrame) -> ProbeResult:
    """The probe that the metrics name, read back from its file."""
    digests = metrics["digest"].drop_nulls()
    if digests.is_empty():
        return ProbeResult(None, metrics)
    weights = load_file(home.artifacts().find("probe", digests[0]) / WEIGHTS_FILE)
    return ProbeResult(Probe(weights["coefficients"], float(weights["intercept"][0])), metrics)
