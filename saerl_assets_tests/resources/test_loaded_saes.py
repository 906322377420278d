"""Versions that name the same SAE: one sink threshold in a home, so that a text is read once and for all."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from saerl_assets.automation.summary import run_version
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.tiny import TinyWorld, make_world, write_rows

N_FIRST, N_NEW = 120, 10
UP_TO_FEATURES = ("versions", "prompts", "sae_weights", "sae_health", "control_saes", "prompt_features")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    """Prompts of random letters and lengths: the median norm of one sample of them is not that of another."""
    world = make_world(tmp_path_factory.mktemp("varied"))
    rng = random.Random(5)  # noqa: S311 - test data
    letters = "abcdefghij klmnop qrstuv"
    asked = ["".join(rng.choice(letters) for _ in range(rng.randrange(12, 50))) for _ in range(N_FIRST + N_NEW)]
    rows = [{"question": text, "answer": "1", "family": "f", "level": 1, "correct": True} for text in asked]
    for name, taken in {"base": rows[:N_FIRST], "more": rows, "fewer": rows[N_FIRST // 2 :]}.items():
        write_rows(world.folder / f"{name}.jsonl", [json.dumps(row) for row in taken])
    return world


def made(world: TinyWorld, home: HomeResource, key: str, file: str, **changes: object) -> tuple[dict[str, Any], int]:
    """The version's row of `sae_weights`, and how many texts were read for its features."""
    world.register(home, key, data={"source": f"path:{file}.jsonl"}, **changes)
    done = run_version(home, key, only=UP_TO_FEATURES)
    assert done.success, done.failure
    features = next(stage for stage in done.state.stages if stage.asset == "prompt_features")
    return weights(home, key), int(str(features.metadata["texts_read"]))


def weights(home: HomeResource, key: str) -> dict[str, Any]:
    found: pl.DataFrame = home.warehouse().rows("sae_weights", dataset_version=key)
    return found.row(0, named=True)


def test_a_child_that_names_its_parents_sae_again_reads_only_what_is_new(
    world: TinyWorld, fresh_home: HomeResource
) -> None:
    parent, _ = made(world, fresh_home, "varied-v1", "base")
    child, n_read = made(world, fresh_home, "varied-v2", "more", parent="varied-v1")
    assert child["source"] == "path:sae", "it is named, not taken over"
    assert n_read == N_NEW
    identity = ("sink_threshold", "reading_id", "encoder_id")
    assert [child[name] for name in identity] == [parent[name] for name in identity]
    measured = {
        key: fresh_home.warehouse().rows("sae_health", dataset_version=key) for key in ("varied-v1", "varied-v2")
    }
    assert measured["varied-v2"]["n_tokens"][0] < 50 * N_NEW, "health is measured on the new texts, read anyhow"
    assert measured["varied-v1"]["n_tokens"][0] > 50 * N_NEW


def test_a_version_without_a_parent_shares_it_too_and_keeps_it_when_made_again(
    world: TinyWorld, fresh_home: HomeResource
) -> None:
    first, _ = made(world, fresh_home, "varied-v1", "base")
    other, n_read = made(world, fresh_home, "varied-v3", "fewer")
    assert (other["encoder_id"], n_read) == (first["encoder_id"], N_NEW)
    assert run_version(fresh_home, "varied-v1", only=["sae_weights"], everything=True).success
    assert weights(fresh_home, "varied-v1") == first


def test_the_threshold_belongs_to_the_reader_as_well(
    world: TinyWorld, fresh_home: HomeResource, tmp_path: Path
) -> None:
    def threshold(home: HomeResource, key: str, file: str = "base", **reader: object) -> float:
        world.register(home, key, data={"source": f"path:{file}.jsonl"}, reader=reader)
        assert run_version(home, key, only=["versions", "prompts", "sae_weights"]).success
        return float(weights(home, key)["sink_threshold"])

    first = threshold(fresh_home, "varied-v1")
    assert threshold(fresh_home, "chat-v1", template="chat", max_tokens=100) != first
    assert threshold(fresh_home, "keen-v1", sink_multiple=4.0) == pytest.approx(first * 4.0 / 10.0)
    assert threshold(fresh_home, "long-v1", "fewer", max_tokens=100) == first, "texts that are left out change nothing"
    assert threshold(HomeResource(root=str(tmp_path / "another")), "varied-v1", "fewer") != first, "the prompts differ"
