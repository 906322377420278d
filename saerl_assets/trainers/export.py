"""Exports: one arm of a manifest as a folder that a trainer reads in our order and that proves intact.

Belongs here: the registry of trainers, an export's `manifest.json`, holding a folder against it. Does not
belong here: what a single trainer reads (trl, verl, openrlhf, ...), putting folders on the disk.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from saerl_assets.disk import file_digest, new_folder
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.spec import digest
from saerl_assets.trainers import ms_swift, nemo_rl, openrlhf, plain, trl, trl_dpo, verl
from saerl_assets.trainers.formats import README_FILE, ExportRequest, TrainerFormat

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = [
    "TRAINERS",
    "ExportRecord",
    "ExportRequest",
    "Exported",
    "check_export",
    "load_order",
    "order_digest",
    "whole_batches",
    "write_export",
]

TRAINERS: dict[str, TrainerFormat] = {
    form.name: form
    for form in (
        trl.FORMAT,
        trl_dpo.FORMAT,
        verl.FORMAT,
        openrlhf.FORMAT,
        nemo_rl.FORMAT,
        ms_swift.FORMAT,
        plain.JSONL,
        plain.PARQUET,
    )
}
"""Every trainer that can be exported to. A further one is one file and one entry here."""

RECORD_FILE = "manifest.json"
_REMEDY = "Delete the folder and export again."


@dataclass(frozen=True)
class Exported:
    """What was written."""

    n_rows: int
    n_steps: int
    order_digest: str


@dataclass(frozen=True)
class ExportRecord:
    """`manifest.json`: what an export holds and what it came from."""

    trainer: str
    dataset_version: str
    manifest_id: str
    arm: str
    batch_size: int
    n_rows: int
    n_steps: int
    n_left_out: int
    """Rows of the manifest that are not here because their batch is short: trainers drop such a batch, or let
    it shift every later one."""
    order_digest: str
    spec: dict[str, Any]
    """The version's spec in its canonical form."""
    spec_digest: str
    digests: dict[str, str]
    """What the order was made from."""
    files: dict[str, str]
    """SHA-256 of every other file of the folder."""

    def to_json(self) -> str:
        """The document, sealed with the digest of all else in it."""
        fields = asdict(self)
        return json.dumps(fields | {"digest": digest(fields)}, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def order_digest(prompt_ids: Iterable[str]) -> str:
    """SHA-256 in hex over ordered prompt ids, each ended by a line feed."""
    return hashlib.sha256("".join(f"{prompt_id}\n" for prompt_id in prompt_ids).encode()).hexdigest()


def whole_batches(rows: pl.DataFrame, batch_size: int) -> pl.DataFrame:
    """The rows of one arm that an export holds, by (epoch, step, slot): those of batches that are full."""
    rows = rows.sort("epoch", "step", "slot")
    return rows.filter(pl.len().over("epoch", "step") == batch_size)


def write_export(trainer: str, request: ExportRequest, folder: Path) -> Exported:
    """Writes one arm for one trainer.

    The folder is there whole or not at all, whatever is killed when; the same request gives the same bytes.
    It holds the data, the settings that keep the order, a README with the trainer's traps and
    `manifest.json`, see `ExportRecord`. Short batches (`tail = "short"`) are left out and counted, because
    every trainer cuts the rows into batches by their number. An export that is there already is replaced
    unless it is the same.

    Args:
        trainer: A name in `TRAINERS`.
        request: What to write.
        folder: The folder to make.

    Raises:
        SaerlError: `unknown_trainer`, `no_whole_batch`, `prompt_missing`, `not_an_export` if the folder holds
            other files, `disk_full`, `not_writable`, or what the trainer's format cannot take.
    """
    form = _format_of(trainer)
    rows = whole_batches(request.rows, request.batch_size)
    if rows.is_empty():
        raise SaerlError(
            "no_whole_batch",
            f"Arm {request.arm!r} has no batch of {request.batch_size} prompts.",
            where=request.key,
            remedy="Set a smaller batches.batch_size, or batches.tail to 'pad'.",
        )
    lost = rows.filter(pl.col("messages").is_null())["prompt_id"]
    if len(lost):
        raise SaerlError(
            "prompt_missing",
            f"Prompt {lost[0]} of the manifest is not in the table prompts any more.",
            where=request.key,
            remedy="Materialise batch_manifest again.",
        )
    _refuse_to_overwrite(folder, form)
    with new_folder(folder) as made:
        form.write(replace(request, rows=rows), made)
        record = ExportRecord(
            trainer=trainer,
            dataset_version=request.key,
            manifest_id=request.manifest_id,
            arm=request.arm,
            batch_size=request.batch_size,
            n_rows=rows.height,
            n_steps=rows.height // request.batch_size,
            n_left_out=request.rows.height - rows.height,
            order_digest=order_digest(rows["prompt_id"]),
            spec=request.spec,
            spec_digest=request.spec_digest,
            digests=request.digests,
            files={path.name: file_digest(path) for path in sorted(made.iterdir())},
        )
        (made / RECORD_FILE).write_text(record.to_json(), encoding="utf-8")
    return Exported(record.n_rows, record.n_steps, record.order_digest)


def check_export(folder: Path, *, manifest_id: str | None = None) -> ExportRecord:
    """Proves that an export is as it was written, by the digests of its files and of the order of its rows.

    Files beside those of the export do not matter.

    Args:
        folder: The folder.
        manifest_id: The manifest that it must be of; any by default.

    Raises:
        SaerlError: `not_an_export`, `export_changed` naming the file, or `other_manifest`.
    """
    record = _read_record(folder)
    for name, expected in record.files.items():
        path = folder / name
        if not path.is_file():
            raise SaerlError("export_changed", "This file of the export is gone.", where=str(path), remedy=_REMEDY)
        if file_digest(path) != expected:
            raise SaerlError(
                "export_changed",
                "This file was changed after it was written.",
                where=str(path),
                remedy=_REMEDY,
            )
    order = _format_of(record.trainer).read_order(folder)["prompt_id"]
    if len(order) != record.n_rows or order_digest(order) != record.order_digest:
        problem = "The order of its rows is not the one that the export was written with."
        raise SaerlError("export_changed", problem, where=str(folder), remedy=_REMEDY)
    if manifest_id is not None and record.manifest_id != manifest_id:
        raise SaerlError(
            "other_manifest",
            f"This export is of manifest {record.manifest_id[:12]}, not of {manifest_id[:12]}.",
            where=str(folder),
            remedy="Export the manifest that you mean, or name it instead.",
        )
    return record


def load_order(folder: Path, *, manifest_id: str | None = None) -> pl.DataFrame:
    """The order of an export: one row per slot with epoch, step, slot and prompt_id.

    Raises:
        SaerlError: As `check_export`.
    """
    record = check_export(folder, manifest_id=manifest_id)
    return _format_of(record.trainer).read_order(folder)


def _format_of(trainer: str) -> TrainerFormat:
    if trainer not in TRAINERS:
        close = difflib.get_close_matches(trainer, TRAINERS, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        remedy = f"{hint}Known trainers: {', '.join(TRAINERS)}."
        raise SaerlError("unknown_trainer", f"There is no export for {trainer!r}.", remedy=remedy)
    return TRAINERS[trainer]


def _read_record(folder: Path) -> ExportRecord:
    """`manifest.json`, if it is as it was written."""
    path = folder / RECORD_FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        seal = fields.pop("digest")
        record = ExportRecord(**fields)
    except OSError as error:
        remedy = "Name the folder that `saerl export` wrote."
        raise SaerlError("not_an_export", f"It has no {RECORD_FILE}.", where=str(folder), remedy=remedy) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SaerlError(
            "export_changed", "This is not the record of an export.", where=str(path), remedy=_REMEDY
        ) from error
    if seal != digest(fields):
        raise SaerlError(
            "export_changed", "This file was changed after it was written.", where=str(path), remedy=_REMEDY
        )
    return record


def _refuse_to_overwrite(target: Path, form: TrainerFormat) -> None:
    """Only an export for the same trainer may be replaced; anything else is somebody's work."""
    if not target.exists():
        return
    found = {path.name for path in target.iterdir()} if target.is_dir() else {target.name}
    own = {RECORD_FILE, README_FILE, form.data_file, form.settings_file}
    others = sorted(found - own if RECORD_FILE in found else found)
    if others:
        raise SaerlError(
            "not_an_export",
            f"There is something else already: {others[0]}.",
            where=str(target),
            remedy="Name a folder that does not exist yet.",
        )
