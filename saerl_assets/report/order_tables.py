"""Tables of the order: its arms, its first and last batch, and the files that hold it.

Belongs here: batches, exports and artefacts. Does not belong here: HTML, which escapes every text that comes from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.report.batches import difficulty_ends, numbered
from saerl_assets.report.blocks import Cell, Column, Step, Strip, Table, cells, columns, number, rows
from saerl_assets.report.cells import cluster_cell, known, texts_of
from saerl_assets.report.tables import prompts_shown
from saerl_assets.report.words import count, cut, figure, least_shown, n_bytes

if TYPE_CHECKING:
    from saerl_assets.report.inputs import ReportInputs

MAX_SLOTS = 16
MAX_STEPS = 400
"""Batches that can be pointed at; of more every second, third or further one."""
SHORT = 12
"""Letters of a prompt's id in the table of prompts."""


def arms_table(inputs: ReportInputs) -> Table:
    """The exported order beside every control, in figures."""
    measured = (
        inputs.batch_metrics.group_by("arm")
        .agg(
            pl.col("n_clusters").mean(),
            pl.col("cluster_entropy").mean(),
            pl.col("feature_overlap").mean(),
        )
        .sort("arm")
    )
    means = {row["arm"]: row for row in measured.iter_rows(named=True)}
    arms = sorted(inputs.batch_manifest["arm"].unique(), key=lambda arm: (arm != inputs.planner, arm))
    shown = []
    for arm in arms:
        order = inputs.batch_manifest.filter(pl.col("arm") == arm)
        easy, hard = difficulty_ends(order)
        mean = means.get(arm, {})
        shown.append(
            cells(
                Cell(arm.replace("_", " "), tag="exported" if arm == inputs.planner else ""),
                number(order.height, count(order.select("epoch", "step").n_unique())),
                number(order["prompt_id"].n_unique(), count(order["prompt_id"].n_unique())),
                number(mean.get("n_clusters"), known(mean.get("n_clusters"))),
                number(mean.get("cluster_entropy"), known(mean.get("cluster_entropy"))),
                number(mean.get("feature_overlap"), known(mean.get("feature_overlap"))),
                number(hard - easy, f"{figure(easy)} → {figure(hard)}"),
            )
        )
    return Table(
        "arms-table",
        "The exported order and its controls",
        columns(
            "arm",
            Column("batches", "number"),
            Column("prompts", "number", "Different prompts."),
            Column("clusters", "number", "Clusters in a batch, mean."),
            Column("entropy", "number", "Cluster entropy of a batch in nats, mean."),
            Column("overlap", "number", "Jaccard overlap of active features between prompts of a batch, mean."),
            Column("difficulty", "number", "Median of the first tenth of the batches, and of the last."),
        ),
        rows(shown),
    )


def batch_strip(inputs: ReportInputs) -> Strip:
    """The batches of the exported order to point at, beside the medians of a shuffle."""
    order = numbered(inputs.ordered)
    steps = _heights(order)
    every = -(-steps.height // MAX_STEPS)
    shown = steps.gather_every(every)
    shuffled = numbered(inputs.batch_manifest.filter(pl.col("arm") == "shuffle"))
    control = _heights(shuffled).gather_every(every) if shuffled.height else None
    low = float(inputs.batch_manifest["difficulty"].min() or 0.0)  # type: ignore[arg-type]
    extent = float(inputs.batch_manifest["difficulty"].max() or 0.0) - low or 1.0  # type: ignore[arg-type]
    least = least_shown(inputs.batch_manifest["difficulty"])
    known_to_table = prompts_shown(inputs)["prompt_id"]
    ids = dict(
        order.filter(pl.col("prompt_id").is_in(known_to_table.implode()))
        .group_by("batch")
        .agg(pl.col("prompt_id").sort().unique(maintain_order=True).str.head(SHORT))
        .iter_rows()
    )
    many_epochs = steps["epoch"].n_unique() > 1

    def height(value: float) -> float:
        return round((value - low) / extent, 4)

    return Strip(
        "batch-strip",
        f"{count(steps.height, 'batch', 'batches')} in the order {inputs.planner}",
        tuple(
            Step(
                row["batch"],
                height(row["low"]),
                height(row["middle"]),
                height(row["high"]),
                f"batch {row['batch']}"
                + (f", epoch {row['epoch']}" if many_epochs else "")
                + f": {count(row['n_prompts'], 'prompt')} of {count(row['n_clusters'], 'cluster')}, difficulty "
                f"{figure(row['low'], least)} to {figure(row['high'], least)}, median {figure(row['middle'], least)}",
                " ".join(ids.get(row["batch"], [])),
            )
            for row in shown.iter_rows(named=True)
        ),
        tuple(height(middle) for middle in control["middle"]) if control is not None else (),
        note="From the easiest at the bottom to the hardest; a bar is the middle eight tenths of a batch, its mark the "
        "median, the dashes those of a shuffle. Point at a batch to read it; a click shows its prompts in the table."
        + (f" Every {every}th batch is drawn." if every > 1 else ""),
    )


def _heights(order: pl.DataFrame) -> pl.DataFrame:
    """Each batch's difficulties, its clusters and its prompts."""
    level = pl.col("difficulty")
    return (
        order.group_by("batch")
        .agg(
            pl.col("epoch").first(),
            level.quantile(0.1, "linear").alias("low"),
            level.median().alias("middle"),
            level.quantile(0.9, "linear").alias("high"),
            pl.col("cluster_id").n_unique().alias("n_clusters"),
            pl.col("prompt_id").n_unique().alias("n_prompts"),
        )
        .sort("batch")
    )


def batch_table(inputs: ReportInputs, *, last: bool) -> Table:
    """The first or the last batch of the exported order, as the trainer reads it."""
    order = numbered(inputs.ordered)
    wanted = int(order["batch"].max() or 0) if last else 0  # type: ignore[arg-type]
    batch = order.filter(pl.col("batch") == wanted).sort("slot")
    texts = texts_of(inputs, batch["prompt_id"].to_list())
    least = least_shown(inputs.batch_manifest["difficulty"])
    shown = [
        cells(
            number(row["slot"], str(row["slot"])),
            cluster_cell(row["cluster_id"]),
            number(row["difficulty"], figure(row["difficulty"], least)),
            cut(texts.get(row["prompt_id"], row["prompt_id"]), 180),
        )
        for row in batch.head(MAX_SLOTS).iter_rows(named=True)
    ]
    name = "last" if last else "first"
    return Table(
        f"{name}-batch-table",
        f"The {name} batch",
        columns(
            Column("slot", "number"),
            Column("cluster", "number"),
            Column("difficulty", "number"),
            Column("prompt", "long"),
        ),
        rows(shown),
        note=f"{count(batch.height - MAX_SLOTS)} more prompts in it." if batch.height > MAX_SLOTS else "",
    )


def exports_table(inputs: ReportInputs) -> Table:
    """The trainers' files."""
    shown = [
        cells(
            row["trainer"],
            row["arm"],
            number(row["n_rows"], count(row["n_rows"])),
            number(row["n_steps"], count(row["n_steps"])),
            row["path"],
            row["order_digest"][:16],
        )
        for row in inputs.trainer_exports.sort("trainer", "arm").iter_rows(named=True)
    ]
    return Table(
        "exports-table",
        "Files for trainers",
        columns(
            "trainer",
            "arm",
            Column("rows", "number"),
            Column("batches", "number"),
            Column("folder below the home", "place"),
            Column("order", "code", "SHA-256 over the ordered prompt ids; equal for equal orders."),
        ),
        rows(shown),
    )


def artifacts_table(inputs: ReportInputs) -> Table:
    """Every file beside the tables."""
    shown = [
        cells(
            f"{row['kind']} {row['name']}",
            Cell("intact", tag="good") if row["intact"] else Cell("changed or gone", tag="bad"),
            number(row["n_bytes"], n_bytes(row["n_bytes"])),
            row["made_by"],
            row["path"],
            row["digest"],
        )
        for row in inputs.artifacts.sort("kind", "name").iter_rows(named=True)
    ]
    return Table(
        "artifacts-table",
        "Artefacts",
        columns(
            "artefact",
            "state",
            Column("size", "number"),
            "made by",
            Column("path below the home", "place"),
            Column("SHA-256", "code"),
        ),
        rows(shown),
    )
