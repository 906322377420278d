"""Checks of `artifacts`.

Belongs here: that nothing on disk has changed. Does not belong here: making it again.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict


@dg.asset_check(asset="artifacts")
def all_intact(artifacts: pl.DataFrame) -> dg.AssetCheckResult:
    """Every artefact still has the bytes that it was made with."""
    broken = artifacts.filter(~pl.col("intact"))
    return verdict(
        [
            f"{kind} {name} at {path} has changed or is gone; materialise {made_by} again."
            for kind, name, path, made_by in broken.select("kind", "name", "path", "made_by").iter_rows()
        ],
        f"All {artifacts.height} artefacts are intact.",
        {"n_bytes": int(artifacts["n_bytes"].sum() or 0)},
    )
