"""Assets `quality_probe`, `probe_calibration` and `quality_scores`: quality.

Belongs here: training and applying a version's probe, keeping its weights. Does not belong here: how it is trained.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import polars as pl
from safetensors.numpy import load_file, save_file

from saerl_assets.assets.rooms import outs, table_asset
from saerl_assets.domain.features import FeatureSet
from saerl_assets.domain.probes import Probe, from_arrays, to_arrays
from saerl_assets.domain.quality import ProbeResult, train_probe
from saerl_assets.domain.quality_filter import score_quality
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.report.quality import figure_probe_calibration, figure_quality_probe, figure_quality_scores
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture
from saerl_assets.resources.predictors import chosen_predictor, encoders_behind, named_predictor

WEIGHTS_FILE, FACTS_FILE = "probe.safetensors", "probe.json"


@dg.multi_asset(
    name="probe",
    outs=outs("signals", {"quality_probe": ("scikitlearn",), "probe_calibration": ("scikitlearn",)}),
    deps=["sae_weights", "control_saes"],
    partitions_def=DATASET_VERSIONS,
)
def probe(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    prompt_features: FeatureSet,
    prompts: pl.DataFrame,
    labels: pl.DataFrame,
    signal_evidence: pl.DataFrame,
) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
    """How well a probe predicts a correct outcome, and how far its probabilities hold, on prompts not trained on.

    Without outcomes nothing is trained, and the explanation says how to supply them.
    """
    spec = home.version(context.partition_key).spec
    learned = chosen_predictor(home, spec.key, prompts, prompt_features, signal_evidence, "quality")
    predictor = learned.predictor
    is_named = spec.quality.label in spec.labels
    result = train_probe(predictor, prompts, labels, spec.quality, spec.seed, is_named=is_named)
    metrics = result.metrics
    if result.probe is not None:
        digest, path = _keep(home, result.probe)
        encoders = encoders_behind(home, spec.key, predictor.name)
        metrics = metrics.with_columns(
            digest=pl.lit(digest), path=pl.lit(path), encoders=pl.lit(encoders, dtype=pl.String)
        )
    yield dg.MaterializeResult(
        asset_key="quality_probe",
        value=metrics,
        metadata={
            "explanation": "; ".join(metrics["explanation"].unique(maintain_order=True)),
            "learned_from": f"{predictor.name}. {learned.words}".strip(),
            "figure": picture(figure_quality_probe(metrics, min_auroc=spec.quality.min_auroc), "probe accuracy"),
        },
    )
    yield dg.MaterializeResult(
        asset_key="probe_calibration",
        value=result.curve,
        metadata={"figure": picture(figure_probe_calibration(result.curve), "predicted and observed shares")},
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
    spec = home.version(context.partition_key).spec
    # the one that the probe learned from, whatever would be chosen by now
    predictor = named_predictor(home, spec.key, prompts, prompt_features, quality_probe["predictor"][0])
    scores = score_quality(predictor, prompts, _trained(home, quality_probe), spec.quality)
    return dg.MaterializeResult(
        value=scores,
        metadata={
            "n_dropped": int((~scores["kept"]).sum()),
            "figure": picture(figure_quality_scores(scores), "quality with the cut"),
        },
    )


def _keep(home: HomeResource, trained: Probe) -> tuple[str, str]:
    """Writes the probe's files; their digest and path."""
    arrays, facts = to_arrays(trained)
    with TemporaryDirectory() as folder:
        save_file(arrays, Path(folder) / WEIGHTS_FILE)
        (Path(folder) / FACTS_FILE).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        return home.artifacts().put("probe", Path(folder))


def _trained(home: HomeResource, metrics: pl.DataFrame) -> ProbeResult:
    """The probe that the metrics name, read back from its files."""
    digests = metrics["digest"].drop_nulls()
    if digests.is_empty():
        return ProbeResult(None, metrics)
    folder = home.artifacts().find("probe", digests[0])
    facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    return ProbeResult(from_arrays(load_file(folder / WEIGHTS_FILE), facts), metrics)
