"""Evidence: planted signals are found, absent ones are not, and bad labels are told."""

from __future__ import annotations

from functools import cache

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from saerl_assets.domain import label_evidence
from saerl_assets.domain.evidence import Evidence, weigh_evidence
from saerl_assets.domain.label_values import LabelValues
from saerl_assets.domain.predictors import WholeMatrix
from saerl_assets.domain.spec import EvidenceSpec
from saerl_assets_tests.domain.feature_sets import make_prompt_ids
from saerl_assets_tests.domain.table_shapes import assert_is_table

N = 240
SPEC = EvidenceSpec(n_bootstrap=60)


@cache
def world() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    features = (rng.random((N, 40)) < 0.3) * rng.gamma(2.0, 1.0, (N, 40))
    signal = features[:, :4] @ np.array([1.0, -1.0, 0.8, -0.8])
    return {
        "features": features,
        "dense": np.concatenate([signal[:, None] + rng.normal(size=(N, 1)) * 0.3, rng.normal(size=(N, 7))], axis=1),
        "signal": signal + rng.normal(size=N) * 0.3,
        "length": rng.integers(5, 90, N).astype(float),
        "noise": rng.normal(size=N),
    }


def weigh(*labels: LabelValues, dense: str = "noise", spec: EvidenceSpec = SPEC) -> Evidence:
    of = world()
    matrices = {
        "constant": np.ones((N, 1)),
        "length": of["length"][:, None],
        "tfidf": np.random.default_rng(1).normal(size=(N, 5)),
        "dense_mean": of["dense"] if dense == "signal" else np.random.default_rng(2).normal(size=(N, 8)),
        "random_sae": np.random.default_rng(3).random((N, 40)),
        "sae_max": of["features"],
    }
    predictors = {name: WholeMatrix(sparse.csr_matrix(found, dtype=np.float32)) for name, found in matrices.items()}
    return weigh_evidence(predictors, labels, make_prompt_ids(N), of["length"], spec, 0)


def label(values: object, name: str = "d") -> LabelValues:
    return LabelValues(name, np.arange(N), list(values))  # type: ignore[call-overload]


def the_verdict(evidence: Evidence, name: str = "d") -> str:
    return str(evidence.verdicts.filter(label=name)["verdict"][0])


def test_a_planted_signal_is_found_in_every_kind_of_label() -> None:
    signal = world()["signal"]
    kinds = {
        "numeric": label(signal, "numeric"),
        "binary": label((signal > 0).astype(float), "binary"),
        "class": label([f"c{digit}" for digit in np.digitize(signal, [-1, 1])], "class"),
    }
    found = weigh(*kinds.values())
    for frame, table in ((found.signals, "signal_evidence"), (found.curve, "evidence_curve")):
        assert_is_table(frame, table)
    assert_is_table(found.verdicts, "evidence_verdicts")
    for kind in kinds:
        rows = {row["predictor"]: row for row in found.signals.filter(label=kind).to_dicts()}
        assert rows["sae_max"]["kind"] == kind
        assert rows["sae_max"]["low"] <= rows["sae_max"]["value"] <= rows["sae_max"]["high"]
        assert rows["sae_max"]["value"] > max(rows[name]["value"] or 0.0 for name in ("length", "tfidf", "dense_mean"))
        assert rows["sae_max"]["over_dense_low"] > 0
        assert rows["length"]["over_length"] == 0.0
        assert the_verdict(found, kind) == "use_sae"
    assert {row["n_rows"] for row in found.signals.to_dicts()} == {N}


def test_more_labels_help_on_the_curve() -> None:
    whole = weigh(label(world()["signal"])).curve
    assert whole["predictor"].to_list() == ["length", "tfidf", "dense_mean", "random_sae", "sae_max"]
    assert abs(whole.filter(predictor="random_sae")["value"][0]) < 0.2
    curve = whole.filter(predictor="sae_max").sort("n_labels")
    assert curve["n_labels"].to_list() == [100]
    assert curve["value"][0] > 0.2


def test_what_length_explains_is_taken_out() -> None:
    found = weigh(label(world()["length"] + world()["noise"]))
    rows = {row["predictor"]: row for row in found.signals.to_dicts()}
    assert rows["length"]["value"] > 0.9
    assert abs(rows["sae_max"]["given_length"] or 0.0) < 0.3
    assert the_verdict(found) == "cheap_is_as_good"


def test_a_dense_state_that_knows_as_much_is_told() -> None:
    found = weigh(label(world()["signal"]), dense="signal")
    assert the_verdict(found) in ("dense_is_as_good", "use_dense")
    assert "dense state is" in found.verdicts["explanation"][0]


def test_noise_is_no_signal() -> None:
    found = weigh(label(world()["noise"]))
    assert the_verdict(found) == "do_not_use"
    assert "better than chance, which makes up to 0." in found.verdicts["explanation"][0]
    assert abs(found.signals.filter(predictor="sae_max")["value"][0]) < 0.25


@pytest.mark.parametrize("kind", ["class", "binary", "numeric"])
def test_of_noise_hardly_more_escapes_than_the_five_percent_that_chance_is_allowed(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guessed classes have a higher macro F1 than the most frequent class alone: that is no signal."""
    monkeypatch.setattr(label_evidence, "N_PERMUTATIONS", 100)
    n, told = 80, []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        codes = rng.integers(0, 4 if kind == "class" else 2, n)
        values = {"class": [f"c{code}" for code in codes], "binary": codes.astype(float), "numeric": rng.normal(size=n)}
        widths = {"constant": 0, "length": 2, "tfidf": 20, "dense_mean": 10, "sae_max": 15}
        predictors = {
            name: WholeMatrix(sparse.csr_matrix(rng.random((n, width)) if width else np.ones((n, 1)), dtype=np.float32))
            for name, width in widths.items()
        }
        noise = LabelValues("d", np.arange(n), list(values[kind]))  # type: ignore[call-overload]
        names = [f"{seed} {number}" for number in range(n)]
        found = weigh_evidence(predictors, [noise], names, np.ones(n), EvidenceSpec(n_bootstrap=20), seed)
        told.append(the_verdict(found))
    assert told.count("do_not_use") >= 35, "of 40, 2 are expected to escape; 6 or more do in 1.4% of cases"


def test_topics_that_are_all_rare_are_not_measured() -> None:
    found = weigh(label([f"topic {number // 2}" for number in range(N)], "topic"))
    assert the_verdict(found, "topic") == "not_measured"
    assert "None of its 120 classes has 10 prompts or more" in found.verdicts["explanation"][0]
    assert found.signals.is_empty()


def test_responses_to_few_questions_are_not_measured() -> None:
    nothing = WholeMatrix(sparse.csr_matrix(np.zeros((N, 1), dtype=np.float32)))
    asked = [f"question {number % 6}" for number in range(N)]
    found = weigh_evidence({"sae_max": nothing}, [label(world()["signal"])], asked, np.ones(N), SPEC, 0)
    assert the_verdict(found) == "not_measured"
    assert "Its 240 prompts ask 6 questions, fewer than 10" in found.verdicts["explanation"][0]


@pytest.mark.parametrize(
    ("values", "reason"),
    [([1.0] * N, "1.0 for all"), ([float(place) for place in range(20)], "Only 20"), ([], "Only 0")],
)
def test_what_cannot_be_measured_is_said(values: list[float], reason: str) -> None:
    found = weigh(LabelValues("d", np.arange(len(values)), values))
    assert the_verdict(found) == "not_measured"
    assert reason in found.verdicts["explanation"][0]
    assert found.signals.is_empty()


def test_any_two_values_are_two_classes() -> None:
    high = world()["signal"] > 0
    found = {name: weigh(label(np.where(high, top, low))) for name, low, top in (("01", 0, 1), ("15", 1.5, 7))}
    for evidence in found.values():
        assert evidence.signals["measure"].unique().to_list() == ["auroc"]
    assert found["01"].signals.equals(found["15"].signals)


def test_rows_without_any_feature_are_measured_as_they_are() -> None:
    nothing = {"constant": np.ones((N, 1)), "length": np.ones((N, 1)), "dense_mean": np.zeros((N, 4))}
    predictors = {
        name: WholeMatrix(sparse.csr_matrix(rows, dtype=np.float32), name)
        for name, rows in {**nothing, "sae_max": np.zeros((N, 6))}.items()
    }
    found = weigh_evidence(predictors, [label(world()["signal"])], make_prompt_ids(N), np.ones(N), SPEC, 0)
    assert found.signals["value"].to_list() == [0.0] * 4
    assert the_verdict(found) == "do_not_use"


def test_many_labels_are_sampled_and_the_same_every_time() -> None:
    spec = EvidenceSpec(n_bootstrap=20, max_labels=100)
    one, two = (weigh(label(world()["signal"]), spec=spec) for _ in range(2))
    assert one.signals.equals(two.signals)
    assert one.signals["n_rows"].unique().to_list() == [100]
    assert isinstance(one.verdicts, pl.DataFrame)


def test_responses_to_one_question_are_held_out_together_and_drawn_together() -> None:
    """Columns name the question and its label is drawn at random: they foretell other responses, no other question."""
    rng = np.random.default_rng(0)
    question = np.repeat(np.arange(60), 4)
    names = WholeMatrix(sparse.csr_matrix(np.eye(60, dtype=np.float32)[question]))
    noise = WholeMatrix(sparse.csr_matrix(rng.random((60, 2))[question], dtype=np.float32))
    predictors = {"constant": noise, "length": noise, "tfidf": noise, "dense_mean": noise, "sae_max": names}
    told = label(rng.normal(size=60)[question])
    alone, together = (
        weigh_evidence(predictors, [told], asked, np.ones(N), SPEC, 0)
        for asked in (make_prompt_ids(N), [f"question {number}" for number in question])
    )
    leaky, honest = (found.signals.filter(predictor="sae_max")["value"][0] for found in (alone, together))
    assert leaky > 0.9
    assert abs(honest) < 0.3
    assert together.curve.filter(predictor="sae_max")["value"].to_list()[0] < 0.3
    width_alone, width_together = (
        found.signals.filter(predictor="length").select(pl.col("high") - pl.col("low")).item()
        for found in (alone, together)
    )
    assert width_together > 1.3 * width_alone, "sixty labels tell less than 240"
