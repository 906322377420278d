"""Checks of `version_drift`.

Belongs here: whether a version is still near its parent. Does not belong here: how far is too far, which the spec says.
"""

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict


@dg.asset_check(asset="version_drift")
def near_the_parent(version_drift: pl.DataFrame) -> dg.AssetCheckResult:
    """No measure of drift is beyond its limit; a sensor on this check can act where one is."""
    drifted = version_drift.filter(verdict="drifted")
    measured = version_drift.drop_nulls("value")
    figures = dict(measured.select("measure", "value").iter_rows())
    fine = "Every measure is within its limit." if measured.height else " ".join(version_drift["explanation"].head(1))
    return verdict(drifted["explanation"].to_list(), fine, figures, severity=dg.AssetCheckSeverity.WARN)
