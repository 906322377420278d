"""The rooms of the graph: what every asset of a group has in common.

Belongs here: groups, owners, kinds and how an output of a table is declared. Does not belong here: assets.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import polars as pl

from saerl_assets.partitions import DATASET_VERSIONS
from saerl_assets.storage.schema import tables

GPU_POOL = "gpu"
"""Pool of the assets that read a model; `dagster.yaml` gives it one slot."""

OWNERS = {
    "data": "team:data-platform",
    "features": "team:interpretability",
    "signals": "team:research",
    "batches": "team:rl",
    "records": "team:data-platform",
}


def room(group: str, *kinds: str, pool: str | None = None) -> dict[str, Any]:
    """Arguments of `@dg.asset` that all assets of a group share."""
    return {
        "group_name": group,
        "owners": [OWNERS[group]],
        "kinds": {"duckdb", *kinds},
        "partitions_def": DATASET_VERSIONS,
        "code_version": "1",
        **({"pool": pool} if pool else {}),
    }


def outs(group: str, kinds: Mapping[str, tuple[str, ...]], value: type = pl.DataFrame) -> dict[str, dg.AssetOut]:
    """Outputs of `@dg.multi_asset`: one asset per table, described by the table's own grain and columns."""
    return {
        name: dg.AssetOut(
            dagster_type=value,
            description=describe(name),
            group_name=group,
            owners=[OWNERS[group]],
            kinds={"duckdb", *extra},
            code_version="1",
            is_required=True,
        )
        for name, extra in kinds.items()
    }


def describe(name: str) -> str:
    """The table's grain, then its columns that say more than their name."""
    table = tables()[name]
    lines = [f"- `{column.name}`: {column.comment}" for column in table.columns if column.comment]
    return "\n".join([table.grain, "", *lines])
