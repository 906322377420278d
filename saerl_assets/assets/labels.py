"""Asset `labels`: observations folded into one value per prompt and label.

Belongs here: the fold up to now. Does not belong here: taking observations up.

It waits for `outcomes`, which adds the policy's own answers to the observations where the spec asks for them.
"""

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import table_asset
from saerl_assets.domain.labels import fold_labels
from saerl_assets.report.prompts import figure_labels
from saerl_assets.resources.metadata import picture


@table_asset("data", "polars", deps=["outcomes"])
def labels(label_observations: pl.DataFrame) -> dg.MaterializeResult[pl.DataFrame]:
    """One row per prompt and label: the mean of its observations, their number, and how far they disagree."""
    folded = fold_labels(label_observations)
    return dg.MaterializeResult(
        value=folded,
        metadata={
            "n_conflicting": int((folded["spread"] > 0).sum()),
            "figure": picture(figure_labels(folded), "labels"),
        },
    )
