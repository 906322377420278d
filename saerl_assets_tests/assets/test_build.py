"""The whole graph on a tiny model: what is made, what is made again, what is reused, and how it fails."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from saerl_assets.automation.jobs import ON_REQUEST
from saerl_assets.automation.summary import RunSummary, run_version
from saerl_assets.models.reader import Reader
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.schema import tables
from saerl_assets_tests.tiny import (
    BATCH_SIZE,
    KEY,
    MADE_BY_A_RUN,
    MAX_TOKENS,
    N_DUPLICATES,
    N_LATENTS,
    N_PROMPTS,
    N_REJECTED,
    TRAINED_SAE,
    TinyWorld,
    source_lines,
    source_rows,
    write_model,
    write_rows,
    write_sae,
)

N_NEW = 20
SHARED = ("prompt_features", "prompt_states")
UNVERSIONED = (*SHARED, "sentence_embeddings")
UP_TO_FEATURES = ("versions", "prompts", "sae_weights", "sae_health", "control_saes", "prompt_features")
PNG = re.compile(r"!\[.+\]\(data:image/png;base64,([A-Za-z0-9+/=]+)\)")


@pytest.fixture(scope="module")
def inputs(tiny_world: TinyWorld) -> TinyWorld:
    """The tiny world with further files that single tests name."""
    lines = [*source_lines(), *(json.dumps(row) for row in source_rows(N_PROMPTS + N_NEW)[N_PROMPTS:])]
    write_rows(tiny_world.folder / "more.jsonl", lines)
    write_rows(tiny_world.folder / "bad.jsonl", [*source_lines(), *['{"question": 1}'] * 40])
    write_sae(tiny_world.folder / "narrow", d_in=16)
    write_sae(tiny_world.folder / "poor", k=1)
    write_model(tiny_world.folder / "empty")
    (tiny_world.folder / "empty" / "model.safetensors").unlink()
    return tiny_world


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Texts of every forward pass."""
    sizes: list[int] = []
    read = Reader.read

    def counted(self: Reader, token_ids: Sequence[Sequence[int]]) -> object:
        sizes.append(len(token_ids))
        return read(self, token_ids)

    monkeypatch.setattr(Reader, "read", counted)
    return sizes


def build(world: TinyWorld, home: HomeResource, key: str, /, **changes: object) -> RunSummary:
    world.register(home, key, **changes)
    return run_version(home, key)


def rows(home: HomeResource, table: str, key: str = KEY) -> pl.DataFrame:
    if table in UNVERSIONED:
        return home.warehouse().rows(table)
    return home.warehouse().rows(table, dataset_version=key)


# ---------------------------------------------------------------- a first run


def test_every_stage_is_made(tiny_run: tuple[HomeResource, RunSummary]) -> None:
    _, summary = tiny_run
    assert set(summary.seconds) == MADE_BY_A_RUN
    assert [stage.asset for stage in summary.state.stages if stage.is_due] == []
    assert {did for *_, did in summary.stage_lines()} == {"made"}
    assert [check for check in summary.state.checks if check[1] != "passed"] == []
    assert dict(summary.places).keys() == {"home", "warehouse", "manifest", "for trl", "for verl", "report"}


def test_the_tables_agree_on_what_there_is(tiny_home: HomeResource) -> None:
    counts = {name: rows(tiny_home, name).height for name in tables()}
    nothing_to_tell = {"cluster_drift", "contamination", "evidence_curve", "near_duplicates", "sentence_embeddings"}
    nothing_to_tell |= {"control_signals", "rollouts", "outcomes", *ON_REQUEST}
    nothing_to_tell |= {
        "preference_pairs",
        "training_feedback",
        "feedback_files",
        "rejected_feedback",
        "curriculum_steps",
    }
    assert {name for name, count in counts.items() if count == 0} == nothing_to_tell
    of_prompts = ("cluster_assignments", "difficulty_scores", "prompts", "quality_scores", "prompt_states")
    assert {counts[name] for name in of_prompts} == {N_PROMPTS}
    assert counts["prompt_features"] == 2 * N_PROMPTS, "as the SAE sees them, and as its control does"
    assert counts["rejected_rows"] == N_REJECTED
    assert rows(tiny_home, "prompts")["n_rows"].sum() == N_PROMPTS + N_DUPLICATES
    assert set(rows(tiny_home, "rejected_rows")["reason_code"]) == {"broken_json", "blank_prompt", "too_long"}
    assert counts["labels"] == 2 * N_PROMPTS
    assert counts["label_observations"] == 2 * (N_PROMPTS + N_DUPLICATES)
    assert counts["feature_density"] == N_LATENTS
    assert rows(tiny_home, "clusters")["n_prompts"].sum() == N_PROMPTS
    manifest, deferred = rows(tiny_home, "batch_manifest"), rows(tiny_home, "deferred_prompts")
    n_train = rows(tiny_home, "prompts").filter(split="train").height
    assert 0 < n_train < N_PROMPTS
    for (arm,), ordered in manifest.group_by("arm"):
        assert ordered.height % BATCH_SIZE == 0
        assert ordered.height + deferred.filter(arm=arm).height == n_train


def test_every_asset_shows_rows_preview_and_figure(tiny_run: tuple[HomeResource, RunSummary]) -> None:
    home, summary = tiny_run
    for stage in summary.state.stages:
        assert stage.metadata["dagster/row_count"] == rows(home, stage.asset).height, stage.asset
        assert isinstance(stage.metadata["preview"], dg.TableMetadataValue), stage.asset
        match = PNG.fullmatch(str(stage.metadata["figure"]).strip())
        assert match, stage.asset
        assert base64.b64decode(match[1]).startswith(b"\x89PNG\r\n\x1a\n")


def test_nothing_of_the_run_is_left_over(tiny_home: HomeResource) -> None:
    assert [path for path in tiny_home.open().work(KEY).rglob("*") if path.is_file()] == []


# ---------------------------------------------------------------- a further run


def test_a_second_run_makes_nothing(copied_home: HomeResource, reads: list[int]) -> None:
    again = run_version(copied_home, KEY)
    assert again.success
    assert again.seconds == {}
    assert {did for *_, did in again.stage_lines()} == {"found"}
    assert reads == []


def test_one_asset_is_made_with_those_of_its_step_and_then_what_builds_on_it(copied_home: HomeResource) -> None:
    before = copied_home.version(KEY).current_manifest_id
    first = run_version(copied_home, KEY, only=["clusters"])
    assert set(first.seconds) == {"clusters", "cluster_assignments", "cluster_quality"}
    due = {stage.asset for stage in first.state.stages if stage.is_due}
    assert {"batch_manifest", "manifests", "batch_metrics", "trainer_exports", "version_report"} <= due
    assert not {"prompts", "prompt_features", "clusters", "difficulty_scores", "quality_probe"} & due
    second = run_version(copied_home, KEY)
    assert set(second.seconds) == due
    assert not any(stage.is_due for stage in second.state.stages)
    assert copied_home.version(KEY).current_manifest_id == before
    assert rows(copied_home, "manifests").height == 1


def test_everything_again_gives_the_same_bytes(
    copied_home: HomeResource, tiny_home: HomeResource, reads: list[int]
) -> None:
    again = run_version(copied_home, KEY, everything=True)
    assert set(again.seconds) == MADE_BY_A_RUN
    assert sum(reads) <= N_PROMPTS, "only the sample for the SAE's health is read"
    for name in set(tables()) - {"label_observations"}:
        assert rows(copied_home, name).equals(rows(tiny_home, name)), name
    timeless = pl.exclude("observed_at")
    name = "label_observations"
    assert rows(copied_home, name).select(timeless).equals(rows(tiny_home, name).select(timeless))


# ---------------------------------------------------------------- children, other scopes, missing labels


def test_a_child_takes_over_the_sae_and_reads_only_what_is_new(
    inputs: TinyWorld, copied_home: HomeResource, reads: list[int]
) -> None:
    before = {name: rows(copied_home, name) for name in SHARED}
    inputs.register(copied_home, "tiny-v2", parent=KEY, data={"source": "path:more.jsonl"}, sae=None)
    features = run_version(copied_home, "tiny-v2", only=UP_TO_FEATURES)
    assert features.success, features.failure
    assert sum(reads) == N_NEW
    weights = {key: rows(copied_home, "sae_weights", key).row(0, named=True) for key in (KEY, "tiny-v2")}
    assert weights["tiny-v2"]["source"] == f"parent:{KEY}"
    assert weights["tiny-v2"]["encoder_id"] == weights[KEY]["encoder_id"]
    for name in SHARED:
        after = rows(copied_home, name)
        assert after.height == (N_PROMPTS + N_NEW) * (2 if name == "prompt_features" else 1)
        assert after.join(before[name], on=list(before[name].columns[:2]), how="semi").equals(before[name])
    clusters = run_version(copied_home, "tiny-v2", only=["clusters"])
    assert clusters.success, clusters.failure
    assert rows(copied_home, "cluster_assignments", "tiny-v2").height == N_PROMPTS + N_NEW
    assert rows(copied_home, "cluster_assignments", KEY).height == N_PROMPTS


def test_without_labels_it_says_what_was_skipped(inputs: TinyWorld, copied_home: HomeResource) -> None:
    done = build(inputs, copied_home, "bare-v1", labels=None)
    assert done.success, done.failure
    features = next(stage for stage in done.state.stages if stage.asset == "prompt_features")
    assert features.metadata["texts_read"] == 0
    assert rows(copied_home, "labels", "bare-v1").is_empty()
    probe, proxy = rows(copied_home, "quality_probe", "bare-v1"), rows(copied_home, "difficulty_proxy", "bare-v1")
    for explanation in (*probe["explanation"], *proxy.filter(score_name="proxy")["explanation"]):
        assert "label" in explanation
        assert "[labels." in explanation, "it says how to supply them"
    assert rows(copied_home, "quality_scores", "bare-v1")["kept"].all()
    assert set(rows(copied_home, "difficulty_scores", "bare-v1")["score_name"]) == {"magnitude"}
    assert not rows(copied_home, "batch_manifest", "bare-v1").is_empty()


@pytest.mark.parametrize("scope", ["prompt_and_response", "response"])
def test_a_response_is_read_too(inputs: TinyWorld, copied_home: HomeResource, scope: str) -> None:
    reader = {"scope": scope, "max_tokens": 200}
    inputs.register(copied_home, "replies-v1", reader=reader, data={"response": "reply"})
    done = run_version(copied_home, "replies-v1", only=UP_TO_FEATURES)
    assert done.success, done.failure
    prompts = rows(copied_home, "prompts", "replies-v1")
    assert prompts["response"].null_count() == 0
    assert (prompts["n_prefix_tokens"] < prompts["n_tokens"]).all()
    encoder = rows(copied_home, "sae_weights", "replies-v1")["encoder_id"][0]
    read = prompts.join(
        copied_home.warehouse().rows("prompt_features", encoder_id=encoder), on="text_id", suffix="_read"
    )
    skipped = prompts["n_prefix_tokens"].sum() if scope == "response" else 0
    assert int((read["n_tokens_read"] + read["n_sink_tokens"]).sum()) == int(prompts["n_tokens"].sum()) - skipped


def test_a_short_tail_is_left_out_of_the_exports_and_they_are_right_all_the_same(
    inputs: TinyWorld, copied_home: HomeResource
) -> None:
    inputs.register(copied_home, "tail-v1", batches={"tail": "short", "batch_size": 11})
    beyond = {"batch_metrics", "artifacts", "version_report"}
    done = run_version(copied_home, "tail-v1", only=sorted(MADE_BY_A_RUN - beyond))
    assert done.success, done.failure
    assert ("trainer_exports.exports_keep_the_order", "passed") in [check[:2] for check in done.state.checks]
    exported = rows(copied_home, "batch_manifest", "tail-v1").filter(arm="clustered")
    n_rows = rows(copied_home, "trainer_exports", "tail-v1")["n_rows"].unique().to_list()
    assert n_rows == [exported.height // 11 * 11]
    assert exported.height % 11, "otherwise this shows nothing"


@pytest.mark.slow  # sae_lens alone takes eight seconds to import
def test_an_sae_is_trained_once_for_one_recipe(inputs: TinyWorld, fresh_home: HomeResource, reads: list[int]) -> None:
    trained = {**TRAINED_SAE, "min_explained_variance": 0.0}
    for key, size, n_read in (("trained-v1", 8, N_PROMPTS), ("trained-v2", 10, 0)):
        inputs.register(fresh_home, key, sae=trained, batches={"batch_size": size})
        done = run_version(fresh_home, key, only=[*UP_TO_FEATURES, "feature_density", "sae_health"])
        assert done.success, done.failure
        assert sum(reads) == n_read, "training, extraction and health share one pass; the same recipe needs none"
        reads.clear()
    made = [rows(fresh_home, "sae_weights", key).row(0, named=True) for key in ("trained-v1", "trained-v2")]
    assert made[0]["digest"] == made[1]["digest"]
    assert made[0]["training"] == made[1]["training"]
    assert json.loads(made[0]["training"])["history"]
    assert made[0]["n_latents"] == TRAINED_SAE["n_latents"]


# ---------------------------------------------------------------- failures

FAILURES: dict[str, tuple[dict[str, object], str, str]] = {
    "sae_wrong_width": ({"sae": {"source": ["path:narrow"]}}, "sae_weights", "trained on this model"),
    "sae_missing": ({"sae": {"source": ["path:nowhere"]}}, "sae_weights", "Give a SAELens directory"),
    "model_without_weights": ({"reader": {"model": "path:empty"}}, "intake", "Put *.safetensors"),
    "model_missing": ({"reader": {"model": "path:nowhere"}}, "intake", "Give a folder with config.json"),
    "layer_missing": ({"reader": {"layers": [7]}}, "sae_weights", "choose layers from 0 to 2"),
    "too_many_rejected": ({"data": {"source": "path:bad.jsonl"}}, "intake", "data.max_rejected_fraction"),
    "unknown_field": ({"data": {"prompt": "qestion"}}, "intake", "question"),
}


@pytest.mark.parametrize(("code", "case"), FAILURES.items())
def test_a_stage_that_fails_says_what_to_do_and_harms_nothing(
    code: str, case: tuple[dict[str, object], str, str], inputs: TinyWorld, copied_home: HomeResource
) -> None:
    changes, step, remedy = case
    before = {name: rows(copied_home, name) for name in tables()}
    failed = build(inputs, copied_home, "failing-v1", **changes)
    assert not failed.success
    first_line = failed.failure.splitlines()[0]
    assert first_line.startswith(f"{step}: ")
    assert remedy in first_line
    assert f"[{code}]" in first_line
    assert [line for line in failed.closing_lines() if "(resumes)" in line]
    for name, frame in before.items():
        assert rows(copied_home, name).equals(frame), name
    assert rows(copied_home, "batch_manifest", "failing-v1").is_empty()


def test_rows_that_were_rejected_are_there_to_be_seen(inputs: TinyWorld, copied_home: HomeResource) -> None:
    failed = build(inputs, copied_home, "failing-v1", data={"source": "path:bad.jsonl"})
    assert not failed.success
    assert rows(copied_home, "rejected_rows", "failing-v1").height == N_REJECTED + 40
    assert rows(copied_home, "prompts", "failing-v1").is_empty()


def test_an_sae_that_does_not_fit_stops_the_run_before_an_order_is_made(
    inputs: TinyWorld, copied_home: HomeResource
) -> None:
    failed = build(inputs, copied_home, "unfit-v1", sae={"source": ["path:poor"], "min_explained_variance": 0.9})
    assert "The spec asks for 90%" in failed.failure.splitlines()[0]
    assert rows(copied_home, "sae_health", "unfit-v1")["verdict"].to_list() == ["unfit"]
    assert rows(copied_home, "batch_manifest", "unfit-v1").is_empty()
    assert copied_home.version("unfit-v1").current_manifest_id is None
    again = run_version(copied_home, "unfit-v1")
    assert "The spec asks for 90%" in again.failure.splitlines()[0]
    assert rows(copied_home, "batch_manifest", "unfit-v1").is_empty()


def test_a_model_that_was_changed_is_refused(inputs: TinyWorld, copied_home: HomeResource) -> None:
    shutil.copytree(inputs.folder / "model", inputs.folder / "other")
    version = {"reader": {"model": "path:other"}}
    inputs.register(copied_home, "swapped-v1", **version)
    assert run_version(
        copied_home, "swapped-v1", only=sorted({*UP_TO_FEATURES} - {"prompt_features", "prompt_states"})
    ).success
    config = inputs.folder / "other" / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-03'))
    refused = run_version(copied_home, "swapped-v1")
    assert "[reader_changed]" in refused.failure


def test_a_run_goes_on_where_it_failed(inputs: TinyWorld, copied_home: HomeResource) -> None:
    failed = build(inputs, copied_home, "mended-v1", sae={"source": ["path:mended"]})
    assert "[sae_missing]" in failed.failure
    shutil.copytree(inputs.folder / "sae", inputs.folder / "mended")
    due = {stage.asset for stage in failed.state.stages if stage.is_due}
    done = run_version(copied_home, "mended-v1", only=sorted(due & {*UP_TO_FEATURES}))
    assert done.success, done.failure
    assert not {"versions", "prompts", "labels"} & set(done.seconds), "what was made before the failure is kept"


@pytest.mark.parametrize("change", [lambda path: path.write_text("{}\n"), lambda path: path.unlink()])
def test_a_source_that_changed_is_not_read(
    change: Callable[[Path], object], tiny_world: TinyWorld, fresh_home: HomeResource, tmp_path: Path
) -> None:
    source = write_rows(tmp_path / "prompts.jsonl", source_lines())
    tiny_world.register(fresh_home, "changed-v1", data={"source": f"path:{source}"})
    change(source)
    failed = run_version(fresh_home, "changed-v1")
    assert "[source_" in failed.failure.splitlines()[0]
    assert str(source) in failed.failure.splitlines()[0]
    assert rows(fresh_home, "prompts", "changed-v1").is_empty()


def test_the_limit_on_tokens_is_the_specs(tiny_home: HomeResource) -> None:
    assert int(str(rows(tiny_home, "prompts")["n_tokens"].max())) <= MAX_TOKENS
