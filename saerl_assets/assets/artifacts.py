"""Asset `artifacts`: what a version made that is not a table, held against the digest recorded when it was made.

Belongs here: gathering what the other tables name. Does not belong here: making any of it.
"""

import dagster as dg
import polars as pl

from saerl_assets.assets.rooms import table_asset
from saerl_assets.disk import folder_digest, size_bytes
from saerl_assets.domain.errors import SaerlError
from saerl_assets.report.exports import figure_artifacts
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.metadata import picture
from saerl_assets.storage.artifacts import GONE


@table_asset("records")
def artifacts(
    home: HomeResource,
    sae_weights: pl.DataFrame,
    clusters: pl.DataFrame,
    quality_probe: pl.DataFrame,
    trainer_exports: pl.DataFrame,
) -> dg.MaterializeResult[pl.DataFrame]:
    """One row per artefact: SAEs, centroids, probe and trainer exports, with their digests verified on disk."""
    root, kept = home.open().root, home.artifacts()
    named = [
        *(("sae", f"layer {layer}", digest, path, "sae_weights") for layer, digest, path in _of(sae_weights, "layer")),
        *(("centroids", "k-means", digest, path, "clusters") for digest, path in _centroids(clusters)),
        *(("probe", probe, digest, path, "quality_probe") for probe, digest, path in _of(quality_probe, "probe")),
        *(
            ("export", f"{trainer} {arm}", digest, path, "trainer_exports")
            for trainer, arm, digest, path in trainer_exports.select("trainer", "arm", "digest", "path").iter_rows()
        ),
    ]
    for kind, _, digest, _, made_by in named:
        if made_by != "trainer_exports":
            try:
                kept.find(kind, digest)
            except SaerlError as error:  # what is gone or damaged is told below, as not intact
                if error.code not in GONE:
                    raise
    rows = pl.DataFrame(
        [
            {
                "kind": kind,
                "name": name,
                "digest": digest,
                "path": path,
                "n_bytes": size_bytes(root / path) if (root / path).exists() else 0,
                "made_by": made_by,
                "intact": (root / path).exists() and folder_digest(root / path) == digest,
            }
            for kind, name, digest, path, made_by in named
        ]
    )
    return dg.MaterializeResult(value=rows, metadata={"figure": picture(figure_artifacts(rows), "bytes by artefact")})


def _of(frame: pl.DataFrame, name: str) -> list[tuple[str, str, str]]:
    rows = frame.filter(pl.col("digest").is_not_null()).select(pl.col(name).cast(pl.String), "digest", "path")
    return rows.unique(maintain_order=True).rows()


def _centroids(clusters: pl.DataFrame) -> list[tuple[str, str]]:
    return clusters.select("centroids_digest", "centroids_path").unique(maintain_order=True).rows()
