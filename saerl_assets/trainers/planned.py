"""The order that a training was to follow, from an export's folder.

Belongs here: the rows of an export with the texts of its prompts. Does not belong here: comparing (verify).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.prompt_texts import PromptTexts
from saerl_assets.trainers.export import TRAINERS, check_export, load_order
from saerl_assets.trainers.run_logs import RunLog, read_log
from saerl_assets.trainers.verify import Verdict, verify_order

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@dataclass(frozen=True)
class PlannedOrder:
    """What one arm of a manifest says."""

    manifest_id: str
    arm: str
    order: pl.DataFrame
    """epoch, step, slot, prompt_id of every slot of whole batches."""
    texts: Callable[[], PromptTexts]
    """Reads the prompts' texts when a log names prompts by them."""


def planned_by_export(folder: Path) -> PlannedOrder:
    """The order of an export, proven intact.

    Raises:
        SaerlError: As `check_export`.
    """
    record = check_export(folder)
    order = load_order(folder)

    def texts() -> PromptTexts:
        path = folder / TRAINERS[record.trainer].data_file
        is_parquet = path.suffix == ".parquet"
        rows = pl.read_parquet(path) if is_parquet else pl.read_ndjson(path, infer_schema_length=None)
        column = next((name for name in ("prompt", "messages") if name in rows.columns), None)
        if column is None:
            remedy = "Name the version in place of the folder."
            raise SaerlError("no_texts", "The export has no texts of prompts.", where=str(path), remedy=remedy)
        return PromptTexts(zip(order["prompt_id"], rows[column].to_list(), strict=True))

    return PlannedOrder(record.manifest_id, record.arm, order, texts)


def verify_run(path: Path, planned: PlannedOrder) -> tuple[Verdict, RunLog]:
    """Reads a training's log and holds it against the planned order.

    Raises:
        SaerlError: `log_unreadable`, `log_empty`.
    """
    log = read_log(path, planned.texts)
    order = planned.order
    if log.alias:
        order = order.with_columns(pl.col("prompt_id").replace(log.alias))
    verdict = verify_order(order, log.rows, first_step=log.first_step, may_skip=log.may_skip)
    notes = [*verdict.notes, *log.notes, *(f"not read: {what}" for what in log.bad_lines)]
    if log.n_bad > len(log.bad_lines):
        notes.append(f"{log.n_bad - len(log.bad_lines):,} more lines could not be read")
    others = sorted(log.manifest_ids - {planned.manifest_id})
    if others:
        told = f"the log says that it is of manifest {', '.join(other[:12] for other in others)}, "
        notes.insert(0, f"{told}and this one is {planned.manifest_id[:12]}")
    return Verdict(**(vars(verdict) | {"notes": notes, "followed": verdict.followed and not others})), log
