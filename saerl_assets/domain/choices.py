"""What `best` stands for: the predictor that the evidence on one label speaks for.

Belongs here: the rule, in terms of table `signal_evidence`. Does not belong here: measuring (evidence), recording the
choice (storage).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from saerl_assets.domain.predictors import CHOOSABLE

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Choice:
    """What a setting of `best` was resolved to, with its figures."""

    predictor: str
    """The one to use, a name of `CHOOSABLE`."""
    label: str
    measure: str
    value: float
    """Its held-out value."""
    best_predictor: str
    """The one with the highest held-out value."""
    best_value: float
    margin: float
    """How far behind the best one that is as good may be by chance."""
    n_rows: int
    """Labelled prompts that both were measured on."""
    explanation: str


def best_predictor(signals: pl.DataFrame, label: str) -> Choice | None:
    """The cheapest predictor that is not shown to be worse than the best one; None where the label was not measured.

    The best of many has probably been lucky. So the gap to it is held against the largest gap that chance makes among
    all of them (`behind_best_margin`), and within that the one that costs least is taken. The source's own columns
    (`metadata`) are never taken: they may be made from the label.

    Args:
        signals: Table `signal_evidence` of one version.
        label: The label that is to be foretold.
    """
    measured = {
        row["predictor"]: row
        for row in signals.filter(label=label).to_dicts()
        if row["predictor"] in CHOOSABLE and row["value"] is not None
    }
    if not measured:
        return None
    ordered = [measured[name] for name in CHOOSABLE if name in measured]
    best = max(ordered, key=lambda row: row["value"])
    taken = next(row for row in ordered if row is best or row["behind_best"] <= (row["behind_best_margin"] or 0.0))
    margin = float(taken["behind_best_margin"] or 0.0)
    words = (
        f"{taken['predictor']} has the highest held-out {taken['measure']} for label {label!r} of {len(ordered)} "
        f"predictors, {taken['value']:.3f}, and no cheaper one comes near enough."
    )
    if taken is not best:
        words = (
            f"{best['predictor']} has the highest held-out {best['measure']} for label {label!r} of {len(ordered)} "
            f"predictors, {best['value']:.3f}; {taken['predictor']} costs less and is not shown to be worse: "
            f"{taken['value']:.3f}, a gap of {taken['behind_best']:.3f} where chance alone makes up to {margin:.3f}."
        )
    return Choice(
        predictor=taken["predictor"],
        label=label,
        measure=taken["measure"],
        value=float(taken["value"]),
        best_predictor=best["predictor"],
        best_value=float(best["value"]),
        margin=margin,
        n_rows=int(taken["n_rows"]),
        explanation=words,
    )
