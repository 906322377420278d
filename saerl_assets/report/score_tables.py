"""Tables of scores: how they rank, which prompts they call easy or hard, which ones they drop.

Belongs here: evidence, difficulty and quality. Does not belong here: HTML, which escapes every
text that comes from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.report.blocks import Column, Table, cells, columns, number, rows
from saerl_assets.report.cells import known, texts_of
from saerl_assets.report.words import count, cut, figure, least_shown

if TYPE_CHECKING:
    from saerl_assets.report.inputs import ReportInputs


def extremes_table(inputs: ReportInputs, *, hardest: bool, n: int = 6) -> Table:
    """The easiest or the hardest prompts."""
    ranked = inputs.difficulty_scores.sort(["difficulty_rank", "prompt_id"], descending=[hardest, False]).head(n)
    texts = texts_of(inputs, ranked["prompt_id"].to_list())
    least = least_shown(inputs.difficulty_scores["difficulty"])
    shown = [
        cells(
            number(row["difficulty"], figure(row["difficulty"], least)),
            cut(texts.get(row["prompt_id"], row["prompt_id"]), 220),
        )
        for row in ranked.iter_rows(named=True)
    ]
    name = "hardest" if hardest else "easiest"
    return Table(
        f"{name}-table",
        f"The {name} prompts",
        columns(Column("difficulty", "number"), Column("prompt", "long")),
        rows(shown),
    )


def evidence_table(inputs: ReportInputs) -> Table:
    """Every label and predictor with its intervals."""
    shown = [
        cells(
            row["label"],
            row["predictor"].replace("_", " "),
            row["measure"].replace("_", " "),
            number(row["value"], known(row["value"])),
            _between(row["low"], row["high"]),
            number(row["given_length"], known(row["given_length"])),
            _between(row["over_length_low"], row["over_length_high"]),
            _between(row["over_dense_low"], row["over_dense_high"]),
            _gap(row["behind_best"], row["behind_best_margin"]),
        )
        for row in inputs.signal_evidence.sort("label", "predictor").iter_rows(named=True)
    ]
    return Table(
        "evidence-table",
        "What foretells which label how well, on prompts that were not learned from",
        columns(
            "label",
            "predictor",
            "measure",
            Column("value", "number"),
            Column("95% interval"),
            Column("given length", "number", "Partial rank correlation with the token count held fixed."),
            Column("minus length", hint="95% interval of the difference to prompt length, on the same prompts."),
            Column("minus dense", hint="95% interval of the difference to the mean hidden state."),
            Column("behind the best", hint="The gap to the best one, and how large it may be by chance alone."),
        ),
        rows(shown),
    )


def _between(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.3f} to {high:.3f}"


def _gap(behind: float | None, margin: float | None) -> str:
    return "" if behind is None or margin is None else f"{behind:.3f} of {margin:.3f}"


def proxy_table(inputs: ReportInputs) -> Table:
    """How every score ranks the labelled prompts."""
    shown = [
        cells(
            row["score_name"],
            row["rows"].replace("_", " "),
            number(row["n_rows"], count(row["n_rows"])),
            number(row["spearman"], known(row["spearman"])),
            _between(row["low"], row["high"]),
            number(row["r2"], known(row["r2"])),
            _between(row["over_length_low"], row["over_length_high"]),
            row["explanation"],
        )
        for row in inputs.difficulty_proxy.iter_rows(named=True)
    ]
    return Table(
        "proxy-table",
        "What ranks the labelled prompts how well",
        columns(
            "score",
            "rows",
            Column("prompts", "number"),
            Column("Spearman", "number", "Rank correlation with the label."),
            Column("95% interval"),
            Column("R²", "number", "Share of the label's variance explained, once the score is on its scale."),
            Column("minus length", hint="95% interval of the difference to prompt length, on the same prompts."),
            Column("what it is", "long"),
        ),
        rows(shown),
    )


def probe_table(inputs: ReportInputs) -> Table:
    """How well the quality probe predicts."""
    shown = [
        cells(
            row["probe"],
            row["rows"].replace("_", " "),
            number(row["n_rows"], count(row["n_rows"])),
            number(row["base_rate"], known(row["base_rate"])),
            number(row["auroc"], known(row["auroc"])),
            number(row["brier"], known(row["brier"])),
            row["explanation"],
        )
        for row in inputs.quality_probe.iter_rows(named=True)
    ]
    return Table(
        "probe-table",
        "The probe",
        columns(
            "probe",
            "rows",
            Column("prompts", "number"),
            Column("base rate", "number", "Share of correct outcomes."),
            Column("AUROC", "number", "0.5 is chance, 1 is perfect."),
            Column("Brier", "number", "Mean squared error of the probability."),
            Column("what it is", "long"),
        ),
        rows(shown),
    )


def dropped_table(inputs: ReportInputs, n: int = 12) -> Table:
    """Prompts that are dropped for quality, the worst first."""
    dropped = inputs.quality_scores.filter(~pl.col("kept")).sort("quality", "prompt_id", nulls_last=True)
    texts = texts_of(inputs, dropped["prompt_id"].head(n).to_list())
    shown = [
        cells(
            number(row["quality"], known(row["quality"])),
            cut(texts.get(row["prompt_id"], row["prompt_id"]), 220),
            row["reason"],
        )
        for row in dropped.head(n).iter_rows(named=True)
    ]
    return Table(
        "dropped-table",
        "Dropped for quality, the worst first",
        columns(Column("quality", "number"), Column("prompt", "long"), Column("why", "long")),
        rows(shown),
        note=f"{count(dropped.height - n)} more are in the table quality_scores." if dropped.height > n else "",
    )
