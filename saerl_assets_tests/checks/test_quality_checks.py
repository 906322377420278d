from __future__ import annotations

import polars as pl
import pytest

from saerl_assets.checks.quality import auroc_suffices, dropped_within
from saerl_assets_tests.checks.cases import Case

PROMPTS = pl.DataFrame({"prompt_id": list("abcde"), "split": ["train"] * 4 + ["evaluation"]})


def probe(auroc: float | None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "rows": ["held_out", "fitted"],
            "auroc": [auroc, 0.99],
            "n_rows": [80, 80],
            "explanation": ["No labels; add [labels.correct].", "No labels; add [labels.correct]."],
        },
        schema_overrides={"auroc": pl.Float64},
    )


def kept(*values: bool) -> pl.DataFrame:
    return pl.DataFrame({"prompt_id": list("abcde")[: len(values)], "kept": list(values)})


BEATS, WITHIN = "quality_probe.probe_beats_chance", "quality_scores.filter_within_limits"

CASES = [
    Case(BEATS, True, "AUROC 0.700", lambda: auroc_suffices(probe(0.7), 0.55)),
    Case(BEATS, True, "add [labels.correct]", lambda: auroc_suffices(probe(None), 0.55)),
    Case(BEATS, False, "AUROC 0.540 is below 0.55", lambda: auroc_suffices(probe(0.54), 0.55)),
    Case(WITHIN, True, "1 of 4", lambda: dropped_within(kept(False, True, True, True, True), PROMPTS, 0.25)),
    Case(WITHIN, True, "0 of 4", lambda: dropped_within(kept(True, True, True, True, False), PROMPTS, 0.0)),
    Case(WITHIN, False, "2 of 4", lambda: dropped_within(kept(False, False, True, True, True), PROMPTS, 0.25)),
    Case(WITHIN, False, "not the version's", lambda: dropped_within(kept(True, True, True, True), PROMPTS, 0.25)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_quality_checks(case: Case) -> None:
    case.hold()
