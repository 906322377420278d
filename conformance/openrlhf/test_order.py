"""OpenRLHF reads our export in the manifest's order if its strategy carries our loader, and in no order otherwise.

OpenRLHF's own are the arguments, the strategy, `prepare_datasets`, `PromptDataset`, the stateful loader, the Ray actors
`PPOTrainer` and `GenerateSamplesActor` and their sample generator. Stood in for are the engines that generate (actors
that answer with one token) and, as far as they are imported, vLLM and flash-attn.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import BATCH_SIZE, PACKAGE, STUBS, Export, make_export, started_with
from openrlhf.trainer.ppo_trainer import prepare_datasets
from openrlhf.utils import get_strategy, get_tokenizer

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.export import check_export
from saerl_assets.trainers.openrlhf_order import check_source, keep_order, note_manifest

CHECKOUT = Path(__file__).resolve().parents[2]


def ordered(args: Any, export: Export) -> Any:
    return keep_order(get_strategy(args), export.folder, check_export(export.folder))


def ids(loader: Any) -> list[str]:
    return [label["prompt_id"] for _, _, labels, _ in loader for label in labels]


def tokenizer_of(policy: Path, strategy: Any) -> Any:
    return get_tokenizer(str(policy), None, "left", strategy)


@pytest.mark.parametrize("n_workers", [0, 2])
def test_the_loader_of_prompts_yields_the_manifests_order(
    export: Export, policy: Path, n_workers: int, tmp_path: Path
) -> None:
    args = started_with(export, tmp_path, "--data.dataloader_num_workers", str(n_workers))
    strategy = ordered(args, export)
    loader, _, n_steps = prepare_datasets(strategy, tokenizer_of(policy, strategy))
    assert ids(loader) == export.order
    assert n_steps == len(export.batches)


def test_without_ours_openrlhf_shuffles(export: Export, policy: Path, tmp_path: Path) -> None:
    strategy = get_strategy(started_with(export, tmp_path))
    loader, _, _ = prepare_datasets(strategy, tokenizer_of(policy, strategy))
    assert sorted(ids(loader)) == sorted(export.order)
    assert ids(loader) != export.order


def test_prompts_and_labels_are_those_of_the_export(policy: Path, tmp_path: Path) -> None:
    chats = make_export(tmp_path / "chats", is_chat=True)
    args = started_with(chats, tmp_path / "checkpoints")
    strategy = ordered(args, chats)
    loader, _, _ = prepare_datasets(strategy, tokenizer_of(policy, strategy))
    _, prompts, labels, _ = list(loader)[5]
    assert prompts == ["<system>Be brief.<user>What is 11?<assistant>"]
    assert labels == [
        {
            "answer": "11",
            "prompt_id": "prompt11",
            "epoch": 0,
            "step": 1,
            "slot": 1,
            "cluster_id": 2,
            "difficulty": 11 / 7,
            "topic": "sums",
            "is_padding": False,
            "extra": "{}",
        }
    ]


def test_the_loader_for_evaluation_is_left_alone(export: Export, policy: Path, tmp_path: Path) -> None:
    other = make_export(tmp_path / "other", turn=11)
    args = started_with(export, tmp_path / "checkpoints", "--eval.dataset", str(other.folder / "train.parquet"))
    strategy = ordered(args, export)
    loader, evaluation, _ = prepare_datasets(strategy, tokenizer_of(policy, strategy))
    assert ids(loader) == export.order
    assert ids(evaluation) == other.order


def test_a_loader_with_other_rows_is_refused(export: Export, policy: Path, tmp_path: Path) -> None:
    other = make_export(tmp_path / "other", turn=5)
    strategy = ordered(started_with(export, tmp_path / "checkpoints"), export)
    strategy.args.data.prompt_dataset = str(other.folder / "train.parquet")
    with pytest.raises(SaerlError, match=r"At place 1 it yields row 1, which is not prompt prompt07") as caught:
        prepare_datasets(strategy, tokenizer_of(policy, strategy))
    assert caught.value.code == "order_lost"
    strategy.args.data.prompt_dataset = str(export.folder / "train.parquet")
    strategy.args.data.max_samples = 20
    with pytest.raises(SaerlError, match="yields 20 prompts where the export has 24"):
        prepare_datasets(strategy, tokenizer_of(policy, strategy))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["--rollout.batch_size", "8"], "--rollout.batch_size is 8, not 4"),
        (["--rollout.vllm_generate_batch_size", "8"], "--rollout.vllm_generate_batch_size is 8, not 4"),
        (["--train.batch_size", "4"], "--train.batch_size is 4, not 4 prompts x 8 responses = 32"),
        (["--rollout.n_samples_per_prompt", "4"], "--train.batch_size is 32, not 4 prompts x 4 responses = 16"),
        (["--train.num_episodes", "2"], "--train.num_episodes is 2, not 1"),
        (["--data.max_samples", "10"], "--data.max_samples is 10, less than the 24 rows"),
        (["--data.prompt_probs", "1.0"], "--data.prompt_probs samples the data"),
        (["--data.prompt_dataset", "elsewhere.jsonl"], "--data.prompt_dataset is elsewhere.jsonl, not"),
        (["--algo.dynamic_filtering_enable"], "--algo.dynamic_filtering_enable replaces prompts"),
    ],
)
def test_arguments_that_break_the_order_are_refused(
    export: Export, given: list[str], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(SaerlError, match="settings_break_order") as caught:
        ordered(started_with(export, tmp_path, *given), export)
    assert problem in caught.value.problem


def test_checkpoints_go_on_with_their_own_manifest_alone(export: Export, tmp_path: Path) -> None:
    record, other = check_export(export.folder), check_export(make_export(tmp_path / "other", turn=5).folder)
    args = started_with(export, tmp_path / "checkpoints", "--ckpt.load_enable")
    note_manifest(args, record)
    (tmp_path / "checkpoints" / "_actor").mkdir()
    note_manifest(args, record)
    with pytest.raises(SaerlError, match=r"trained in the order of manifest 777777777777, clustered, not in that of 5"):
        note_manifest(args, other)
    (tmp_path / "checkpoints" / "saerl_export.json").unlink()
    with pytest.raises(SaerlError, match="trained in no known order"):
        note_manifest(args, record)


def test_the_installed_source_is_as_expected() -> None:
    check_source(PACKAGE)


ACTOR_BUILDS = "= prepare_datasets(strategy, tokenizer)"
IN_ORDER = "        pin_memory: bool = False,\n        shuffle=True,"
CHANGES = [
    ("trainer/ppo_trainer.py", "1,\n        True,\n        True,\n", "1,\n        True,\n        args.data.shuffle,\n"),
    ("trainer/ppo_trainer.py", "strategy.setup_dataloader(\n        prompts", "StatefulDataLoader(\n        prompts"),
    ("trainer/ppo_trainer_async.py", ACTOR_BUILDS, ACTOR_BUILDS.replace("datasets", "prompts")),
    ("utils/deepspeed/deepspeed.py", IN_ORDER, "        shuffle=True,\n        pin_memory: bool = False,"),
    ("cli/train_ppo_ray.py", "strategy = get_strategy(args)", "strategy = DeepspeedStrategy(args=args)"),
    ("datasets/prompts_dataset.py", "def preprocess_data(data, ", "def preprocess_data(row, "),
]


@pytest.mark.parametrize(("file", "old", "new"), CHANGES)
def test_a_source_that_has_changed_is_refused_with_its_file(file: str, old: str, new: str, tmp_path: Path) -> None:
    package = tmp_path / "openrlhf"
    shutil.copytree(PACKAGE, package)
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new))
    with pytest.raises(SaerlError, match="openrlhf_changed") as caught:
        check_source(package)
    assert caught.value.where == str(package / file)


def test_the_ray_actors_that_build_the_loaders_take_the_manifests_batches(
    export: Export, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way from the driver into the actors' processes, and batches as they reach the optimizer."""
    import ray
    from openrlhf.trainer.ppo_trainer import PPOTrainer
    from openrlhf.trainer.ppo_trainer_async import GenerateSamplesActor

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(STUBS), str(CHECKOUT)]))
    args = started_with(export, tmp_path, "--rollout.n_samples_per_prompt", "2", "--train.batch_size", "8")
    args.actor.eps_clip_low_high = (0.2, 0.2)
    strategy = ordered(args, export)

    @ray.remote(num_cpus=0)
    class Engine:
        """Answers at once, with one token."""

        def get_num_unfinished_requests(self) -> int:
            return 0

        def generate_responses(self, prompt: str, label: Any, num_samples: int, **_: Any) -> list[dict[str, Any]]:
            answer = {"prompt": prompt, "label": label, "observation_tokens": [2, 3, 4], "action_ranges": [(2, 3)]}
            return [answer | {"reward": 1.0, "scores": 1.0, "rollout_log_probs": None}] * num_samples

    def batches(actor: Any) -> list[list[str]]:
        taken = []
        while True:
            samples, _, _, is_exhausted = actor.samples_generator.generate_samples(max_len=16, max_new_tokens=1)
            if samples:
                taken.append([label["prompt_id"] for sample in samples for label in sample.labels])
            if is_exhausted:
                return taken

    ray.init(num_cpus=2, include_dashboard=False)
    try:
        engines = [Engine.remote(), Engine.remote()]
        sync = PPOTrainer.remote(str(policy), strategy, None, None, None, None, engines)
        taken = ray.get(sync.__ray_call__.remote(batches))
        ray.kill(sync)
        queues: dict[str, Any] = {"vllm_lock": None, "rollout_queue": None, "rollout_slots": None}
        ahead = GenerateSamplesActor.remote(str(policy), strategy, engines, **queues)
        taken_ahead = ray.get(ahead.__ray_call__.remote(batches))
        ray.kill(ahead)
        strategy.args.data.max_samples = 20
        lost = PPOTrainer.remote(str(policy), strategy, None, None, None, None, engines)
        with pytest.raises(ray.exceptions.RayActorError, match="order_lost"):
            ray.get(lost.get_max_steps.remote())
    finally:
        ray.shutdown()
    for found in (taken, taken_ahead):
        assert [sorted(batch) for batch in found] == [sorted(batch * 2) for batch in export.batches]
        assert len(found) * BATCH_SIZE * 2 == sum(map(len, found))


def test_the_launcher_starts_openrlhf_with_our_strategy(export: Export, policy: Path, tmp_path: Path) -> None:
    """As users start it, until the first thing that a machine without a GPU cannot do: the actors of the policy.

    Before these, OpenRLHF asks the trainer's actor, which has built its loader by then, for the number of steps.
    """
    (tmp_path / "start.py").write_text(_START)
    started = subprocess.run(
        [sys.executable, str(tmp_path / "start.py"), "--export", str(export.folder), "--ckpt.path", str(tmp_path / "c"),
         "--actor.model_name_or_path", str(policy), "--actor.num_gpus_per_node", "1", "--vllm.num_engines", "0",
         "--algo.advantage.estimator", "group_norm", "--algo.kl.init_coef", "0", "--reward.remote_url", "reward.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(STUBS), str(CHECKOUT)])},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )  # fmt: skip
    told = started.stdout + started.stderr
    assert "saerl: the loader yields 24 prompts in 6 batches of 4, in the order of manifest 777777777777." in told
    assert (tmp_path / "c" / "saerl_export.json").is_file()
    assert started.returncode != 0


_START = """
import ray

ray.init(num_cpus=2, num_gpus=1, include_dashboard=False)  # a GPU by name only
from saerl_assets.trainers.openrlhf_launcher import main

main()
"""


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda folder: (folder / "args.txt").write_text("--train.num_episodes 3\n"), "export_changed"),
        (lambda folder: (folder / "manifest.json").unlink(), "not_an_export"),
    ],
)
def test_the_launcher_refuses_a_folder_that_is_not_as_it_was_written(
    spoil: Any, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saerl_assets.trainers.openrlhf_launcher import main

    made = make_export(tmp_path / "a")
    spoil(made.folder)
    monkeypatch.setattr(sys, "argv", ["launcher"])
    with pytest.raises(SystemExit, match=code):
        main(["--export", str(made.folder), "--actor.model_name_or_path", "x"])
