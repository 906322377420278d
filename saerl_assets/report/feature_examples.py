"""Figure and table of the prompts that features fire on most, with the token at which they do.

Belongs here: `feature_examples`. Does not belong here: which features these are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.report.blocks import Cell, Column, Marked, Table, cells, columns, number, rows
from saerl_assets.report.style import INK, MUTED, VERMILION, card, escape_math, message, png
from saerl_assets.report.words import count, cut, figure, printable, share

if TYPE_CHECKING:
    from saerl_assets.report.inputs import ReportInputs

MAX_LINES = 16
LETTERS_BEFORE, LETTERS_TOKEN, LETTERS_AFTER = 44, 16, 44
SETS_APART = 2
"""Column of the table with the clusters that a feature sets apart."""
MONOSPACED = "DejaVu Sans Mono"
LETTER = 0.00869
"""Width of a letter of 8 points, as a part of the figure's: 0.602 em of 8/72 inch on 7.7 inches."""
CONTEXT = 110
"""Letters that the page shows on each side of the token."""

NO_EXAMPLES = "Materialise feature_examples: it shows the token at which a feature is strongest."


def figure_feature_examples(examples: pl.DataFrame) -> bytes:
    """The strongest prompt of some features, the token in colour.

    Args:
        examples: Table `feature_examples`.

    Returns:
        PNG bytes.
    """
    if examples.is_empty():
        return message("No feature has fired", NO_EXAMPLES)
    shown = examples.filter(pl.col("place") == 0).sort(["activation", "feature_id"], descending=[True, False])
    shown = shown.head(MAX_LINES)
    height = 0.85 + 0.27 * shown.height
    drawn = card(
        f"Where {count(examples['feature_id'].n_unique(), 'feature')} fire most",
        key=[("the token at which it is strongest", VERMILION)],
        note="feature, activation, text" if shown.height == examples["feature_id"].n_unique() else "the strongest ones",
        height=height,
    )
    drawn.axes[0].set_axis_off()
    for line, row in enumerate(shown.iter_rows(named=True)):
        token = token_text(row["token"])[:LETTERS_TOKEN]
        pieces = (
            (0.02, str(row["feature_id"]), MUTED, "left"),
            (0.135, figure(row["activation"]), MUTED, "right"),
            (0.55, one_line(row["before"])[-LETTERS_BEFORE:], INK, "right"),
            (0.55, token, VERMILION, "left"),
            (0.55 + LETTER * len(token), one_line(row["after"])[: LETTERS_AFTER - len(token)], INK, "left"),
        )
        for x, text, colour, side in pieces:
            drawn.figure.text(
                x,
                1.0 - (0.78 + 0.27 * line) / height,
                escape_math(text),
                fontsize=8,
                family=MONOSPACED,
                color=colour,
                ha=side,
                va="center",
            )
    return png(drawn)


def examples_table(inputs: ReportInputs) -> Table:
    """Every feature that is shown, with its clusters and the prompts that it fires on most."""
    density = {row["feature_id"]: row for row in inputs.feature_density.iter_rows(named=True)}
    clusters = _clusters_of(inputs)
    n_prompts = max(inputs.prompts.height, 1)
    shown = []
    for (feature,), group in inputs.feature_examples.sort("feature_id", "place").group_by(
        "feature_id", maintain_order=True
    ):
        row = density.get(feature, {"layer": None, "latent": None, "n_prompts": 0, "max_activation": None})
        lines = tuple(_marked(example) for example in group.iter_rows(named=True))
        tokens = [one_line(token).strip() for token in group["token"].unique(maintain_order=True)]
        shown.append(
            (
                row["n_prompts"],
                cells(
                    number(feature, str(feature)),
                    number(row["layer"], "" if row["layer"] is None else str(row["layer"])),
                    Cell(", ".join(str(cluster) for cluster in clusters.get(feature, []))),
                    number(row["n_prompts"], share(row["n_prompts"] / n_prompts), share=row["n_prompts"] / n_prompts),
                    number(row["max_activation"], figure(row["max_activation"])),
                    Cell(cut(" · ".join(token for token in tokens if token), 40)),
                    Cell("", lines=lines),
                ),
            )
        )
    # what sets a cluster apart is read first: what fires in every prompt is mostly the wording that they share
    shown.sort(key=lambda each: (not each[1][SETS_APART].text, -each[0], each[1][0].order))
    return Table(
        "features-table",
        f"{count(len(shown), 'feature')} with the prompts that they fire on most",
        columns(
            Column("feature", "number", "Over all layers: table feature_density has its layer and its index there."),
            Column("layer", "number"),
            Column("sets apart", hint="Clusters that it sets apart from the others."),
            Column("prompts", "number", "Share of the prompts in which it is active at least once."),
            Column("largest", "number", "Largest activation."),
            Column("tokens", "code", "Tokens at which it is strongest."),
            Column("strongest in", "long", "The marked token is where it is strongest in that prompt."),
        ),
        rows([each for _, each in shown]),
        filterable=True,
        note="Those that set clusters apart, then those active in most prompts. The number is the activation at the "
        "marked token; a click unfolds the other prompts.",
    )


def one_line(text: str) -> str:
    """The text with line breaks as a sign, so that a token that is one can be seen."""
    return printable(text).replace("\n", "⏎").replace("\t", " ")


def token_text(text: str) -> str:
    """A token as it is read; where it is white space alone, a sign for each."""
    line = one_line(text)
    return line if line.strip() else "␣" * max(len(line), 1)


def _marked(example: dict[str, object]) -> Marked:
    before, after = one_line(str(example["before"])), one_line(str(example["after"]))
    start = "…" if len(before) > CONTEXT else ""
    end = "…" if len(after) > CONTEXT else ""
    return Marked(
        start + before[-CONTEXT:],
        token_text(str(example["token"])),
        after[:CONTEXT] + end,
        figure(float(str(example["activation"]))),
    )


def _clusters_of(inputs: ReportInputs) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for cluster, features in inputs.clusters.sort("cluster_id").select("cluster_id", "top_features").iter_rows():
        for feature in features or []:
            found.setdefault(feature, []).append(cluster)
    return found
