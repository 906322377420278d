"""Figures of what leaves the house: the trainers' files and every artefact beside the tables.

Belongs here: `trainer_exports` and `artifacts`. Does not belong here: the order inside the files
(batches.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saerl_assets.report.marks import bars, facts
from saerl_assets.report.style import BLUE, VERMILION, card, finite, label, message, png
from saerl_assets.report.words import count, cut, listed, n_bytes, short

if TYPE_CHECKING:
    import polars as pl

MAX_FILES = 14


def figure_trainer_exports(exports: pl.DataFrame) -> bytes:
    """Which trainers the manifest was written for, in which order.

    Args:
        exports: Table `trainer_exports`.

    Returns:
        PNG bytes.
    """
    if exports.is_empty():
        return message(
            "Nothing is exported",
            "Name trainers in `exports.trainers` of the spec, or use `saerl export KEY`.",
        )
    rows: list[tuple[str, str]] = []
    ordered = exports.sort("arm", "trainer")
    for row in ordered.head(6).iter_rows(named=True):
        batches = count(row["n_steps"], "batch", "batches")
        rows += [
            (row["trainer"], f"{count(row['n_rows'], 'row')} in {batches}, {row['arm']}"),
            ("order", short(row["order_digest"])),
            ("files", short(row["digest"])),
        ]
    if len(rows) % 2:  # keep the lines of a trainer in one column
        rows += [("", "")] * 3
    return facts(said_of_order(ordered), rows, note=f"manifest {short(ordered['manifest_id'][0])}")


def said_of_order(exports: pl.DataFrame) -> str:
    """Whether the trainers read one and the same order, in a sentence.

    Args:
        exports: Table `trainer_exports`, at least one row.
    """
    trainers = listed(exports["trainer"].unique().sort().to_list())
    n_rows = count(int(finite(exports, "n_rows").max(initial=0.0)), "row")
    orders = exports.select("arm", "order_digest").unique()
    if orders.height == orders["arm"].n_unique():
        return (
            f"{n_rows} written for {trainers}, the same order in each"
            if exports.height > 1
            else f"{n_rows} written for {trainers}"
        )
    return f"{n_rows} written for {trainers}, in orders that differ"


def figure_artifacts(artifacts: pl.DataFrame) -> bytes:
    """Sizes of the files beside the tables, and whether they are intact.

    Args:
        artifacts: Table `artifacts`.

    Returns:
        PNG bytes.
    """
    if artifacts.is_empty():
        return message(
            "No artefacts", "They appear once an SAE is trained, prompts are clustered or files are exported."
        )
    ordered = artifacts.sort(["n_bytes", "kind", "name"], descending=[True, False, False])
    broken = ordered.filter(~ordered["intact"])
    intact = "all intact" if broken.is_empty() else f"{broken.height} not as recorded"
    shown = ordered.head(MAX_FILES)
    drawn = card(
        f"{count(ordered.height, 'artefact')}, {n_bytes(int(ordered['n_bytes'].sum()))}, {intact}",
        note=f"the {MAX_FILES} largest" if ordered.height > MAX_FILES else "",
        height=(1.2 if ordered.height > MAX_FILES else 1.0) + 0.3 * shown.height,
    )
    sizes = (finite(shown, "n_bytes") / 1e6).tolist()
    names = [cut(f"{row['kind']} {row['name']}", 34) for row in shown.iter_rows(named=True)]
    said = [
        n_bytes(row["n_bytes"]) + ("" if row["intact"] else ", changed since it was recorded")
        for row in shown.iter_rows(named=True)
    ]
    bars(drawn.axes[0], names, sizes, said, BLUE)
    for patch, row in zip(drawn.axes[0].patches, shown.iter_rows(named=True), strict=True):
        patch.set_facecolor(BLUE if row["intact"] else VERMILION)
    label(drawn.axes[0], x="size (MB)")
    return png(drawn)
