"""Assets `signal_evidence`, `evidence_curve`, `evidence_verdicts`: what the signals are worth on the version's labels.

Also `sentence_embeddings`, which are weighed there and which nothing else needs. Belongs here: gathering predictors and
labels. Does not belong here: measuring.
"""

from collections.abc import Iterator

import dagster as dg
import numpy as np
import polars as pl

from saerl_assets.assets.rooms import GPU_POOL, outs
from saerl_assets.domain.evidence import weigh_evidence
from saerl_assets.domain.features import FeatureSet
from saerl_assets.domain.label_values import LabelValues
from saerl_assets.domain.questions import question_ids
from saerl_assets.domain.supervision import supervise
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.report.evidence import (
    figure_evidence_curve,
    figure_evidence_verdicts,
    figure_sentence_embeddings,
    figure_signal_evidence,
)
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture
from saerl_assets.resources.predictors import version_predictors
from saerl_assets.resources.progress import progress_lines
from saerl_assets.resources.sentences import embed_prompts
from saerl_assets.storage.shards import ShardFiles


@dg.multi_asset(
    name="sentences",
    outs=outs("features", {"sentence_embeddings": ("torch",)}, value=ShardFiles),
    partitions_def=DATASET_VERSIONS,
    pool=GPU_POOL,
)
def sentences(
    context: dg.AssetExecutionContext, home: HomeResource, compute: ComputeResource, prompts: pl.DataFrame
) -> Iterator[dg.MaterializeResult[ShardFiles]]:
    """One pass of the sentence encoder that the spec names over the texts that it has not read yet; none by default."""
    progress = progress_lines(context.log.info, "sentences")
    done = embed_prompts(home, compute, context.partition_key, prompts, progress)
    yield dg.MaterializeResult(
        asset_key="sentence_embeddings",
        value=done.files,
        metadata={
            "encoder": done.words,
            "texts_read": done.n_read,
            "figure": picture(figure_sentence_embeddings(done.n_read, done.files.n_rows, done.words), "texts read"),
        },
    )
    done.remove()


@dg.multi_asset(
    name="evidence",
    outs=outs(
        "signals",
        {
            "signal_evidence": ("scikitlearn",),
            "evidence_curve": ("scikitlearn",),
            "evidence_verdicts": ("scikitlearn",),
        },
    ),
    deps=["prompt_states", "control_saes", "sentence_embeddings"],
    partitions_def=DATASET_VERSIONS,
)
def evidence(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    prompt_features: FeatureSet,
    prompts: pl.DataFrame,
    labels: pl.DataFrame,
) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
    """SAE features against length, words, dense states and a random SAE, on every label of the version."""
    spec = home.version(context.partition_key).spec
    known = _labels(prompts, labels, spec.seed)
    predictors = version_predictors(home, spec.key, prompts, prompt_features) if known else {}
    found = weigh_evidence(
        predictors,
        known,
        question_ids(prompts),
        prompts["n_tokens"].to_numpy().astype(np.float64),
        spec.evidence,
        spec.seed,
        progress_lines(context.log.info, "evidence"),
    )
    yield dg.MaterializeResult(
        asset_key="signal_evidence",
        value=found.signals,
        metadata={"figure": picture(figure_signal_evidence(found.signals), "what each signal is worth")},
    )
    yield dg.MaterializeResult(
        asset_key="evidence_curve",
        value=found.curve,
        metadata={"figure": picture(figure_evidence_curve(found.curve), "what more labels add")},
    )
    yield dg.MaterializeResult(
        asset_key="evidence_verdicts",
        value=found.verdicts,
        metadata={
            **{row["label"]: row["explanation"] for row in found.verdicts.to_dicts()},
            "figure": picture(figure_evidence_verdicts(found.verdicts), "verdicts"),
        },
    )


def _labels(prompts: pl.DataFrame, labels: pl.DataFrame, seed: int) -> list[LabelValues]:
    """Every label of the version and, where prompts have one, their topic; training prompts alone."""
    named = [
        supervise(prompts, labels, name, limit=None, seed=seed) for name in sorted(labels["label"].unique().to_list())
    ]
    found = [LabelValues(label.label, label.rows, label.values.tolist()) for label in named]
    is_known = (prompts["split"] == "train") & prompts["topic"].is_not_null()
    rows = np.flatnonzero(is_known.to_numpy())
    if len(rows) and "topic" not in {label.name for label in found}:
        found.append(LabelValues("topic", rows, prompts["topic"].gather(rows).to_list()))
    return found
