"""Figures of the evidence: what each signal is worth beside the cheap ones, and what more labels would add.

Belongs here: `signal_evidence`, `evidence_curve` and `evidence_verdicts`. Does not belong here: the verdicts, which are
the domain's.
"""

from __future__ import annotations

from itertools import cycle

import polars as pl

from saerl_assets.report.style import BLUE, MUTED, SERIES, VERMILION, card, label, message, png, tick_names
from saerl_assets.report.words import count

MAX_PANELS = 3
NAMES = {
    "length": "prompt length",
    "tfidf": "words (TF-IDF)",
    "metadata": "source's columns",
    "dense_mean": "dense state, mean",
    "dense_last": "dense state, last",
    "sentence": "sentence embedding",
    "random_sae": "random SAE",
    "sae_max": "SAE, max",
    "sae_mean": "SAE, mean",
    "sae_binary": "SAE, binary",
    "combined": "length + dense + SAE",
}
MEASURES = {"spearman": "rank correlation", "auroc": "AUROC", "macro_f1": "macro F1"}
CHANCE = {"spearman": 0.0, "auroc": 0.5}


def figure_signal_evidence(signals: pl.DataFrame) -> bytes:
    """A forest plot: every predictor with its interval, a panel for each label.

    Args:
        signals: Table `signal_evidence`.

    Returns:
        PNG bytes.
    """
    drawable = signals.drop_nulls(["value"]).filter(pl.col("predictor") != "constant")
    if drawable.is_empty():
        return message(
            "Nothing was measured", "Add [labels.<name>] to the spec; evidence_verdicts says what is missing."
        )
    labels = drawable["label"].unique().sort().to_list()
    shown = labels[:MAX_PANELS]
    names = [name for name in NAMES if name in set(drawable["predictor"])]
    more = f"; {count(len(labels) - len(shown), 'further label')} in the table" if len(labels) > len(shown) else ""
    drawn = card(
        f"What foretells {', '.join(shown)} on unseen prompts",
        key=[("SAE", BLUE), ("the rest", MUTED)],
        note=f"95% intervals by bootstrap{more}",
        widths=(1.0,) * len(shown),
        height=1.5 + 0.27 * len(names),
        share_y=True,
    )
    for axes, of in zip(drawn.axes, shown, strict=True):
        rows = {row["predictor"]: row for row in drawable.filter(label=of).to_dicts()}
        measure = next(iter(rows.values()))["measure"]
        for place, name in enumerate(names):
            if name not in rows:
                continue
            row, colour = rows[name], BLUE if name.startswith("sae_") else MUTED
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2.2, solid_capstyle="butt")
            axes.plot([row["value"]], [place], color=colour, marker="o", markersize=5.5, linestyle="none")
        if measure in CHANCE:
            axes.axvline(CHANCE[measure], color=VERMILION, linewidth=1.0, linestyle=":")
        axes.set_ylim(len(names) - 0.4, -0.6)
        label(axes, x=f"{of}: {MEASURES[measure]}")
    tick_names(drawn.axes[0], range(len(names)), [NAMES[name] for name in names])
    for axes in drawn.axes[1:]:
        axes.tick_params(labelleft=False)
    return png(drawn)


def figure_evidence_curve(curve: pl.DataFrame) -> bytes:
    """How well each predictor does with ever more labels, a panel for each label.

    Args:
        curve: Table `evidence_curve`.

    Returns:
        PNG bytes.
    """
    curve = curve.drop_nulls(["value"])
    if curve.is_empty():
        return message("There is no curve", "It takes 125 labelled training prompts to see what 100 labels are worth.")
    shown = curve["label"].unique().sort().to_list()[:MAX_PANELS]
    names = [name for name in NAMES if name in set(curve["predictor"])]
    colours = dict(zip(names, cycle(SERIES), strict=False))
    drawn = card(
        "What more labels add, by what is learned from",
        key=[(NAMES.get(name, name), colours[name]) for name in names],
        widths=(1.0,) * len(shown),
        height=3.3,
    )
    for axes, of in zip(drawn.axes, shown, strict=True):
        for name in names:
            rows = curve.filter(label=of, predictor=name).sort("n_labels")
            axes.plot(rows["n_labels"], rows["value"], color=colours[name], marker="o", markersize=4, linewidth=1.6)
        measure = curve.filter(label=of)["measure"][0]
        axes.set_xlim(left=0)
        label(axes, x=f"labels of {of}", y=MEASURES[measure])
    return png(drawn)


def figure_sentence_embeddings(n_read: int, n_texts: int, words: str) -> bytes:
    """How many texts the sentence encoder read.

    Args:
        n_read: Texts read now.
        n_texts: Texts of the version that have an embedding.
        words: What the encoder is, or why there is none.

    Returns:
        PNG bytes.
    """
    if not n_texts:
        return message("There are no sentence embeddings", words)
    return message(f"{count(n_texts, 'text')} embedded, {count(n_read)} of them now", words)


def figure_evidence_verdicts(verdicts: pl.DataFrame) -> bytes:
    """The verdicts in words.

    Args:
        verdicts: Table `evidence_verdicts`.

    Returns:
        PNG bytes.
    """
    if verdicts.is_empty():
        return message("There is no label to weigh signals on", "Add [labels.<name>] to the spec.")
    words = [f"{row['label']}: {row['explanation'].partition('. ')[0]}." for row in verdicts.sort("label").to_dicts()]
    return message(f"What {count(verdicts.height, 'label')} say of the signals", " ".join(words))
