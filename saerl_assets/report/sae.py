"""Figures of the sparse autoencoder: how it was trained and how well it fits the version's prompts.

Belongs here: `sae_weights` and `sae_health`. Does not belong here: what its features do (features.py).
"""

from __future__ import annotations

import json
from itertools import cycle
from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.report.marks import bars, facts, thousands
from saerl_assets.report.style import (
    BLUE,
    INK,
    SERIES,
    VERMILION,
    card,
    finite,
    label,
    message,
    png,
    write,
)
from saerl_assets.report.words import count, figure, n_bytes, share, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = (
    ("loss", "loss"),
    ("explained_variance", "variance explained"),
    ("dead_fraction", "dead latents (share)"),
)


def figure_sae_weights(weights: pl.DataFrame) -> bytes:
    """Training curves, or in words what was loaded.

    Args:
        weights: Table `sae_weights`; the curves are in its column `training`.

    Returns:
        PNG bytes.
    """
    history = _history(weights)
    if history.is_empty():
        return _loaded(weights)
    layers = history["layer"].unique().sort().to_list()
    last = history.group_by("layer", maintain_order=True).last().sort("layer")
    drawn = card(
        f"SAE trained on {count(finite(history, 'tokens').max(initial=0.0), 'token')}: explains "
        f"{_span(last, 'explained_variance')} of the variance, {_span(last, 'dead_fraction')} dead",
        key=[(f"layer {layer}", colour) for layer, colour in zip(layers, SERIES, strict=False)],
        note=f"{figure(float(finite(last, 'l0').mean()))} latents active on a token" if finite(last, "l0").size else "",
        widths=(1.0, 1.0, 1.0),
        height=3.1,
    )
    for axes, (column, name) in zip(drawn.axes, CURVES, strict=True):
        for index, layer in enumerate(layers):
            rows = history.filter(pl.col("layer") == layer).drop_nulls(["tokens", column])
            marker = "o" if rows.height == 1 else None
            axes.plot(
                rows["tokens"].to_numpy(),
                rows[column].cast(pl.Float64).to_numpy(),
                color=SERIES[index % len(SERIES)],
                linewidth=1.6,
                marker=marker,
                markersize=4,
            )
        thousands(axes)
        axes.set_ylim(*(0.0, 1.0) if column == "explained_variance" else (0.0, None))
        axes.set_xlim(left=0)
        label(axes, x="tokens", y=name)
    return png(drawn)


def figure_sae_health(health: pl.DataFrame, *, min_explained_variance: float, max_dead_fraction: float) -> bytes:
    """How well the SAE fits, against the spec's limits.

    Args:
        health: Table `sae_health`.
        min_explained_variance: `sae.min_explained_variance` of the spec.
        max_dead_fraction: `sae.max_dead_fraction` of the spec.

    Returns:
        PNG bytes.
    """
    health = health.drop_nulls(["explained_variance", "dead_fraction"]).sort("layer")
    if health.is_empty():
        return message("The SAE was not measured", "Materialise sae_health: it needs prompts and sae_weights.")
    names = [f"layer {row['layer']}: {row['verdict']}" for row in health.iter_rows(named=True)]
    tokens, sinks = int(health["n_tokens"].sum()), int(health["n_sink_tokens"].sum())
    n_good = int((health["verdict"] == "good").sum())
    title = f"{n_good} of {count(health.height, 'layer')} read by an SAE in good health"
    if health.height == 1:
        explained = share(health["explained_variance"][0])
        active = figure(health["l0"][0])
        fit = f"Its SAE explains {explained} of the variance with {active} latents a token"
        title = f"Layer {health['layer'][0]}: {health['verdict'][0]}. {fit}"
    drawn = card(
        title,
        note=f"on {count(tokens, 'token')} it was not trained on; {count(sinks, 'attention sink')} left out",
        widths=(1.0, 1.0),
        height=1.55 + 0.36 * health.height,
        share_y=True,
    )
    left, right = drawn.axes
    variance, dead = finite(health, "explained_variance").tolist(), finite(health, "dead_fraction").tolist()
    _against(left, names, variance, min_explained_variance, "at least", "variance explained")
    _against(right, names, dead, max_dead_fraction, "at most", "latents that never fire")
    right.tick_params(labelleft=False)
    return png(drawn)


def figure_control_saes(controls: pl.DataFrame) -> bytes:
    """What the controls are, in words.

    Args:
        controls: Table `control_saes`.

    Returns:
        PNG bytes.
    """
    if controls.is_empty():
        return message("There is no control", "Set evidence.random_sae = true to see what training an SAE adds.")
    rows = [
        (f"layer {row['layer']}", f"{row['n_latents']:,} random directions, {row['k']} active on a token")
        for row in controls.sort("layer").head(12).iter_rows(named=True)
    ]
    return facts(
        f"{count(controls.height, 'SAE')} of random weights", rows, note="read beside the SAE, on the same tokens"
    )


def figure_layer_profile(health: pl.DataFrame) -> bytes:
    """How much of the variance each SAE explains at every block of the model; its own should be the highest.

    Args:
        health: Table `sae_health`.

    Returns:
        PNG bytes.
    """
    from matplotlib.ticker import MaxNLocator

    measured = health.filter(pl.col("layer_profile").list.len() > 0).sort("layer")
    if measured.is_empty():
        return message(
            "Other layers were not looked at", "Set sae.health_tokens above 0 to see which one the SAE fits."
        )
    rows = measured.to_dicts()
    best = [max(range(len(row["layer_profile"])), key=row["layer_profile"].__getitem__) for row in rows]
    fits = sum(place == row["layer"] for place, row in zip(best, rows, strict=True))
    title = f"{fits} of {count(len(rows), 'SAE')} explain their own layer best"
    if len(rows) == 1:
        title = f"The SAE explains layer {best[0]} best, and reads layer {rows[0]['layer']}"
    drawn = card(
        title,
        key=[(f"SAE of layer {row['layer']}", colour) for row, colour in zip(rows, SERIES, strict=False)],
        note="variance explained, negative values drawn at 0",
        height=3.1,
    )
    axes = drawn.axes[0]
    for row, colour in zip(rows, cycle(SERIES), strict=False):
        shares = [min(max(value, 0.0), 1.0) for value in row["layer_profile"]]
        axes.plot(range(len(shares)), shares, color=colour, linewidth=1.6)
        axes.plot([row["layer"]], [shares[row["layer"]]], color=colour, marker="o", markersize=6, linestyle="none")
    axes.set_ylim(0.0, 1.05)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    label(axes, x="block of the model", y="variance explained")
    return png(drawn)


def _against(axes: Axes, names: list[str], values: list[float], limit: float, side: str, measured: str) -> None:
    """Bars of shares with the limit that they must keep."""
    from matplotlib.ticker import PercentFormatter

    bars(axes, names, [min(max(value, 0.0), 1.0) for value in values], [share(value) for value in values], BLUE)
    for patch, value in zip(axes.patches, values, strict=True):
        if (value < limit) if side == "at least" else (value > limit):
            patch.set_facecolor(VERMILION)
    axes.axvline(limit, color=INK, linewidth=1.2, zorder=4)
    axes.set_ylim(len(names) - 0.4, -1.15)
    write(axes, limit, -0.85, f"{side} {share(limit)}", points=4.0 if limit < 0.6 else -4.0, color=INK)
    axes.set_xlim(0.0, 1.14)
    axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0])
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1.0, decimals=0))
    label(axes, x=measured)


def _history(weights: pl.DataFrame) -> pl.DataFrame:
    """One row per layer and logged training step: `layer`, `step`, `tokens`, `loss`, `explained_variance`, ..."""
    rows = [
        {"layer": layer, **step}
        for layer, training in weights.sort("layer").select("layer", "training").iter_rows()
        for step in json.loads(training).get("history", [])
    ]
    return pl.DataFrame(rows, infer_schema_length=None).sort("layer", "tokens") if rows else pl.DataFrame()


def _loaded(weights: pl.DataFrame) -> bytes:
    if weights.is_empty():
        return message("There is no SAE yet", "Materialise sae_weights: it trains or loads one for each layer.")
    rows: list[tuple[str, str]] = []
    for row in weights.sort("layer").head(6).iter_rows(named=True):
        rows += [
            (f"layer {row['layer']}", f"{row['architecture']}, {row['d_in']} → {row['n_latents']:,} latents"),
            ("from", row["source"]),
            ("digest", short(row["digest"])),
            ("size", f"{n_bytes(8 * row['d_in'] * row['n_latents'])} of weights, in float32"),
        ]
    trained = bool((weights["source"] == "train").any())
    title = f"{count(weights.height, 'SAE')}, {count(int(weights['n_latents'].sum()), 'latent')} in all"
    return facts(title, rows, note="its training curves are not at hand" if trained else "loaded, not trained here")


def _span(last: pl.DataFrame, column: str) -> str:
    """The final share, or the range of it over the layers."""
    values = finite(last, column)
    if not values.size:
        return "an unknown share"
    low, high = share(float(values.min())), share(float(values.max()))
    return low if low == high else f"{low} to {high}"
