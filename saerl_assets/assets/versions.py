"""Asset `versions`: the root of the graph.

Belongs here: checking that what was registered is still what is there. Does not belong here: registering.
"""

import dagster as dg

from saerl_assets.assets.rooms import table_asset
from saerl_assets.report.versions import figure_versions
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture, preview


@table_asset("data", "toml")
def versions(context: dg.AssetExecutionContext, home: HomeResource) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """One row per dataset version: its spec and what the names in it stood for.

    Registering writes the row; materialising it checks that the source files still have the bytes that they were
    registered with, so that nothing downstream is computed from other data.
    """
    version = home.version(context.partition_key)
    home.catalog().verify_sources(version)
    warehouse = home.warehouse(context.log.warning)
    row = warehouse.rows("versions", dataset_version=version.key)
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": row.height,
            "preview": preview(row),
            "figure": picture(figure_versions(version.spec), "what the spec chose"),
            "spec_digest": version.digest,
            "replan": version.spec.batches.replan,  # automation reads it here
            "sources": {name: vars(source) for name, source in version.sources.items()},
        }
    )
