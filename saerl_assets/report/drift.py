"""Figures of drift: what has become of the parent's clusters, and the measures against their limits.

Belongs here: `cluster_drift` and `version_drift`. Does not belong here: clusters by themselves (clusters.py).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from saerl_assets.report.clusters import draw_limits
from saerl_assets.report.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    VERMILION,
    card,
    finite,
    label,
    message,
    png,
    tick_names,
    write,
)
from saerl_assets.report.words import count, figure, share

MAX_CLUSTERS = 16
FATES = {"kept": BLUE, "new": GREEN, "gone": VERMILION}
NAMES = {
    "moved_fraction": "prompts in another cluster",
    "population_shift": "shares of the clusters (bits)",
    "centroid_shift": "centroids (cosine)",
    "density_shift": "feature densities",
}


def figure_cluster_drift(drift: pl.DataFrame) -> bytes:
    """Shares of the clusters before and after, those that changed most on top.

    Args:
        drift: Table `cluster_drift`.

    Returns:
        PNG bytes.
    """
    drift = drift.filter(pl.all_horizontal(pl.col("fraction_before", "fraction_after").is_finite()))
    if drift.is_empty():
        return message("There is no drift to show", "The version has no parent, or does not continue its clusters.")
    size = drift["fraction_shift"].abs()
    ordered = drift.with_columns(size=size).sort(["size", "cluster_id"], descending=[True, False])
    shown = ordered.head(MAX_CLUSTERS)
    counts = dict(drift["fate"].value_counts().iter_rows())
    n_moved, n_common = int(drift["n_moved"].sum()), int(drift["n_common"].sum())
    drawn = card(
        f"{count(counts.get('kept', 0), 'cluster')} kept, {counts.get('new', 0)} new, {counts.get('gone', 0)} gone; "
        f"{count(n_moved)} of {count(n_common, 'common prompt')} moved",
        key=[(name, colour) for name, colour in FATES.items() if counts.get(name)],
        note="from the share of the prompts before (dot) to that of now (bar), largest changes first",
        height=1.45 + 0.25 * shown.height,
    )
    axes = drawn.axes[0]
    places = np.arange(shown.height)
    before, after = (100 * finite(shown, name) for name in ("fraction_before", "fraction_after"))
    axes.barh(places, after, height=0.6, color=[FATES.get(fate, FAINT) for fate in shown["fate"]])
    axes.plot(before, places, "o", color=INK, markersize=4)
    axes.set_ylim(shown.height - 0.4, -0.6)
    top = max(float(np.concatenate([before, after]).max(initial=0.0)), 1.0)
    axes.set_xlim(0.0, top * 1.5)
    tick_names(axes, places.tolist(), [str(cluster) for cluster in shown["cluster_id"]])
    for place, row in enumerate(shown.iter_rows(named=True)):
        moved = f", centroid by {figure(row['centroid_shift'])}" if row["centroid_shift"] is not None else ""
        said = f"{share(row['fraction_before'])} to {share(row['fraction_after'])}{moved}"
        write(axes, max(before[place], after[place]), float(place), said, points=6.0)
    label(axes, x="percent of the prompts", y="cluster")
    return png(drawn)


def figure_version_drift(drift: pl.DataFrame) -> bytes:
    """Every measure against its limit.

    Args:
        drift: Table `version_drift`.

    Returns:
        PNG bytes.
    """
    measured = drift.filter(pl.col("value").is_finite()).sort("measure")
    if measured.is_empty():
        why = str(drift.sort("measure")["explanation"][0]) if drift.height else "Materialise version_drift."
        return message("No drift was measured", why)
    beyond = measured.filter(verdict="drifted").height
    title = (
        f"{count(beyond, 'measure')} of drift beyond the limit"
        if beyond
        else "Near the parent: every measure is within its limit"
    )
    return draw_limits(title, measured, NAMES, good="steady")
