"""Asset `control_signals`: what control arms are planned on in place of what the SAE says.

Belongs here: gathering what they are made from. Does not belong here: how they are made, and the arms.
"""

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import table_asset
from saerl_assets.domain.control_signals import columns_planned_on, derive_control_signals
from saerl_assets.domain.features import FeatureSet
from saerl_assets.report.control_signals import figure_control_signals
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture
from saerl_assets.resources.predictors import version_states


@table_asset("signals", "scikitlearn", deps=["prompt_states", "sae_weights"])
def control_signals(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    prompts: pl.DataFrame,
    labels: pl.DataFrame,
    prompt_features: FeatureSet,
    cluster_assignments: pl.DataFrame,
    difficulty_scores: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row per prompt: what two controls are planned on in place of the SAE; none where the spec names neither.

    `dense_state` is planned on clusters and a difficulty of the dense hidden states, made as the SAE's are;
    `true_difficulty` on the label itself where it is known.
    """
    spec = home.version(context.partition_key).spec
    is_dense = "dense_difficulty" in columns_planned_on(spec.batches.controls)
    states = version_states(home, spec.key, prompts)["dense_mean"] if is_dense else None
    found = derive_control_signals(
        prompt_features, prompts, labels, cluster_assignments, difficulty_scores, spec, states
    )
    figure = figure_control_signals(found.signals, cluster_assignments, difficulty_scores)
    return dg.MaterializeResult(
        value=found.signals, metadata={**found.facts, "figure": picture(figure, "signals of controls by the version's")}
    )
