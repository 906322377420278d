"""The two controls that are planned on signals of their own, through the whole graph."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from scipy.stats import spearmanr
from sklearn.metrics import adjusted_rand_score

from saerl_assets.automation.summary import RunSummary, run_version
from saerl_assets.cli import main
from saerl_assets.domain.spec import BatchSpec
from saerl_assets.resources.home import HomeResource
from saerl_assets.trainers.export import load_order
from saerl_assets_tests.tiny import KEY, N_PROMPTS, TinyWorld

ASKED = ("dense_state", "true_difficulty")
ALL = [*BatchSpec().controls, *ASKED]
WITH = "controls-v1"
SCORES = (
    *("prompts", "sae_weights", "clusters", "cluster_assignments", "difficulty_scores"),
    *("quality_probe", "quality_scores", "near_duplicates", "contamination"),
)


def rows(home: HomeResource, table: str, key: str = WITH) -> pl.DataFrame:
    return home.warehouse().rows(table, dataset_version=key)


def order(home: HomeResource, key: str = WITH) -> pl.DataFrame:
    return home.warehouse().rows("batch_manifest", manifest_id=home.version(key).current_manifest_id or "")


def metadata(summary: RunSummary) -> dict[str, object]:
    return next(dict(stage.metadata) for stage in summary.state.stages if stage.asset == "control_signals")


def test_a_version_with_both_controls(
    tiny_world: TinyWorld, copied_home: HomeResource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tiny_world.register(copied_home, WITH, batches={"controls": ALL, "mix_fraction": 0.0})
    done = run_version(copied_home, WITH)
    assert done.success, done.failure
    assert [check for check in done.state.checks if check[1] != "passed"] == []
    made = order(copied_home)
    assert set(made["arm"]) == {"clustered", "balanced", *ALL}
    of_arm = {arm: set(frame["prompt_id"]) for (arm,), frame in made.group_by("arm")}
    assert of_arm["dense_state"] == of_arm["true_difficulty"] == of_arm["clustered"]

    signals, own = rows(copied_home, "control_signals"), rows(copied_home, "cluster_assignments")
    assert signals.height == N_PROMPTS
    assert signals.select(pl.exclude("dataset_version")).null_count().sum_horizontal().item() == 0
    pair = signals.join(own, on="prompt_id")
    dense = pair["dense_cluster_id"].to_numpy()
    assert 1 < len(set(dense)) <= own["cluster_id"].n_unique()
    assert adjusted_rand_score(pair["cluster_id"].to_numpy(), dense) < 0.9, "other clusters than the SAE's"
    labels = rows(copied_home, "labels").filter(label="difficulty")
    known = signals.join(labels, on="prompt_id")
    assert (known["true_difficulty"] == known["value"]).all()
    said = metadata(done)
    assert said["known_fraction"] == 1.0
    assert "Ridge regression on dense_mean and length" in str(said["dense_difficulty"])

    ordered = made.join(signals, on="prompt_id", maintain_order="left")
    mixed = {
        (arm, column): (frame.group_by("step").agg(pl.col(column).n_unique())[column] > 1).sum()
        for (arm,), frame in ordered.group_by("arm")
        for column in ("cluster_id", "dense_cluster_id")
    }
    for arm, cluster in (("clustered", "cluster_id"), ("dense_state", "dense_cluster_id")):
        assert mixed[arm, cluster] <= ordered[cluster].n_unique()
    assert mixed["dense_state", "dense_cluster_id"] < mixed["clustered", "dense_cluster_id"]
    for arm, column in (("dense_state", "dense_difficulty"), ("true_difficulty", "true_difficulty")):
        cluster = "dense_cluster_id" if arm == "dense_state" else "cluster_id"
        for within in ordered.filter(arm=arm, is_padding=False).partition_by(cluster):
            assert within[column].is_sorted(), "easy to hard inside each cluster that it was planned on"

    page = (copied_home.open().reports / f"{WITH}.html").read_text(encoding="utf-8")
    assert ">dense state<" in page
    assert ">true difficulty<" in page
    monkeypatch.setenv("SAERL_HOME", copied_home.root)
    shown = CliRunner().invoke(main, ["show", WITH])
    assert [line for line in shown.output.splitlines() if line.startswith("control_signals") and "up to date" in line]
    for arm in ASKED:
        out = tmp_path / arm
        exported = CliRunner().invoke(main, ["export", WITH, "--to", "jsonl", "--arm", arm, "--out", str(out)])
        assert exported.exit_code == 0, exported.output
        wanted = made.filter(arm=arm).sort("epoch", "step", "slot")["prompt_id"]
        assert load_order(out)["prompt_id"].to_list() == wanted.to_list()


def borrowed(world: TinyWorld, home: HomeResource, *tables: str, **changes: object) -> RunSummary:
    """A version with all of the tiny one's scores, and what is made of them: a run of seconds."""
    world.register(home, WITH, batches={"controls": ALL}, **changes)
    with home.warehouse().writing("borrowed scores") as connection:
        for table in (*SCORES, *tables):
            connection.execute(
                f"INSERT INTO {table} SELECT * REPLACE (? AS dataset_version) FROM {table} "  # noqa: S608 - our names
                "WHERE dataset_version = ?",
                [WITH, KEY],
            )
    return run_version(home, WITH, only=["control_signals", "batch_manifest"])


def test_they_leave_all_else_of_a_version_as_it_is(tiny_world: TinyWorld, copied_home: HomeResource) -> None:
    done = borrowed(tiny_world, copied_home, "labels")
    assert done.success, done.failure
    assert rows(copied_home, "control_signals", KEY).is_empty(), "the tiny version names neither"
    shared = pl.exclude("manifest_id", "dataset_version")
    beside = order(copied_home).filter(~pl.col("arm").is_in(ASKED))
    assert beside.select(shared).equals(order(copied_home, KEY).select(shared))

    before, first = rows(copied_home, "control_signals"), order(copied_home)
    turned = "UPDATE labels SET value = 3 - value WHERE label = 'difficulty' AND dataset_version = ?"
    with copied_home.warehouse().writing("other labels") as connection:
        connection.execute(turned, [WITH])
    again = run_version(copied_home, WITH, only=["control_signals"])
    assert again.success, again.failure
    after = rows(copied_home, "control_signals")
    assert (after["true_difficulty"] == 3 - before["true_difficulty"]).all()
    assert after["dense_cluster_id"].equals(before["dense_cluster_id"])
    assert spearmanr(after["dense_difficulty"].to_numpy(), before["dense_difficulty"].to_numpy()).statistic < 0
    assert order(copied_home).equals(first), "the order in use stays as it is"


def test_without_labels_both_say_what_stands_in(tiny_world: TinyWorld, copied_home: HomeResource) -> None:
    done = borrowed(tiny_world, copied_home, labels=None)
    assert done.success, done.failure
    said = metadata(done)
    assert str(said["dense_difficulty"]).startswith("The norm of the dense state, summed over the tokens.")
    assert "[labels.difficulty]" in str(said["dense_difficulty"])
    assert str(said["true_difficulty"]).startswith("No training prompt has label 'difficulty'")
    assert said["known_fraction"] == 0.0
    in_use = rows(copied_home, "difficulty_scores").join(rows(copied_home, "control_signals"), on="prompt_id")
    assert (in_use["true_difficulty"] == in_use["difficulty"]).all()
    assert set(order(copied_home)["arm"]) == {"clustered", "balanced", *ALL}


def test_an_order_is_not_planned_on_signals_that_were_not_made(
    tiny_world: TinyWorld, copied_home: HomeResource
) -> None:
    done = borrowed(tiny_world, copied_home, "labels")
    assert done.success, done.failure
    with copied_home.warehouse().writing("lost") as connection:
        connection.execute("DELETE FROM control_signals WHERE dataset_version = ?", [WITH])
    failed = run_version(copied_home, WITH, only=["batch_manifest"])
    assert not failed.success
    assert "has no dense_cluster_id, on which a control arm is planned" in failed.failure
    assert "Materialise control_signals again" in failed.failure
