"""Asset `trainer_exports`: the current manifest as files that trainers read.

Belongs here: joining the order with the prompts and writing every format that the spec asks for. Does not belong here:
the formats.
"""

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import table_asset
from saerl_assets.domain.manifests import verify_manifest
from saerl_assets.report.exports import figure_trainer_exports
from saerl_assets.resources.exports import export_arm
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture


@table_asset("batches", "parquet")
def trainer_exports(
    context: dg.AssetExecutionContext,
    home: HomeResource,
    batch_manifest: pl.DataFrame,
    deferred_prompts: pl.DataFrame,
    prompts: pl.DataFrame,
    preference_pairs: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row per trainer: the folder with the data in the exact order, the settings that keep it, and its traps."""
    version = home.version(context.partition_key)
    verify_manifest(batch_manifest, deferred_prompts, key=version.key)
    rows = pl.DataFrame(
        [
            export_arm(home, version, batch_manifest, prompts, preference_pairs, trainer, version.spec.batches.planner)
            for trainer in version.spec.exports.trainers
        ]
    )
    return dg.MaterializeResult(
        value=rows,
        metadata={
            "folders": [str(home.open().root / path) for path in rows["path"]],
            "figure": picture(figure_trainer_exports(rows), "rows per export"),
        },
    )
