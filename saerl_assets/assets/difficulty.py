"""Assets `difficulty_scores` and `difficulty_proxy`: difficulty.

Belongs here: scoring a version's prompts. Does not belong here: how the proxy is learned.
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import outs
from saerl_assets.domain.difficulty import score_difficulty
from saerl_assets.domain.features import FeatureSet
from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.report.difficulty import figure_difficulty_proxy, figure_difficulty_scores
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture
from saerl_assets.resources.predictors import chosen_predictor


@dg.multi_asset(
    name="difficulty",
    outs=outs("signals", {"difficulty_proxy": ("scikitlearn",), "difficulty_scores": ("scikitlearn",)}),
    partitions_def=DATASET_VERSIONS,
)
def difficulty(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    prompt_features: FeatureSet,
    prompts: pl.DataFrame,
    labels: pl.DataFrame,
    signal_evidence: pl.DataFrame,
) -> Iterator[dg.MaterializeResult[pl.DataFrame]]:
    """Count, magnitude and a proxy learned from labels: how hard each prompt is, and how far that can be trusted."""
    spec = home.version(context.partition_key).spec
    learned = chosen_predictor(home, spec.key, prompts, prompt_features, signal_evidence, "difficulty")
    result = score_difficulty(
        prompt_features,
        prompts,
        labels,
        spec.difficulty,
        spec.seed,
        predictor=learned.predictor,
        chosen=learned.words,
        is_named=spec.difficulty.label in spec.labels,
    )
    yield dg.MaterializeResult(
        asset_key="difficulty_proxy",
        value=result.metrics,
        metadata={
            "learned_from": f"{learned.predictor.name}. {learned.words}".strip(),
            "figure": picture(figure_difficulty_proxy(result.metrics), "rank correlation by score"),
        },
    )
    yield dg.MaterializeResult(
        asset_key="difficulty_scores",
        value=result.scores,
        metadata={
            "score_in_use": result.scores["score_name"][0] if result.scores.height else "none",
            "figure": picture(
                figure_difficulty_scores(result.scores, prompts, labels, label_name=spec.difficulty.label),
                "difficulty",
            ),
        },
    )
