"""A trial from the command line, with TRL's own trainer on a tiny random policy."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner

from saerl_assets.automation.summary import run_version
from saerl_assets.cli import main
from saerl_assets.domain.candidates import gather_candidates
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.progress import silent
from saerl_assets.models.sources import locate_model
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.trials import open_trial
from saerl_assets.trainers.export import check_export, load_order
from saerl_assets.trial.runs import read_evaluations, run_trial
from saerl_assets.trial.training import _load_policy
from saerl_assets_tests.tiny import KEY, TinyWorld, make_world
from saerl_assets_tests.trainers.grpo import write_policy

pytestmark = [
    pytest.mark.slow,
    # TRL 1.16 asks models by a name that transformers 5.23 has deprecated.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
]

TRIAL: dict[str, object] = {
    "policy": "path:policy",
    "verifier": "saerl_assets_tests.verifiers:by_length",
    "arms": ["clustered"],
    "n_seeds": 1,
    "n_steps": 3,
    "n_generations": 2,
    "max_new_tokens": 4,
    "learning_rate": 1e-3,
    "template": "plain",
    "evaluate_every": 2,
    "n_evaluation": 10,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TinyWorld:
    world = make_world(tmp_path_factory.mktemp("world"))
    write_policy(world.folder / "policy")
    return world


@pytest.fixture(scope="module")
def home(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> HomeResource:
    """A version whose spec asks for a trial, built up to its manifest."""
    home = HomeResource(root=str(tmp_path_factory.mktemp("trial") / "home"))
    world.register(home, KEY, trial=TRIAL)
    summary = run_version(home, KEY)
    assert summary.success, summary.failure
    return home


@pytest.fixture(autouse=True)
def _quiet_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL reports where it runs to its makers unless it runs in CI."""
    import torch

    monkeypatch.setenv("CI", "1")
    torch.set_num_threads(1)


def called(home: HomeResource, *arguments: str) -> tuple[int, str]:
    found = CliRunner().invoke(main, ["--home", str(home.open().root), "trial", KEY, *arguments])
    return found.exit_code, found.stdout if found.exit_code == 0 else found.output


def test_a_trial_trains_each_arm_and_says_what_came_of_it(home: HomeResource) -> None:
    code, said = called(home, "--json")
    assert code == 0, said
    told = json.loads(said)
    assert (told["trainings"], told["of"]) == (2, 2)
    assert [row["arm"] for row in told["arms"]] == ["shuffle", "clustered"]
    shuffled, clustered = told["arms"]
    assert (shuffled["signal_seconds"], shuffled["signal_gpu_seconds"]) == (0.0, 0.0)
    assert clustered["signal_seconds"] > 1, "reading, scoring and planning are on record"
    assert clustered["signal_gpu_seconds"] == 0.0, "no step held a GPU"
    trial = open_trial(home, ComputeResource(device="cpu"), KEY)
    for seed, arm in trial.trainings():
        rows = json.loads(trial.result_file(seed, arm).read_text())
        assert [row["step"] for row in rows] == [0, 2, 3]
        assert all(row["n_prompts"] == len(trial.questions) for row in rows)
        assert rows[0]["seconds"] == 0 < rows[1]["seconds"] < rows[2]["seconds"]
    first = {json.loads(trial.result_file(0, arm).read_text())[0]["accuracy"] for arm in trial.arms}
    assert len(first) == 1, "every arm begins with the same weights"
    assert 0 < first.pop() < 1
    before = {path: path.stat().st_mtime_ns for path in trial.folder.glob("*.json")}
    code, said = called(home)
    assert code == 0
    assert "(1 seed): 5 seeds at least make a verdict." in said
    assert "2 of 2 trainings" in said
    assert before == {path: path.stat().st_mtime_ns for path in trial.folder.glob("*.json")}


def test_what_a_policy_suggests_for_sampling_is_not_how_it_is_trained(world: TinyWorld, tmp_path: Path) -> None:
    folder = tmp_path / "opinionated"
    shutil.copytree(world.folder / "policy", folder)
    suggested = {"do_sample": True, "top_p": 0.1, "top_k": 3, "repetition_penalty": 9.0, "eos_token_id": [7, 8]}
    (folder / "generation_config.json").write_text(json.dumps(suggested))
    files = locate_model(f"path:{folder}", cache=tmp_path / "cache", folder=tmp_path, key="trial.policy")
    model, tokenizer = _load_policy(files, "cpu")
    kept = model.generation_config
    assert {name: getattr(kept, name) for name in suggested if name != "eos_token_id"} == {
        "do_sample": None,
        "top_p": None,
        "top_k": None,
        "repetition_penalty": None,
    }
    assert {7, 8} <= set(kept.eos_token_id)
    assert tokenizer.eos_token_id is None or tokenizer.eos_token_id in kept.eos_token_id


def test_a_policy_without_a_chat_template_is_refused_before_it_is_trained(
    world: TinyWorld, home: HomeResource, tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(world.folder / "policy", folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": None}))
    files = locate_model(f"path:{folder}", cache=tmp_path / "cache", folder=tmp_path, key="trial.policy")
    trial = replace(open_trial(home, ComputeResource(device="cpu"), KEY), files=files)
    chat = replace(trial, folder=tmp_path / "chat", spec=trial.spec.model_copy(update={"template": "chat"}))
    with pytest.raises(SaerlError, match="has no chat template") as refused:
        run_trial(chat, silent)
    assert refused.value.code == "no_chat_template"
    assert "plain" in refused.value.remedy
    assert read_evaluations(chat).is_empty()


def test_every_seed_follows_an_order_of_its_own(home: HomeResource, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = open_trial(home, ComputeResource(device="cpu"), KEY)
    manifest_id = home.version(KEY).current_manifest_id
    orders = {(seed, arm): load_order(trial.export_of(seed, arm)) for seed in range(3) for arm in trial.arms}
    ids = {place: order["prompt_id"].to_list() for place, order in orders.items()}
    for arm in trial.arms:
        assert check_export(trial.export_of(0, arm)).manifest_id == manifest_id
        assert len({frozenset(ids[seed, arm]) for seed in range(3)}) == 1, "the same prompts"
    assert len({tuple(ids[seed, "shuffle"]) for seed in range(3)}) == 3
    again = open_trial(home, ComputeResource(device="cpu"), KEY)
    monkeypatch.setattr("saerl_assets.resources.trials.plan_manifest", None)  # nothing is planned twice
    assert load_order(again.export_of(2, "clustered")).equals(orders[2, "clustered"])


def test_no_order_is_drawn_like_a_manifest_that_scores_have_left_behind(
    home: HomeResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saerl_assets.resources import trials

    def hardened(tables: object, spec: object) -> pl.DataFrame:
        return gather_candidates(tables, spec).with_columns(difficulty=-pl.col("difficulty"))  # type: ignore[arg-type]

    monkeypatch.setattr(trials, "gather_candidates", hardened)
    trial = open_trial(home, ComputeResource(device="cpu"), KEY)
    with pytest.raises(SaerlError) as caught:
        trial.export_of(7, "clustered")
    assert caught.value.code == "manifest_outdated"


def test_questions_are_held_out_of_every_arm(home: HomeResource) -> None:
    trial = open_trial(home, ComputeResource(device="cpu"), KEY)
    asked = {question.messages[0]["content"] for question in trial.questions}
    rows = home.warehouse().rows("prompts", ["messages", "split"], dataset_version=KEY)
    split = {json.loads(messages)[0]["content"]: name for messages, name in rows.iter_rows()}
    assert {split[text] for text in asked} == {"evaluation"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"trial": None}, "no_trial"),
        ({"trial": TRIAL, "batches": {"feedback": {"rule": "stages"}}}, "trial_with_feedback"),
        ({"trial": {**TRIAL, "arms": ["dense_state"]}}, "unknown_arm"),
        ({"trial": {**TRIAL, "n_steps": 1_000}}, "too_few_steps"),
        ({"trial": {**TRIAL, "policy": "path:nowhere"}}, "model_missing"),
    ],
)
def test_what_cannot_be_tried_is_said_at_once(
    home: HomeResource,
    world: TinyWorld,
    changes: dict[str, object],
    code: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dataclasses import replace

    from saerl_assets.domain.spec import parse_spec

    version = home.version(KEY)
    path: Path = world.write_spec(KEY, **changes)
    changed = replace(version, spec=parse_spec(path.read_text(), str(path)))
    monkeypatch.setattr(HomeResource, "version", lambda _self, _key: changed)
    with pytest.raises(SaerlError) as caught:
        open_trial(home, ComputeResource(device="cpu"), KEY)
    assert caught.value.code == code
