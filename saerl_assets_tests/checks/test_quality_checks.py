from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from saerl_assets.checks.quality import (
    auroc_suffices,
    calibrated_within,
    dropped_within,
    gap_within,
    newer_within,
    nothing_has_changed,
)
from saerl_assets.domain.calibration import calibration_curve
from saerl_assets_tests.checks.cases import Case

PROMPTS = pl.DataFrame({"prompt_id": list("abcde"), "split": ["train"] * 4 + ["evaluation"]})
MISSING = "No labels; add [labels.correct]."
START = datetime(2026, 1, 1)  # noqa: DTZ001 - the warehouse's timestamps are UTC without saying so


def probe(
    auroc: float | None, *, low: float = 0.6, fitted: float = 0.8, brier: float = 0.2, n_observations: int = 80
) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "rows": ["held_out", "fitted"],
            "predictor": ["sae_max", "sae_max"],
            "encoders": ["a b", "a b"],
            "digest": ["0" * 64] * 2,
            "auroc": [auroc, fitted],
            "auroc_low": [low, None],
            "auroc_high": [0.9, None],
            "brier": [brier, 0.1],
            "base_rate": [0.4, 0.4],
            "n_rows": [80, 80],
            "n_observations": [n_observations] * 2,
            "explanation": [MISSING, MISSING],
        },
        schema_overrides={"auroc": pl.Float64, "auroc_low": pl.Float64},
    )


def untrained(metrics: pl.DataFrame) -> pl.DataFrame:
    return metrics.with_columns(digest=pl.lit(None, pl.String), encoders=pl.lit(None, pl.String))


def kept(*values: bool) -> pl.DataFrame:
    return pl.DataFrame({"prompt_id": list("abcde")[: len(values)], "kept": list(values)})


def observed(n: int, label: str = "correct", *, values: list[float] | None = None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "label": [label] * n,
            "observation_id": [f"{label} {i}" for i in range(n)],
            "prompt_id": [f"prompt {i}" for i in range(n)],
            "value": values or [float(i % 2) for i in range(n)],
            "observed_at": [START + timedelta(hours=i) for i in range(n)],
        }
    )


def curve(error: float) -> pl.DataFrame:
    probability = np.linspace(0.2, 0.6, 500)
    return calibration_curve("logistic", probability, probability + error, np.ones(500))


SCORES = pl.DataFrame(
    {"prompt_id": [f"prompt {i}" for i in range(200)], "quality": [i % 2 + i / 1e6 for i in range(200)]}
)
"""Right of every prompt as `observed` has it."""
UPSIDE_DOWN = SCORES.with_columns(quality=1 - pl.col("quality"))

BEATS, OVERFITS, FRESH = (
    f"quality_probe.{name}" for name in ("probe_beats_chance", "probe_does_not_overfit", "probe_is_fresh")
)
HOLDS = "probe_calibration.probabilities_hold"
WITHIN, NEWER = "quality_scores.filter_within_limits", "quality_scores.newer_labels_agree"

CASES = [
    Case(BEATS, True, "AUROC 0.700, 95% interval 0.600", lambda: auroc_suffices(probe(0.7), 0.55)),
    Case(BEATS, True, "add [labels.correct]", lambda: auroc_suffices(probe(None), 0.55)),
    Case(BEATS, False, "AUROC 0.540 is below 0.55", lambda: auroc_suffices(probe(0.54), 0.55)),
    Case(BEATS, False, "0.600 may be chance", lambda: auroc_suffices(probe(0.6, low=0.48), 0.55)),
    Case(OVERFITS, True, "a gap of 0.100", lambda: gap_within(probe(0.7), 0.3)),
    Case(OVERFITS, True, "add [labels.correct]", lambda: gap_within(probe(None), 0.3)),
    Case(OVERFITS, False, "learned prompts by heart", lambda: gap_within(probe(0.6, fitted=0.95), 0.3)),
    Case(FRESH, True, "all 80", lambda: nothing_has_changed(probe(0.7), observed(80), "a b", "correct")),
    Case(
        FRESH,
        True,
        "all 80",
        lambda: nothing_has_changed(untrained(probe(None)), observed(80), "a b", "correct"),
    ),
    Case(FRESH, False, "there are 90", lambda: nothing_has_changed(probe(0.7), observed(90), "a b", "correct")),
    Case(FRESH, False, "other encoders", lambda: nothing_has_changed(probe(0.7), observed(80), "b", "correct")),
    Case(FRESH, False, "other encoders", lambda: nothing_has_changed(probe(0.7), observed(80), None, "correct")),
    Case(HOLDS, True, "0.020 apart", lambda: calibrated_within(curve(0.02), probe(0.7), 0.1)),
    Case(HOLDS, True, "add [labels.correct]", lambda: calibrated_within(curve(0.02).clear(), probe(None), 0.1)),
    Case(HOLDS, False, "0.150 apart", lambda: calibrated_within(curve(0.15), probe(0.7), 0.1)),
    Case(HOLDS, False, "Brier score is 0.300", lambda: calibrated_within(curve(0.02), probe(0.7, brier=0.3), 0.1)),
    Case(WITHIN, True, "1 of 4", lambda: dropped_within(kept(False, True, True, True, True), PROMPTS, 0.25)),
    Case(WITHIN, True, "0 of 4", lambda: dropped_within(kept(True, True, True, True, False), PROMPTS, 0.0)),
    Case(WITHIN, False, "2 of 4", lambda: dropped_within(kept(False, False, True, True, True), PROMPTS, 0.25)),
    Case(WITHIN, False, "not the version's", lambda: dropped_within(kept(True, True, True, True), PROMPTS, 0.25)),
    Case(NEWER, True, "AUROC is 1.000", lambda: newer_within(SCORES, probe(0.7), observed(200), "correct")),
    Case(NEWER, True, "no newer labels", lambda: newer_within(UPSIDE_DOWN, probe(0.7), observed(80), "correct")),
    Case(NEWER, True, "too few", lambda: newer_within(UPSIDE_DOWN, probe(0.7), observed(109), "correct")),
    Case(NEWER, True, "add [labels.correct]", lambda: newer_within(SCORES, probe(None), observed(200), "correct")),
    Case(NEWER, False, "has become worse", lambda: newer_within(UPSIDE_DOWN, probe(0.7), observed(200), "correct")),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_quality_checks(case: Case) -> None:
    case.hold()


def test_only_prompts_that_were_not_labelled_before_are_newer() -> None:
    again = observed(200).with_columns(prompt_id=pl.format("prompt {}", pl.int_range(200) % 80))
    found = newer_within(UPSIDE_DOWN, probe(0.7), again, "correct")
    assert found.passed
    assert "no newer labels" in (found.description or "")
