"""Checks of `trainer_exports`.

Belongs here: that the files on disk hold the manifest's order. Does not belong here: formats.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict
from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.home import HomeResource
from saerl_assets.trainers.export import check_export, order_digest, whole_batches


@dg.asset_check(asset="trainer_exports", additional_ins={"batch_manifest": dg.AssetIn("batch_manifest")}, blocking=True)
def exports_keep_the_order(
    home: HomeResource, trainer_exports: pl.DataFrame, batch_manifest: pl.DataFrame
) -> dg.AssetCheckResult:
    """The files hold the prompts in the manifest's order, to the last row."""
    root = home.open().root
    problems = []
    for row in trainer_exports.iter_rows(named=True):
        try:
            found = check_export(root / row["path"], manifest_id=row["manifest_id"])
        except SaerlError as error:
            problems.append(f"{row['trainer']}: {error}")
            continue
        wanted = whole_batches(batch_manifest.filter(pl.col("arm") == row["arm"]), found.batch_size)
        if found.order_digest != order_digest(wanted["prompt_id"]):
            problems.append(f"{row['trainer']}: the file's order is not the manifest's.")
    return verdict(problems, "Every export holds the manifest's order.", {"n_exports": trainer_exports.height})
