"""Checks of `prompts` and `rejected_rows`.

Belongs here: that no source row is lost. Does not belong here: judging single rows, which the intake does.
"""

from itertools import islice

import dagster as dg
import polars as pl

from saerl_assets.checks.verdict import verdict
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.sources import read_source


@dg.asset_check(asset="prompts", additional_ins={"rejected_rows": dg.AssetIn("rejected_rows")}, blocking=True)
def no_row_lost(
    context: dg.AssetCheckExecutionContext,
    home: HomeResource,
    prompts: pl.DataFrame,
    rejected_rows: pl.DataFrame,
) -> dg.AssetCheckResult:
    """Every row of the source is in exactly one prompt or in `rejected_rows`."""
    version = home.version(context.run.tags["dagster/partition"])
    n_source = sum(1 for _ in islice(read_source(version.sources["data"]), version.spec.data.limit))
    return rows_add_up(n_source, prompts, rejected_rows)


def rows_add_up(n_source: int, prompts: pl.DataFrame, rejected: pl.DataFrame) -> dg.AssetCheckResult:
    """Source rows against the rows that prompts stand for and those that were rejected."""
    n_taken, n_rejected = int(prompts["n_rows"].sum()), rejected.height
    lost = n_source - n_taken - n_rejected
    return verdict(
        [f"{abs(lost)} rows are {'missing' if lost > 0 else 'counted twice'}."] if lost else [],
        "Every row is accounted for.",
        {"source_rows": n_source, "rows_in_prompts": n_taken, "rejected_rows": n_rejected},
    )


@dg.asset_check(asset="prompts")
def both_splits_as_asked(
    context: dg.AssetCheckExecutionContext, home: HomeResource, prompts: pl.DataFrame
) -> dg.AssetCheckResult:
    """There are prompts to train on, and prompts set apart if the spec asks for them."""
    split = home.version(context.run.tags["dagster/partition"]).spec.split
    return splits_present(prompts, wants_evaluation=split.column is not None or split.evaluation_fraction > 0)


def splits_present(prompts: pl.DataFrame, *, wants_evaluation: bool) -> dg.AssetCheckResult:
    """Which splits have prompts."""
    counts = dict(prompts["split"].value_counts().iter_rows())
    problems = [] if counts.get("train") else ["No prompt is left to train on."]
    if wants_evaluation and not counts.get("evaluation"):
        problems.append("The spec sets prompts apart for evaluation, but none is.")
    return verdict(problems, "The splits are as the spec asks.", {name: int(n) for name, n in counts.items()})
