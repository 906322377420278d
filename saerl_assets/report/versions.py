"""Figures of a version as a whole: what its spec chose, and what became of its rows.

Belongs here: `versions` and `version_report`. Does not belong here: figures of one stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from saerl_assets.domain.spec import spec_digest
from saerl_assets.report.marks import bars, facts
from saerl_assets.report.style import BLUE, card, finite, label, message, png
from saerl_assets.report.words import count, cut, listed, share, short

if TYPE_CHECKING:
    import polars as pl

    from saerl_assets.domain.spec import VersionSpec


def figure_versions(spec: VersionSpec) -> bytes:
    """What the spec of a version chose.

    Args:
        spec: The version's spec.

    Returns:
        PNG bytes.
    """
    title = f"{spec.key}: {spec.description}" if spec.description else spec.key
    continues = f", continues {spec.parent}" if spec.parent else ""
    return facts(title, chosen(spec), note=f"spec {short(spec_digest(spec))}{continues}")


def chosen(spec: VersionSpec) -> list[tuple[str, str]]:
    """The choices that set one version apart from another, as names and values."""
    layers = "layer" if len(spec.reader.layers) == 1 else "layers"
    sae = (
        f"{spec.sae.architecture}, {spec.sae.n_latents:,} latents, k = {spec.sae.k}, trained here"
        if spec.sae.source in (("auto",), ("train",))
        else listed(list(spec.sae.source))
    )
    low, high = spec.difficulty.min_rank, spec.difficulty.max_rank
    ranks = f", ranks {low:g} to {high:g}" if spec.difficulty.has_range else ""
    later = f" from epoch {spec.batches.first_epoch} on" if spec.batches.first_epoch else ""
    batches = f"{spec.batches.planner}, {spec.batches.batch_size} prompts, {spec.batches.curriculum}"
    return [
        ("data", spec.data.source),
        ("labels", listed(sorted([*spec.labels, *(spec.outcomes.labels() if spec.outcomes else ())]))),
        ("evaluation", share(spec.split.evaluation_fraction) if not spec.split.column else spec.split.column),
        ("reader", spec.reader.model.split("#", maxsplit=1)[0]),
        ("read at", f"{layers} {listed([str(layer) for layer in spec.reader.layers])}, {spec.reader.dtype}"),
        ("SAE", sae),
        ("clusters", f"k = {spec.clusters.k}, {spec.clusters.pooling} pooling, {spec.clusters.weighting}"),
        ("difficulty", f"{spec.difficulty.score}, label {spec.difficulty.label}{ranks}"),
        ("quality", f"label {spec.quality.label}, filter {spec.quality.filter}"),
        ("batches", batches),
        ("epochs", f"{spec.batches.epochs}{later}, tail {spec.batches.tail}"),
        ("trainers", listed(list(spec.exports.trainers))),
    ]


def figure_version_report(stages: pl.DataFrame) -> bytes:
    """What became of the source's rows, from stage to stage.

    Args:
        stages: One row per stage in order, with `stage` (String: 'rows in the source') and `n_rows` (UInt64).

    Returns:
        PNG bytes.
    """
    values = finite(stages, "n_rows")
    if not values.any():
        return message("No stage has run", "Materialise the version: `saerl run KEY`.")
    names = stages["stage"].to_list()
    drawn = card(
        f"{count(values[0])} {cut(names[0], 30)}, {count(values[-1])} {cut(names[-1], 40)}",
        height=0.75 + 0.32 * len(names),
    )
    axes = drawn.axes[0]
    said = [f"{count(value)}  ({share(value / max(values[0], 1.0))})" for value in values]
    bars(axes, names, values.tolist(), said, BLUE)
    axes.xaxis.set_ticks([])
    label(axes)
    return png(drawn)
