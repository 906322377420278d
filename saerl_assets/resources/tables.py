"""The I/O manager: an asset's value is the rows of the table that it is named after.

Belongs here: frames and shards into tables, rows and feature handles out of them. Does not belong here: DDL and
transactions, which are the warehouse's.
"""

from collections.abc import Callable
from typing import Any

import dagster as dg
import polars as pl

from saerl_assets.domain.features import FeatureSet
from saerl_assets.placement import told_plainly
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import PREVIEW_ROWS, preview
from saerl_assets.resources.series import numbers_of
from saerl_assets.storage.catalog import make_current
from saerl_assets.storage.feature_store import EncodedLayer, WarehouseFeatures
from saerl_assets.storage.schema import Table, tables
from saerl_assets.storage.shards import ShardFiles


class WarehouseTables(dg.ConfigurableIOManager):
    """Stores each asset in the DuckDB table of its name: one version, one transaction."""

    home: dg.ResourceDependency[HomeResource]

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Writes a frame, or loads finished shards, and describes the table in the asset's metadata."""
        with told_plainly():
            self._store(context, obj)

    def load_input(self, context: dg.InputContext) -> Any:  # noqa: ANN401 - a frame, or a handle where one is asked for
        """The version's rows; of a manifest's tables those of the current one; of the features a handle.

        An asset of another project that has no partitions, or others, gets them by version.
        """
        with told_plainly():
            name, versions = context.asset_key.path[-1], context.asset_partition_keys
            if context.has_partition_key and context.partition_key in versions:  # a check is given all of them
                return self._rows(context, name, context.partition_key)
            return {version: self._rows(context, name, version) for version in versions}

    def _store(self, context: dg.OutputContext, obj: object) -> None:
        table = tables()[context.asset_key.path[-1]]
        warehouse = self.home.warehouse(context.log.warning)
        if isinstance(obj, ShardFiles):
            added = warehouse.store_shards(obj.table, obj.files, f"{context.partition_key} {obj.table}")
            context.log.info(f"{table.name}: {added:,} rows added, {obj.n_reused:,} were there before.")
            context.add_output_metadata(
                {
                    "dagster/row_count": obj.n_rows,
                    "preview": preview(warehouse.head(table.name, PREVIEW_ROWS)),
                    "rows_added": added,
                    "rows_reused": obj.n_reused,
                    **_describe(table),
                }
            )
            return
        if not isinstance(obj, pl.DataFrame):
            message = f"{table.name}: an asset's value is a polars frame or finished shards, not {type(obj).__name__}"
            raise TypeError(message)
        # A new manifest becomes the current one in the transaction that stores it: no kill can come between.
        then = _make_current(obj, context.partition_key) if table.name == "manifests" else None
        warehouse.store(table.name, obj, context.partition_key, then=then)
        context.log.info(f"{table.name}: {obj.height:,} rows.")
        context.add_output_metadata(
            {
                "dagster/row_count": obj.height,
                "preview": preview(obj),
                **numbers_of(table.name, obj),
                **_describe(table),
            }
        )

    def _rows(self, context: dg.InputContext, name: str, version: str) -> Any:  # noqa: ANN401 - as load_input
        warehouse = self.home.warehouse(context.log.warning if context.log else None)
        if name == "prompt_features":
            return feature_set(self.home, version)
        if "manifest_id" in tables()[name].key:
            current = self.home.version(version).current_manifest_id
            return warehouse.rows(name, manifest_id=current or "")
        return warehouse.rows(name, dataset_version=version)


def feature_set(home: HomeResource, dataset_version: str, table: str = "sae_weights") -> FeatureSet:
    """A handle on the features of a version, as the encoders of `sae_weights` or of `control_saes` see it."""
    warehouse = home.warehouse()
    weights = warehouse.rows(
        table, ["layer", "encoder_id", "feature_offset", "n_latents"], dataset_version=dataset_version
    )
    layers = [
        EncodedLayer(row["encoder_id"], row["feature_offset"], row["n_latents"])
        for row in weights.sort("layer").iter_rows(named=True)
    ]
    prompts = warehouse.rows("prompts", ["prompt_id", "text_id"], dataset_version=dataset_version)
    return WarehouseFeatures(warehouse, prompts, layers)


def _make_current(manifests: pl.DataFrame, key: str) -> Callable[[Any], None]:
    return lambda connection: make_current(connection, key, str(manifests["manifest_id"][0]))


def _describe(table: Table) -> dict[str, Any]:
    """Name, grain and columns of the table, as the UI shows them."""
    columns = [
        dg.TableColumn(
            column.name,
            column.type,
            description=column.comment or None,
            constraints=dg.TableColumnConstraints(nullable=column.nullable),
        )
        for column in table.columns
    ]
    return {"dagster/table_name": table.name, "dagster/column_schema": dg.TableSchema(columns=columns)}
