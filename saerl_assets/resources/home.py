"""The resource `home`: where everything is kept.

Belongs here: turning a configured folder into the home, its warehouse, catalog and artefacts. Does not belong here:
what assets do with them.
"""

from collections.abc import Callable

import dagster as dg

from saerl_assets.resources.run_process import tag_run
from saerl_assets.storage.artifacts import ArtifactStore
from saerl_assets.storage.catalog import Catalog, Version
from saerl_assets.storage.home import Home, find_home
from saerl_assets.storage.warehouse import Warehouse


class HomeResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The project's home directory and the warehouse in it."""

    root: str = ""
    """Folder of the home; empty for SAERL_HOME, else the nearest `.saerl` upwards from the working directory."""
    warehouse_file: str = ""
    """The DuckDB file; empty for `warehouse.duckdb` in the home."""
    lake: str = ""
    """A lake in place of a file: `ducklake:postgres:dbname=... host=... user=...`, without a password."""
    data_path: str = ""
    """Where the lake's files are: a folder or `s3://bucket/prefix`; empty for where the lake says that they are."""
    bucket: str = ""
    """URL below which SAEs, probes and unfinished shards are kept too, for other machines; empty for SAERL_BUCKET, else
    nowhere."""

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Notes in the run which process it lives in, so that a dead one can be told from a slow one."""
        tag_run(context)

    def open(self) -> Home:
        """The home, made where it is missing."""
        return find_home(
            self.root or None, self.lake or self.warehouse_file or None, self.data_path, self.bucket
        ).create()

    def warehouse(self, notify: Callable[[str], None] | None = None) -> Warehouse:
        """The warehouse; `notify` is told for whom it waits."""
        return Warehouse(self.open(), notify) if notify else Warehouse(self.open())

    def artifacts(self) -> ArtifactStore:
        """The artefacts of the home."""
        return ArtifactStore(self.open())

    def catalog(self) -> Catalog:
        """The versions of the warehouse."""
        return Catalog(self.warehouse())

    def version(self, dataset_version: str) -> Version:
        """The registered version that a partition key names."""
        return self.catalog().get(dataset_version)
