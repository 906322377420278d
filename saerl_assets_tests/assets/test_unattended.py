"""A version that runs unattended: labels and logs that arrive later, epochs that follow them, and making room."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from click.testing import CliRunner, Result
from scipy.stats import spearmanr

from saerl_assets.automation.feedback import DUE_METADATA, FEEDBACK_TABLES, ORDER_TABLES, next_epoch_sensor
from saerl_assets.automation.late_labels import add_labels
from saerl_assets.automation.runs import open_instance
from saerl_assets.automation.summary import run_version
from saerl_assets.cli import EXIT_USER_ERROR, main
from saerl_assets.definitions import defs
from saerl_assets.domain.errors import SaerlError
from saerl_assets.placement import Placement
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.inbox import Inbox
from saerl_assets_tests.tiny import KEY, TinyWorld

STOPPED = dg.DefaultSensorStatus.STOPPED


def write_log(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def metadata(home: HomeResource, asset: str, key: str = KEY) -> dict[str, Any]:
    """Of the newest materialization of an asset of a version."""
    with open_instance(home.open().dagster) as instance:
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[key])
        made = instance.fetch_materializations(wanted, limit=1).records[0].asset_materialization
    assert made is not None
    return {name: value.value for name, value in made.metadata.items()}


def test_late_labels_are_appended_and_refresh_scores_and_nothing_else(
    copied_home: HomeResource, tmp_path: Path
) -> None:
    warehouse = copied_home.warehouse()
    prompts = warehouse.rows("prompts", dataset_version=KEY)
    before = {name: warehouse.rows(name) for name in ("label_observations", "manifests", "batch_manifest")}
    version = copied_home.version(KEY)
    graded = [{"prompt_id": name, "correct": place % 2} for place, name in enumerate(prompts["prompt_id"].head(40))]
    path = write_log(tmp_path / "graded.jsonl", [*graded, {"prompt": "Nobody asked this", "correct": 1}])
    added = add_labels(copied_home, KEY, path)
    assert added.failure == ""
    assert added.words == "40 observations of correct; 1 of 41 rows were not taken."
    assert {"labels", "quality_scores", "difficulty_scores", "signal_evidence"} <= set(added.refreshed)
    assert not {"batch_manifest", "manifests", "trainer_exports", "clusters"} & set(added.refreshed)
    after = warehouse.rows("label_observations")
    assert after.height == before["label_observations"].height + 40
    assert (
        after.join(before["label_observations"], on="observation_id", how="semi").height
        == before["label_observations"].height
    ), "what was there stays"
    assert warehouse.rows("labels")["n_observations"].sum() == after.height
    for name in ("manifests", "batch_manifest"):
        assert warehouse.rows(name).equals(before[name])
    assert copied_home.version(KEY).current_manifest_id == version.current_manifest_id
    kept = warehouse.rows("rejected_feedback", dataset_version=KEY)
    assert kept.select("line", "reason_code").rows() == [(41, "no_such_prompt")]
    assert warehouse.rows("feedback_files", dataset_version=KEY)["n_unmatched"].to_list() == [1]

    same_bytes = tmp_path / "other name.jsonl"
    same_bytes.write_bytes(path.read_bytes())
    again = add_labels(copied_home, KEY, same_bytes)
    assert "taken up before" in again.words
    assert warehouse.rows("label_observations").equals(after)


def test_a_training_log_is_feedback_and_is_held_against_difficulty(copied_home: HomeResource, tmp_path: Path) -> None:
    warehouse = copied_home.warehouse()
    manifest = copied_home.version(KEY).current_manifest_id
    scores = warehouse.rows("difficulty_scores", dataset_version=KEY)
    rows = [
        {"manifest_id": manifest, "step": place // 8, "prompt_id": row["prompt_id"], "epoch": 0, "reward": reward}
        for place, row in enumerate(scores.iter_rows(named=True))
        for reward in (1.0 - row["difficulty_rank"], 0.9 - row["difficulty_rank"] ** 2)
    ]
    added = add_labels(copied_home, KEY, write_log(tmp_path / "saerl_log.jsonl", rows), run_name="warm up")
    assert added.failure == ""
    assert added.refreshed == [], "a log holds no labels"
    stored = warehouse.rows("training_feedback", dataset_version=KEY)
    assert stored.height == scores.height
    assert stored["n_completions"].unique().to_list() == [2]
    assert set(stored["run_name"]) == {"warm up"}
    (told,) = warehouse.query("FROM difficulty_feedback_correlation").to_dicts()
    pairs = stored.join(scores, on="prompt_id")
    assert told["spearman"] == pytest.approx(spearmanr(pairs["difficulty"], pairs["reward"]).statistic)
    assert told["n_prompts"] == scores.height
    found = metadata(copied_home, "training_feedback")
    assert found["difficulty_reward_spearman"] == pytest.approx(told["spearman"])
    assert found["figure"].startswith("![")
    assert warehouse.query("SELECT count(*) FROM difficulty_feedback").item() == scores.height

    with warehouse.writing("a kill before the last row") as connection:
        connection.execute("DELETE FROM feedback_files")
    assert run_version(copied_home, KEY, only=list(FEEDBACK_TABLES)).success
    assert warehouse.rows("feedback_files").height == 1
    assert warehouse.rows("training_feedback", dataset_version=KEY).equals(stored), "nothing is doubled"


def test_a_file_that_is_no_log_is_set_aside_and_the_next_one_is_taken(
    copied_home: HomeResource, tmp_path: Path
) -> None:
    inbox = Inbox(copied_home.open())
    (tmp_path / "torn.json").write_text("{")
    inbox.add_labels(KEY, tmp_path / "torn.json")
    one = copied_home.warehouse().rows("prompts", ["prompt_id"], dataset_version=KEY)["prompt_id"][0]
    inbox.add_labels(KEY, write_log(tmp_path / "good.jsonl", [{"prompt_id": one, "reward": 0.5}]))
    assert run_version(copied_home, KEY, only=list(FEEDBACK_TABLES)).success
    assert copied_home.warehouse().rows("feedback_files")["file"].to_list() == ["good.jsonl"]
    assert [path.suffix for path in (inbox.folder / "rejected").glob("*.txt")] == [".txt"]
    with pytest.raises(SaerlError, match="unknown_version"):
        add_labels(copied_home, "nobody-v1", tmp_path / "good.jsonl")


def test_the_command_line_adds_and_refuses_in_words(copied_home: HomeResource, tmp_path: Path) -> None:
    one = copied_home.warehouse().rows("prompts", ["prompt_id"], dataset_version=KEY)["prompt_id"][0]
    good = write_log(tmp_path / "good.jsonl", [{"prompt_id": one, "step": 3, "reward": 0.5}])
    torn = tmp_path / "torn.json"
    torn.write_text("{")

    def saerl(*words: str) -> Result:
        return CliRunner().invoke(main, ["--home", copied_home.root, "labels", "add", *words])

    added = saerl(KEY, str(good), "--run", "warm up")
    assert added.exit_code == 0, added.output
    assert "good.jsonl: feedback of 1 steps on 1 prompts." in added.output
    assert "difficulty_feedback_correlation" in added.output
    for words, code in (
        ((KEY, str(torn)), "feedback_unreadable"),
        ((KEY, str(tmp_path / "nowhere.jsonl")), "source_missing"),
        (("nobody-v1", str(good)), "unknown_version"),
    ):
        refused = saerl(*words)
        assert refused.exit_code == EXIT_USER_ERROR, refused.output
        assert f"[{code}]" in refused.output


def recorded(home: HomeResource, key: str, reward: float) -> list[dict[str, Any]]:
    """A log of a training that followed the current manifest to its end and got this reward throughout."""
    version = home.version(key)
    order = home.warehouse().rows("batch_manifest", manifest_id=version.current_manifest_id)
    exported = order.filter(pl.col("arm") == version.spec.batches.planner)
    return [
        {"manifest_id": row["manifest_id"], "step": row["step"], "prompt_id": row["prompt_id"], "reward": reward}
        for row in exported.iter_rows(named=True)
    ]


def tick(home: HomeResource, seen: set[str]) -> list[str]:
    """Partitions for which the sensor `next_epoch` asks for a plan that it has not asked for before."""
    with (
        open_instance(home.open().dagster) as instance,
        dg.partition_loading_context(dynamic_partitions_store=instance),
        dg.build_sensor_context(
            instance=instance, resources={"saerl_home": home}, repository_def=defs.get_repository_def()
        ) as context,
    ):
        found = next_epoch_sensor(Placement(), STOPPED).evaluate_tick(context).run_requests or []
    new = [request for request in found if request.run_key not in seen]
    seen |= {str(request.run_key) for request in new}
    return [str(request.partition_key) for request in new]


def test_a_recorded_training_leads_from_epoch_to_epoch(
    tiny_world: TinyWorld, copied_home: HomeResource, tmp_path: Path
) -> None:
    key = "staged-v1"
    feedback = {"threshold": 0.6, "window_steps": 2}
    batches = {"batch_size": 4, "curriculum": "staged", "controls": [], "feedback": feedback}
    tiny_world.register(copied_home, key, batches=batches)
    assert run_version(copied_home, key).success
    warehouse, seen = copied_home.warehouse(), set[str]()
    members: list[set[str]] = []
    manifests: list[str] = []
    assert tick(copied_home, seen) == []
    for epoch, (reward, decision) in enumerate([(0.9, "unlocked"), (0.2, "repeated"), (0.8, "unlocked")]):
        version = copied_home.version(key)
        assert version.current_manifest_id is not None
        manifests.append(version.current_manifest_id)
        planned = warehouse.rows("batch_manifest", manifest_id=manifests[-1])
        assert planned["epoch"].unique().to_list() == [epoch]
        members.append(set(planned["prompt_id"]))
        log = recorded(copied_home, key, reward)
        part = add_labels(copied_home, key, write_log(tmp_path / f"{epoch}.jsonl", log[:4]))
        assert part.next_epoch == "", "one step says too little"
        assert tick(copied_home, seen) == []
        whole = add_labels(copied_home, key, write_log(tmp_path / f"{epoch}.jsonl", log))
        assert whole.next_epoch
        assert metadata(copied_home, "feedback_files", key)[DUE_METADATA] is True
        assert tick(copied_home, seen) == [key]
        assert tick(copied_home, seen) == []
        assert copied_home.version(key).current_manifest_id == manifests[-1], "the one in use stays until it is planned"
        assert run_version(copied_home, key, only=list(ORDER_TABLES)).success
        (step,) = warehouse.rows(
            "curriculum_steps", manifest_id=copied_home.version(key).current_manifest_id
        ).to_dicts()
        assert (step["decision"], step["epoch"], step["parent_manifest_id"]) == (decision, epoch + 1, manifests[-1])
        listed = warehouse.rows("manifests", manifest_id=step["manifest_id"])
        assert listed["parent_manifest_id"].to_list() == [manifests[-1]]
        assert tick(copied_home, seen) == [], "it was planned since"
    assert len(set(manifests)) == 3
    assert len(members[1]) > len(members[0])
    deferred = warehouse.rows("deferred_prompts", manifest_id=manifests[0])
    assert "not_unlocked" in set(deferred["reason_code"])
    current = copied_home.version(key).current_manifest_id
    assert run_version(copied_home, key, only=["batch_manifest"]).success
    assert copied_home.version(key).current_manifest_id == current, "planned again without more feedback: the same"
