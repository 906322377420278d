"""Writing one arm of a manifest for one trainer, for the asset and for the command line alike.

Belongs here: which rows and digests go into an export and where its folder lies. Does not belong here: formats.
"""

from pathlib import Path

import polars as pl

from saerl_assets.disk import folder_digest
from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.catalog import Version
from saerl_assets.trainers.export import TRAINERS, write_export
from saerl_assets.trainers.formats import ExportRequest


def export_arm(
    home: HomeResource,
    version: Version,
    batch_manifest: pl.DataFrame,
    prompts: pl.DataFrame,
    preference_pairs: pl.DataFrame,
    trainer: str,
    arm: str,
    folder: Path | None = None,
) -> dict[str, object]:
    """Writes one arm for one trainer; returns its row of `trainer_exports`.

    Args:
        home: The home whose `exports/` takes the folder.
        version: The version.
        batch_manifest: Rows of one manifest, all arms.
        prompts: Rows of the version.
        preference_pairs: Rows of the version.
        trainer: Name of the trainer.
        arm: The arm to write.
        folder: Where to write it instead.

    Raises:
        SaerlError: `unknown_arm`, or what the trainer's format cannot take.
    """
    arms = batch_manifest["arm"].unique().sort().to_list()
    if arm not in arms:
        remedy = f"Arms of this manifest: {', '.join(arms) or 'none; materialise batch_manifest first'}."
        raise SaerlError("unknown_arm", f"There is no arm {arm!r}.", remedy=remedy)
    manifest_id = str(batch_manifest["manifest_id"][0])
    rows = (
        batch_manifest.filter(pl.col("arm") == arm)
        .sort("epoch", "step", "slot")
        .join(
            prompts.select("prompt_id", "messages", "is_chat", "answer", "topic", "extra"),
            on="prompt_id",
            how="left",
            maintain_order="left",
        )
    )
    digests = {f"source.{name}": source.digest for name, source in version.sources.items()}
    weights = home.warehouse().rows("sae_weights", ["layer", "digest", "reader_digest"], dataset_version=version.key)
    for layer, sae_digest, reader_digest in weights.iter_rows():
        digests |= {f"sae.layer{layer}": sae_digest, "reader": reader_digest}
    request = ExportRequest(
        rows=rows,
        manifest_id=manifest_id,
        key=version.key,
        arm=arm,
        batch_size=version.spec.batches.batch_size,
        spec_digest=version.digest,
        digests=digests,
        spec=version.spec.model_dump(mode="json"),
        pairs=preference_pairs,
    )
    root = home.open()
    target = folder or root.exports / manifest_id[:16] / arm / trainer
    written = write_export(trainer, request, target)
    return {
        "manifest_id": manifest_id,
        "trainer": trainer,
        "arm": arm,
        "path": root.relative(target) if target.is_relative_to(root.root) else str(target),
        "n_rows": written.n_rows,
        "n_steps": written.n_steps,
        "order_digest": written.order_digest,
        "digest": folder_digest(target),
    }


def exported_settings(home: HomeResource, exports: pl.DataFrame) -> pl.DataFrame:
    """The settings beside each export that is still there: `trainer`, `arm`, `file` and `text`.

    Args:
        home: The home that the exports lie below.
        exports: Table `trainer_exports`.
    """
    root = home.open().root
    found = []
    for row in exports.sort("trainer", "arm").iter_rows(named=True):
        name = TRAINERS[row["trainer"]].settings_file if row["trainer"] in TRAINERS else ""
        file = root / row["path"] / name
        if name and file.is_file():
            found.append((row["trainer"], row["arm"], name, file.read_text(encoding="utf-8")))
    return pl.DataFrame(found, schema=dict.fromkeys(("trainer", "arm", "file", "text"), pl.String), orient="row")
