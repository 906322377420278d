"""What `best` stands for: the winner, or what costs less and is not shown to be worse."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from saerl_assets.domain.choices import best_predictor
from saerl_assets.domain.evidence import EVIDENCE_SCHEMA
from saerl_assets.domain.kernel_ridge import linear_kernels
from saerl_assets.domain.label_evidence import LabelEvidence
from saerl_assets.domain.label_values import LabelValues
from saerl_assets.domain.predictors import CHEAPEST_FIRST, CHOOSABLE
from saerl_assets.domain.spec import EvidenceSpec
from saerl_assets_tests.domain.feature_sets import make_prompt_ids


def signals(*rows: tuple[str, float | None, float | None], label: str = "difficulty") -> pl.DataFrame:
    """Predictors with their value and the margin of the gap to the best."""
    best = max((value for _, value, _ in rows if value is not None), default=0.0)
    made = [
        dict.fromkeys(EVIDENCE_SCHEMA)
        | {
            "label": label,
            "predictor": name,
            "n_rows": 300,
            "measure": "spearman",
            "value": value,
            "behind_best": None if value is None else best - value,
            "behind_best_margin": margin,
        }
        for name, value, margin in rows
    ]
    return pl.DataFrame(made, schema=EVIDENCE_SCHEMA)


def test_the_winner_is_taken_where_nothing_cheaper_comes_near() -> None:
    found = best_predictor(signals(("length", 0.2, 0.05), ("sae_max", 0.4, 0.02)), "difficulty")
    assert found is not None
    assert (found.predictor, found.value, found.best_predictor) == ("sae_max", 0.4, "sae_max")
    assert "no cheaper one comes near enough" in found.explanation


def test_what_costs_less_is_taken_where_it_is_not_shown_to_be_worse() -> None:
    table = signals(("sae_max", 0.40, 0.03), ("dense_mean", 0.38, 0.03), ("tfidf", 0.30, 0.05))
    found = best_predictor(table, "difficulty")
    assert found is not None
    assert (found.predictor, found.best_predictor) == ("dense_mean", "sae_max")
    assert "a gap of 0.020 where chance alone makes up to 0.030" in found.explanation


def test_a_constant_is_no_candidate_and_what_was_not_measured_is_none() -> None:
    table = signals(("constant", 0.9, 1.0), ("length", None, None), ("tfidf", 0.3, None))
    found = best_predictor(table, "difficulty")
    assert found is not None
    assert found.predictor == "tfidf"
    assert best_predictor(table, "another") is None
    assert best_predictor(signals(("length", None, None)), "difficulty") is None
    assert best_predictor(pl.DataFrame(schema=EVIDENCE_SCHEMA), "difficulty") is None


def test_columns_of_the_source_are_never_taken_for_they_may_be_made_from_the_label() -> None:
    """A near copy of the label among the source's columns: the choice and its margins are those of the others."""
    rng = np.random.default_rng(0)
    n = 200
    signal = rng.normal(size=n)
    label = LabelValues("difficulty", np.arange(n), (signal + 0.5 * rng.normal(size=n)).tolist())
    told = LabelEvidence(label, make_prompt_ids(n), rng.normal(size=n), EvidenceSpec(n_bootstrap=100), 0)
    copy = np.array(label.values)[:, None] + 1e-3 * rng.normal(size=(n, 1))
    columns = {"length": rng.normal(size=(n, 1)), "metadata": copy, "sae_max": signal[:, None]}
    for name, column in columns.items():
        told.measure(name, linear_kernels(column))
    found = pl.DataFrame(told.rows(), schema=EVIDENCE_SCHEMA)
    assert found.filter(predictor="metadata")["value"][0] > 0.99
    assert found.filter(predictor="metadata")["behind_best"][0] is None
    assert found.filter(predictor="sae_max")["behind_best"][0] == 0.0
    chosen = best_predictor(found, "difficulty")
    assert chosen is not None
    assert chosen.predictor == chosen.best_predictor == "sae_max"


@pytest.mark.parametrize("seed", range(4))
def test_luck_among_many_of_equal_worth_is_not_taken_for_merit(seed: int) -> None:
    """Eleven noisy views of the same signal: one looks best, and the margins know that it may have been luck."""
    rng = np.random.default_rng(seed)
    n = 200
    signal = rng.normal(size=n)
    label = LabelValues("difficulty", np.arange(n), (signal + rng.normal(size=n)).tolist())
    told = LabelEvidence(label, make_prompt_ids(n), rng.normal(size=n), EvidenceSpec(n_bootstrap=100), seed)
    for name in CHEAPEST_FIRST:
        told.measure(name, linear_kernels(signal[:, None] + rng.normal(size=(n, 1))))
    found = pl.DataFrame(told.rows(), schema=EVIDENCE_SCHEMA)
    chosen = best_predictor(found, "difficulty")
    assert chosen is not None
    assert chosen.predictor in CHOOSABLE[:3]
    assert chosen.best_value - chosen.value <= chosen.margin < 0.25


def test_merit_is_not_taken_for_luck() -> None:
    rng = np.random.default_rng(0)
    n = 200
    signal = rng.normal(size=n)
    label = LabelValues("difficulty", np.arange(n), (signal + 0.5 * rng.normal(size=n)).tolist())
    told = LabelEvidence(label, make_prompt_ids(n), rng.normal(size=n), EvidenceSpec(n_bootstrap=100), 0)
    for name in CHEAPEST_FIRST:
        noise = 0.1 if name == "sae_mean" else 2.0
        told.measure(name, linear_kernels(signal[:, None] + noise * rng.normal(size=(n, 1))))
    chosen = best_predictor(pl.DataFrame(told.rows(), schema=EVIDENCE_SCHEMA), "difficulty")
    assert chosen is not None
    assert chosen.predictor == chosen.best_predictor == "sae_mean"
