"""Orders at their edges as a person meets them: little to plan from, later epochs under new clusters, edited rows."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from saerl_assets.automation.summary import RunSummary, run_version
from saerl_assets.cli import EXIT_USER_ERROR, main
from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.home import HomeResource
from saerl_assets.trainers.export import check_export, load_order
from saerl_assets_tests.tiny import BATCH_SIZE, KEY, MADE_BY_A_RUN, MAX_TOKENS, TinyWorld, write_fitted_sae, write_model

SCORES = (
    "prompts",
    "sae_weights",
    "clusters",
    "cluster_assignments",
    "difficulty_scores",
    "quality_probe",
    "quality_scores",
    "near_duplicates",
    "contamination",
)
"""What an order is planned from. A version that is not about them borrows the tiny one's, which saves making them."""
ORDER = ("batch_manifest", "trainer_exports")
INTACT = ("batch_manifest.rows_have_their_digest", "passed")


def rows(home: HomeResource, table: str, key: str) -> pl.DataFrame:
    return home.warehouse().rows(table, dataset_version=key)


def order(home: HomeResource, key: str) -> pl.DataFrame:
    manifest_id = home.version(key).current_manifest_id
    return home.warehouse().rows("batch_manifest", manifest_id=manifest_id)


def with_scores(world: TinyWorld, home: HomeResource, key: str, /, **changes: object) -> None:
    """Registers a version whose scores are those of the tiny one."""
    world.register(home, key, **changes)
    with home.warehouse().writing("borrowed scores") as connection:
        for table in SCORES:
            connection.execute(
                f"INSERT INTO {table} SELECT * REPLACE (? AS dataset_version) FROM {table} "  # noqa: S608 - our names
                "WHERE dataset_version = ?",
                [key, KEY],
            )


def planned(world: TinyWorld, home: HomeResource, key: str, /, **changes: object) -> RunSummary:
    """Such a version with its order and exports."""
    with_scores(world, home, key, **changes)
    return run_version(home, key, only=list(ORDER))


def first_line(failed: RunSummary) -> str:
    assert not failed.success
    return failed.failure.splitlines()[0]


# ---------------------------------------------------------------- little to plan from


def test_a_batch_above_the_number_of_kept_prompts(tiny_world: TinyWorld, copied_home: HomeResource) -> None:
    kept = rows(copied_home, "quality_scores", KEY).join(rows(copied_home, "prompts", KEY), on="prompt_id")
    n_kept = kept.filter(pl.col("kept") & (pl.col("split") == "train")).height
    told = first_line(planned(tiny_world, copied_home, "large-v1", batches={"batch_size": n_kept + 1}))
    assert told.startswith("plan: ")
    assert f"{n_kept} prompts do not fill one batch of {n_kept + 1}" in told
    assert f"Set it to {n_kept} or less, or set batches.tail to 'short' or 'pad'" in told
    assert "[batch_too_large]" in told
    assert rows(copied_home, "batch_manifest", "large-v1").is_empty()
    assert copied_home.version("large-v1").current_manifest_id is None


def test_a_batch_above_the_number_of_kept_prompts_is_filled_up_where_the_spec_says_so(
    tiny_world: TinyWorld, copied_home: HomeResource
) -> None:
    done = planned(tiny_world, copied_home, "padded-v1", batches={"batch_size": 150, "tail": "pad"})
    assert done.success, done.failure
    exported = order(copied_home, "padded-v1").filter(arm="clustered")
    assert exported.height == 150
    assert exported["is_padding"].sum() == 150 - exported["prompt_id"].n_unique() > 0
    assert rows(copied_home, "trainer_exports", "padded-v1")["n_rows"].unique().to_list() == [150]


def test_a_short_batch_alone_is_planned_but_no_trainer_can_have_it(
    tiny_world: TinyWorld, copied_home: HomeResource
) -> None:
    told = first_line(planned(tiny_world, copied_home, "short-v1", batches={"batch_size": 150, "tail": "short"}))
    assert told.startswith("trainer_exports: ")
    assert "has no batch of 150 prompts" in told
    assert "Set a smaller batches.batch_size, or batches.tail to 'pad'" in told
    assert order(copied_home, "short-v1").filter(arm="clustered")["step"].unique().to_list() == [0]


def test_one_cluster(tiny_world: TinyWorld, copied_home: HomeResource) -> None:
    with_scores(tiny_world, copied_home, "one-v1", clusters={"k": 1})
    done = run_version(copied_home, "one-v1", only=["clusters", *ORDER, "batch_metrics"])
    assert done.success, done.failure
    made = order(copied_home, "one-v1")
    assert made["cluster_id"].unique().to_list() == [0]
    assert made.group_by("arm", "step").len()["len"].unique().to_list() == [BATCH_SIZE]
    for arm in ("clustered", "balanced"):
        means = made.filter(arm=arm).group_by("step").agg(pl.col("difficulty").mean()).sort("step")["difficulty"]
        assert means.head(3).max() < means.tail(3).min(), "easy to hard, as one cluster is all"  # type: ignore[operator]
    assert rows(copied_home, "batch_metrics", "one-v1")["cluster_entropy"].unique().to_list() == [0.0]


def test_clusters_smaller_than_their_share_give_what_they_have(
    tiny_world: TinyWorld, copied_home: HomeResource
) -> None:
    batches = {"planner": "balanced", "batch_size": 24, "clusters_per_batch": 4, "tail": "short"}
    with_scores(tiny_world, copied_home, "small-v1", clusters={"k": 20, "min_prompts": 1}, batches=batches)
    done = run_version(copied_home, "small-v1", only=["clusters", *ORDER])
    assert done.success, done.failure
    assert ("batch_manifest.manifest_invariants", "passed") in [check[:2] for check in done.state.checks]
    sizes = rows(copied_home, "clusters", "small-v1")["n_prompts"]
    assert (sizes < 24 // 4).any(), "otherwise this shows nothing"
    made = order(copied_home, "small-v1").filter(arm="balanced")
    whole = made.filter(pl.len().over("step") == 24)
    assert (whole.group_by("step").agg(pl.col("cluster_id").n_unique())["cluster_id"] >= 4).all()
    assert not made["prompt_id"].is_duplicated().any()


@pytest.mark.parametrize(
    ("made", "changes", "counted"),
    [
        (
            ["quality_scores"],
            {"quality": {"min_labels": 20, "filter": "threshold", "threshold": 1.0, "max_dropped_fraction": 1.0}},
            "0 are too long, {n} were dropped by the quality filter",
        ),
        ([], {"batches": {"max_prompt_tokens": 1}}, "{n} are too long, 0 were dropped by the quality filter"),
    ],
    ids=["quality", "length"],
)
def test_every_prompt_filtered_out(
    made: list[str], changes: dict[str, object], counted: str, tiny_world: TinyWorld, copied_home: HomeResource
) -> None:
    with_scores(tiny_world, copied_home, "none-v1", **changes)
    told = first_line(run_version(copied_home, "none-v1", only=[*made, *ORDER]))
    n_train = rows(copied_home, "prompts", "none-v1").filter(split="train").height
    assert told.startswith(f"plan: none-v1: batches, quality: None of the {n_train} training prompts is left to plan: ")
    assert counted.format(n=n_train) in told
    assert "Raise batches.max_prompt_tokens, or let quality.filter drop fewer." in told
    assert "[no_prompts]" in told
    assert rows(copied_home, "batch_manifest", "none-v1").is_empty()


def test_prompts_over_the_trainers_limit_are_left_out_before_batches_are_cut(
    tiny_world: TinyWorld, copied_home: HomeResource
) -> None:
    lengths = rows(copied_home, "prompts", KEY).filter(split="train")["n_tokens"]
    limit = int(lengths.quantile(0.7) or 0)
    done = planned(tiny_world, copied_home, "limit-v1", batches={"max_prompt_tokens": limit})
    assert done.success, done.failure
    prompts = rows(copied_home, "prompts", "limit-v1").filter(split="train")
    long = prompts.filter(pl.col("n_tokens") > limit)
    assert 0 < long.height < prompts.height
    for (arm,), deferred in rows(copied_home, "deferred_prompts", "limit-v1").group_by("arm"):
        too_long = deferred.filter(reason_code="too_long")
        assert set(too_long["prompt_id"]) == set(long["prompt_id"]), arm
        assert too_long["reason"].str.contains(f"more than batches.max_prompt_tokens = {limit}").all()
    made = order(copied_home, "limit-v1")
    assert made.join(long, on="prompt_id", how="semi").is_empty()
    assert made.group_by("arm", "step").len()["len"].unique().to_list() == [BATCH_SIZE], "no batch has a hole"


def test_the_easiest_and_the_hardest_are_left_out_of_every_epoch_and_the_middle_is_seen_twice(
    tiny_world: TinyWorld, copied_home: HomeResource
) -> None:
    ranks = {"min_rank": 0.2, "max_rank": 0.7}
    with_scores(
        tiny_world, copied_home, "middle-v1", difficulty=ranks, quality={"filter": "none"}, batches={"epochs": 2}
    )
    with copied_home.warehouse().writing("nothing is filtered by quality") as connection:
        connection.execute("UPDATE quality_scores SET kept = true WHERE dataset_version = 'middle-v1'")
    done = run_version(copied_home, "middle-v1", only=list(ORDER))
    assert done.success, done.failure
    assert ("batch_manifest.manifest_invariants", "passed") in [check[:2] for check in done.state.checks]
    train = rows(copied_home, "prompts", "middle-v1").filter(split="train").select("prompt_id")
    ranked = train.join(rows(copied_home, "difficulty_scores", "middle-v1"), on="prompt_id")
    ids = ranked.sort("difficulty", "prompt_id")["prompt_id"].to_list()
    first, end = len(ids) * 2 // 10, len(ids) * 7 // 10
    outside = {*ids[:first], *ids[end:]}
    deferred = rows(copied_home, "deferred_prompts", "middle-v1")
    made = order(copied_home, "middle-v1")
    for arm in ("clustered", "shuffle", "random_drop"):
        n_seen = made.filter(arm=arm).group_by("prompt_id").len()
        left_out = deferred.filter(arm=arm, reason_code="random_drop" if arm == "random_drop" else "out_of_range")
        assert sorted(left_out["epoch"].unique()) == [0, 1]
        assert left_out.height == 2 * len(outside)
        assert (set(left_out["prompt_id"]) == outside) == (arm != "random_drop")
        assert n_seen["len"].max() == 2
        assert not set(n_seen["prompt_id"]) & set(left_out["prompt_id"])


def test_a_response_that_is_read_too_does_not_make_a_prompt_long(
    tiny_world: TinyWorld, copied_home: HomeResource
) -> None:
    with_scores(tiny_world, copied_home, "replies-v1", batches={"max_prompt_tokens": MAX_TOKENS})
    with copied_home.warehouse().writing("responses") as connection:
        connection.execute(
            "UPDATE prompts SET n_prefix_tokens = n_tokens, n_tokens = n_tokens + 100 "
            "WHERE dataset_version = 'replies-v1'"
        )
    done = run_version(copied_home, "replies-v1", only=list(ORDER))
    assert done.success, done.failure
    assert "too_long" not in set(rows(copied_home, "deferred_prompts", "replies-v1")["reason_code"])


# ---------------------------------------------------------------- later epochs under new clusters


@pytest.fixture(scope="module")
def trained(tiny_world: TinyWorld) -> TinyWorld:
    """The tiny world with a checkpoint of the policy, which sees the prompts otherwise, and an SAE that fits it."""
    write_model(tiny_world.folder / "checkpoint", seed=1)
    write_fitted_sae(tiny_world.folder / "checkpoint-sae", tiny_world.folder / "checkpoint", layer=1)
    return tiny_world


def together(home: HomeResource, key: str) -> set[tuple[str, ...]]:
    """Which prompts are in one cluster, whatever its number."""
    assigned = rows(home, "cluster_assignments", key).sort("prompt_id")
    return {tuple(members) for members in assigned.group_by("cluster_id").agg("prompt_id")["prompt_id"]}


def test_later_epochs_are_clustered_again_and_follow_the_parents_manifest(
    trained: TinyWorld, copied_home: HomeResource
) -> None:
    trained.register(
        copied_home,
        "tiny-v2",
        parent=KEY,
        reader={"model": "path:checkpoint"},
        sae={"source": ["path:checkpoint-sae"]},
        batches={"first_epoch": 1, "epochs": 2},
    )
    beyond = {"artifacts", "batch_metrics", "signal_evidence", "evidence_curve", "evidence_verdicts", "version_report"}
    done = run_version(copied_home, "tiny-v2", only=sorted(MADE_BY_A_RUN - beyond))
    assert done.success, done.failure
    record = rows(copied_home, "manifests", "tiny-v2").row(0, named=True)
    assert record["parent_manifest_id"] == copied_home.version(KEY).current_manifest_id
    assert record["n_epochs"] == 2
    made = order(copied_home, "tiny-v2")
    assert set(made["epoch"].unique()) == {1, 2}
    assert together(copied_home, "tiny-v2") != together(copied_home, KEY), "clustered again, not taken over"
    for row in rows(copied_home, "trainer_exports", "tiny-v2").iter_rows(named=True):
        exported = load_order(copied_home.open().root / row["path"])
        assert exported["epoch"].unique().sort().to_list() == [1, 2]
        assert exported["epoch"].is_sorted()


def test_later_epochs_of_the_same_reader_are_those_that_the_parent_would_have_planned(
    tiny_world: TinyWorld, copied_home: HomeResource
) -> None:
    ahead = planned(tiny_world, copied_home, "ahead-v1", batches={"epochs": 3})
    later = planned(tiny_world, copied_home, "ahead-v2", parent="ahead-v1", batches={"first_epoch": 2})
    assert ahead.success, ahead.failure
    assert later.success, later.failure
    columns = ["arm", "epoch", "step", "slot", "prompt_id"]
    wanted = order(copied_home, "ahead-v1").filter(epoch=2).select(columns)
    assert order(copied_home, "ahead-v2").select(columns).equals(wanted)


def test_later_epochs_need_those_before(tiny_world: TinyWorld, copied_home: HomeResource) -> None:
    with pytest.raises(SaerlError, match=r"batches\.first_epoch = 1 needs parent, the version trained on before"):
        tiny_world.register(copied_home, "orphan-v1", batches={"first_epoch": 1})
    told = first_line(planned(tiny_world, copied_home, "gap-v1", parent=KEY, batches={"first_epoch": 2}))
    assert "ends with epoch 0, and this one would start with epoch 2" in told
    assert "batches.first_epoch = 1 or less" in told
    assert "[epoch_gap]" in told
    tiny_world.register(copied_home, "bare-v1")
    told = first_line(planned(tiny_world, copied_home, "bare-v2", parent="bare-v1", batches={"first_epoch": 1}))
    assert "saerl run bare-v1" in told
    assert "[no_manifest]" in told


# ---------------------------------------------------------------- rows edited by hand

EDITS = {
    "another difficulty": "UPDATE batch_manifest SET difficulty = difficulty + 1 WHERE arm = 'shuffle' AND slot = 1",
    "two slots changed over": (
        "UPDATE batch_manifest SET slot = 1 - slot WHERE arm = 'clustered' AND step = 0 AND slot < 2"
    ),
    "a row gone": "DELETE FROM batch_manifest WHERE arm = 'balanced' AND step = 0 AND slot = 0",
    "another reason": "UPDATE deferred_prompts SET reason = 'because'",
    "all gone": "DELETE FROM batch_manifest",
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_manifest_edited_by_hand_is_not_exported_until_it_is_planned_again(
    edit: str, copied_home: HomeResource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAERL_HOME", copied_home.root)
    before = order(copied_home, KEY)
    with copied_home.warehouse().writing("an edit") as connection:
        connection.execute(EDITS[edit])
    for arm in ("clustered", "balanced"):
        said = CliRunner().invoke(main, ["export", KEY, "--to", "trl", "--arm", arm, "--out", str(tmp_path / arm)])
        assert said.exit_code == EXIT_USER_ERROR, said.output
        assert "[manifest_changed]" in said.output
        assert f"saerl run {KEY} --only batch_manifest" in said.output.replace("\n", " ")
        assert not (tmp_path / arm).exists()
    if edit != "another difficulty":  # one is enough for what Dagster runs
        return
    told = first_line(run_version(copied_home, KEY, only=["trainer_exports"]))
    assert told.startswith("trainer_exports: ")
    assert "[manifest_changed]" in told
    again = run_version(copied_home, KEY, only=["batch_manifest"])
    assert again.success, again.failure
    assert INTACT in [check[:2] for check in again.state.checks]
    assert order(copied_home, KEY).equals(before)
    said = CliRunner().invoke(main, ["export", KEY, "--to", "trl", "--out", str(tmp_path / "out")])
    assert said.exit_code == 0, said.output
    assert check_export(tmp_path / "out").manifest_id == copied_home.version(KEY).current_manifest_id
