"""Signals through the graph: what they are learned from, what `best` is resolved to, sentence embeddings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from saerl_assets.automation.summary import run_version
from saerl_assets.checks.quality import nothing_has_changed
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.predictors import CHEAPEST_FIRST
from saerl_assets.models.sentences import SentenceEncoder
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.predictors import encoders_behind
from saerl_assets_tests.models.test_sentences import write_encoder
from saerl_assets_tests.tiny import KEY, N_PROMPTS, TinyWorld, source_lines, source_rows, write_rows

UP_TO_EVIDENCE = (
    "versions",
    "prompts",
    "labels",
    "sae_weights",
    "sae_health",
    "control_saes",
    "prompt_features",
    "sentence_embeddings",
    "signal_evidence",
)
UP_TO_DIFFICULTY = (*UP_TO_EVIDENCE, "difficulty_scores")
FAST = {"n_bootstrap": 40}
N_NEW = 12


def run(world: TinyWorld, home: HomeResource, key: str, stages: Sequence[str], /, **changes: object) -> None:
    world.register(home, key, **changes)
    done = run_version(home, key, only=stages)
    assert done.success, done.failure


def proxy(home: HomeResource, key: str) -> dict[str, Any]:
    found = home.warehouse().rows("difficulty_proxy", dataset_version=key)
    return found.row(by_predicate=(pl.col("score_name") == "proxy") & (pl.col("rows") == "held_out"), named=True)


@pytest.fixture(scope="module")
def grown(tiny_world: TinyWorld) -> TinyWorld:
    """The tiny world with an encoder, and with a file that has more rows of the same kinds."""
    more = [json.dumps(row) for row in source_rows(N_PROMPTS + N_NEW)[N_PROMPTS:]]
    write_rows(tiny_world.folder / "more_signals.jsonl", [*source_lines(), *more])
    write_encoder(tiny_world.folder / "encoder")
    return tiny_world


def test_best_is_resolved_once_and_anew_in_a_child(grown: TinyWorld, copied_home: HomeResource) -> None:
    best = {"predictor": "best", "min_labels": 20}
    run(grown, copied_home, "best-v1", UP_TO_DIFFICULTY, difficulty=best, evidence=FAST)
    choice = copied_home.version("best-v1").choices["difficulty.predictor"]
    evidence = copied_home.warehouse().rows("signal_evidence", dataset_version="best-v1")
    row = evidence.row(
        by_predicate=(pl.col("label") == "difficulty") & (pl.col("predictor") == choice["predictor"]), named=True
    )
    assert choice["value"] == row["value"]
    assert row["behind_best"] <= max(row["behind_best_margin"], 0.0)
    before = proxy(copied_home, "best-v1")
    assert choice["explanation"] in before["explanation"]

    # evidence on other labels says something else later: the version stays what it is
    other = next(name for name in evidence["predictor"] if name not in ("constant", "metadata", choice["predictor"]))
    of_other = pl.col("predictor") == other
    changed = evidence.with_columns(
        value=pl.when(of_other).then(1.0).otherwise(0.1),
        behind_best=pl.when(of_other).then(0.0).otherwise(0.9),
        behind_best_margin=pl.lit(0.0),
    )
    copied_home.warehouse().store("signal_evidence", changed.drop("dataset_version"), "best-v1")
    assert run_version(copied_home, "best-v1", only=["difficulty_scores"]).success
    assert copied_home.version("best-v1").choices["difficulty.predictor"] == choice
    assert proxy(copied_home, "best-v1") == before

    grown.register(copied_home, "best-v2", parent="best-v1", sae=None, difficulty=best, evidence=FAST)
    assert copied_home.version("best-v2").choices == {}
    assert run_version(copied_home, "best-v2", only=UP_TO_DIFFICULTY).success
    assert copied_home.version("best-v2").choices["difficulty.predictor"]["predictor"] in CHEAPEST_FIRST


def test_best_waits_for_labels_and_says_so(grown: TinyWorld, copied_home: HomeResource) -> None:
    run(
        grown,
        copied_home,
        "bare-v1",
        UP_TO_DIFFICULTY,
        labels=None,
        difficulty={"predictor": "best"},
        evidence=FAST,
    )
    assert copied_home.version("bare-v1").choices == {}
    assert "[labels.difficulty]" in proxy(copied_home, "bare-v1")["explanation"]


@pytest.mark.parametrize("name", ["length", "tfidf", "dense_last", "random_sae", "sae_mean", "combined"])
def test_difficulty_is_learned_from_the_predictor_that_is_named(
    name: str, grown: TinyWorld, copied_home: HomeResource
) -> None:
    settings = {"predictor": name, "regressor": "ridge", "min_labels": 20}
    run(
        grown,
        copied_home,
        "named-v1",
        (
            "versions",
            "prompts",
            "labels",
            "sae_weights",
            "sae_health",
            "control_saes",
            "prompt_features",
            "difficulty_scores",
        ),
        difficulty=settings,
    )
    found = proxy(copied_home, "named-v1")
    assert f"Ridge regression on {name}" in found["explanation"]
    scores = copied_home.warehouse().rows("difficulty_scores", dataset_version="named-v1")
    assert scores["proxy"].is_finite().all()


def test_the_quality_probe_learns_from_the_best_and_scores_with_it(grown: TinyWorld, copied_home: HomeResource) -> None:
    best = {"predictor": "best", "min_labels": 20}
    run(grown, copied_home, "probed-v1", (*UP_TO_EVIDENCE, "quality_probe"), quality=best, evidence=FAST)
    chosen = copied_home.version("probed-v1").choices["quality.predictor"]
    probe = copied_home.warehouse().rows("quality_probe", dataset_version="probed-v1")
    assert set(probe["predictor"]) == {chosen["predictor"]}
    # scored with the columns that the probe learned from, whatever the choice would be now
    assert run_version(copied_home, "probed-v1", only=["quality_scores"]).success
    scores = copied_home.warehouse().rows("quality_scores", dataset_version="probed-v1")
    assert scores["quality"].is_between(0, 1).all()
    assert scores["quality"].n_unique() > 1


def test_poolings_side_by_side_with_length(grown: TinyWorld, copied_home: HomeResource) -> None:
    settings = {"pooling": ["max", "mean", "last"], "with_length": True, "regressor": "ridge", "min_labels": 20}
    run(
        grown,
        copied_home,
        "wide-v1",
        (
            "versions",
            "prompts",
            "labels",
            "sae_weights",
            "sae_health",
            "control_saes",
            "prompt_features",
            "difficulty_scores",
        ),
        difficulty=settings,
    )
    assert "on sae_max+mean+last and length," in proxy(copied_home, "wide-v1")["explanation"]


def test_sentences_are_weighed_and_read_once(
    grown: TinyWorld, copied_home: HomeResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    n_read: list[int] = []
    embed = SentenceEncoder.embed

    def counted(self: SentenceEncoder, texts: Sequence[str], **how: int) -> object:
        n_read.append(len(texts))
        return embed(self, texts, **how)

    monkeypatch.setattr(SentenceEncoder, "embed", counted)
    named = {"evidence": {**FAST, "sentence_model": "path:encoder"}}
    learned = {"predictor": "sentence", "min_labels": 20, "regressor": "ridge"}
    run(grown, copied_home, "said-v1", UP_TO_DIFFICULTY, **named, difficulty=learned)
    assert sum(n_read) == N_PROMPTS
    evidence = copied_home.warehouse().rows("signal_evidence", dataset_version="said-v1")
    assert evidence.filter(predictor="sentence").height == evidence["label"].n_unique()
    assert "sentence" in proxy(copied_home, "said-v1")["explanation"], "of random weights, it may foretell nothing"
    kept = copied_home.warehouse().rows("sentence_embeddings")
    assert kept.height == N_PROMPTS
    n_read.clear()
    assert run_version(copied_home, "said-v1", only=["sentence_embeddings"]).success
    assert n_read == []
    more = {"data": {"source": "path:more_signals.jsonl"}}
    run(grown, copied_home, "said-v2", ("versions", "prompts", "sentence_embeddings"), **named, **more)
    assert sum(n_read) == N_NEW
    assert not list(copied_home.open().work("said-v2").rglob("*.parquet"))
    both = copied_home.warehouse().rows("sentence_embeddings")
    assert both.join(kept, on=["model_id", "text_digest"], how="semi").equals(kept)

    assert copied_home.catalog().delete("said-v2")["sentence_embeddings"] == N_NEW
    assert copied_home.warehouse().rows("sentence_embeddings").equals(kept)


def test_a_text_without_a_vector_is_told(grown: TinyWorld, copied_home: HomeResource) -> None:
    from saerl_assets.resources.sentences import sentence_vectors

    grown.register(copied_home, "said-v1", evidence={"sentence_model": "path:encoder"})
    prompts = copied_home.warehouse().rows("prompts", dataset_version=KEY)
    vectors = sentence_vectors(copied_home, copied_home.version("said-v1"), prompts)
    assert vectors is not None
    with pytest.raises(SaerlError, match="no sentence vector") as refused:
        vectors.take(np.arange(3))
    assert "Materialise sentence_embeddings" in refused.value.remedy


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("sae_max", "UPDATE sae_weights SET encoder_id = 'another SAE'"),
        ("dense_mean", "UPDATE sae_weights SET reading_id = 'another layer'"),
        ("random_sae", "UPDATE control_saes SET encoder_id = 'another control'"),
    ],
)
def test_what_makes_a_predictor_is_told_from_what_made_it_before(
    name: str, change: str, copied_home: HomeResource
) -> None:
    before = encoders_behind(copied_home, KEY, name)
    assert before
    with copied_home.warehouse().writing("test") as connection:
        connection.execute(change)
    assert encoders_behind(copied_home, KEY, name) not in (before, None)


def test_a_probe_on_sentence_embeddings_is_stale_once_its_encoder_has_changed(
    grown: TinyWorld, copied_home: HomeResource
) -> None:
    place = grown.folder / "encoder-of-a-probe"
    write_encoder(place)
    learned = {"predictor": "sentence", "min_labels": 20, "probe": "ridge"}
    evidence = FAST | {"sentence_model": f"path:{place}"}
    run(grown, copied_home, "known-v1", (*UP_TO_EVIDENCE, "quality_probe"), quality=learned, evidence=evidence)

    def freshness() -> tuple[bool, str]:
        tables = ("quality_probe", "label_observations")
        metrics, observed = (copied_home.warehouse().rows(table, dataset_version="known-v1") for table in tables)
        told = nothing_has_changed(metrics, observed, encoders_behind(copied_home, "known-v1", "sentence"), "correct")
        return bool(told.passed), str(told.description)

    assert freshness()[0]
    (place / "sentence_bert_config.json").write_text('{"max_seq_length": 5}')
    is_fresh, says = freshness()
    assert not is_fresh
    assert "on sentence of another reader or other encoders" in says


@pytest.mark.parametrize(
    ("section", "name", "evidence", "said"),
    [
        ("difficulty", "sentence", {}, "evidence.sentence_model"),
        ("quality", "sentence", {}, "evidence.sentence_model"),
        ("difficulty", "random_sae", {"random_sae": False}, "evidence.random_sae"),
    ],
)
def test_a_predictor_that_is_not_made_is_refused_before_anything_runs(
    section: str, name: str, evidence: dict[str, object], said: str, grown: TinyWorld, fresh_home: HomeResource
) -> None:
    with pytest.raises(SaerlError, match=said):
        grown.register(fresh_home, "refused-v1", **{section: {"predictor": name}, "evidence": evidence})
    assert not Path(fresh_home.open().warehouse).exists()


def test_a_choice_stands_once_it_is_recorded(copied_home: HomeResource) -> None:
    catalog = copied_home.catalog()
    first, second = {"predictor": "tfidf"}, {"predictor": "length"}
    assert catalog.record_choice(KEY, "quality.predictor", first) == first
    assert catalog.record_choice(KEY, "quality.predictor", second) == first
    version = catalog.get(KEY)
    assert version.choices == {"quality.predictor": first}
    assert version.sources, "what was resolved before is still there"
    with pytest.raises(SaerlError, match="no version"):
        catalog.record_choice("none-v1", "quality.predictor", first)
