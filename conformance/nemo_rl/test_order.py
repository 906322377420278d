"""NeMo-RL's loading path, rebuilt from `datasets`, `torchdata` and `omegaconf`, reads our export in order.

NeMo-RL cannot be installed from a package registry, so none of its own code runs here. Each function below does what
the named source does (github.com/NVIDIA-NeMo/RL), so these tests say what its settings do to the order, not that a
release of it still does so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from datasets import Dataset, DatasetDict, load_dataset
from omegaconf import OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader

from saerl_assets.trainers.export import ExportRequest, write_export

BATCH_SIZE = 4
N_PROMPTS = 24
BASE = """
grpo: {num_prompts_per_step: 32, num_generations_per_prompt: 16, max_num_epochs: 1, max_num_steps: 1000000}
policy: {train_global_batch_size: 512}
data:
  shuffle: true
  num_workers: 1
  use_multiple_dataloader: false
  train: {dataset_name: OpenMathInstruct-2, split_validation_size: 0.05, seed: 42}
  validation: null
  default: {prompt_file: examples/prompts/cot.txt, system_prompt_file: null, env_name: math}
"""
"""What matters of examples/configs/grpo_math_1B.yaml (commit b26cfeb3), over which our fragment is merged."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = range(N_PROMPTS)
    order = [at * 7 % N_PROMPTS for at in place]
    rows = pl.DataFrame(
        {
            "epoch": [at // 12 for at in place],
            "step": [at % 12 // BATCH_SIZE for at in place],
            "slot": [at % BATCH_SIZE for at in place],
            "prompt_id": [f"prompt{at:02d}" for at in order],
            "messages": [json.dumps([{"role": "user", "content": f"What is {at}?"}]) for at in order],
            "is_chat": False,
            "answer": [str(at) for at in order],
            "topic": [None if at < 12 else "sums" for at in place],
            "cluster_id": 3,
            "difficulty": 0.5,
            "extra": "{}",
            "is_padding": False,
        }
    )
    request = ExportRequest(rows, "m" * 64, "some-v1", "clustered", BATCH_SIZE, "s" * 64, {})
    write_export("nemo_rl", request, tmp_path / "a")
    return tmp_path / "a"


def configuration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """nemo_rl/utils/config.py, `load_config_with_inheritance`: the file over its `defaults`, then resolved."""
    monkeypatch.setenv("SAERL_EXPORT", str(folder))
    merged = OmegaConf.merge(OmegaConf.create(BASE), OmegaConf.load(folder / "grpo.yaml"))
    resolved = OmegaConf.to_container(merged, resolve=True)
    assert isinstance(resolved, dict)
    return {str(name): value for name, value in resolved.items()}


def response_dataset(settings: dict[str, Any], cache: Path) -> Dataset:
    """`ResponseDataset` in nemo_rl/data/datasets/response_datasets/response_dataset.py (commit 23d0baf6).

    With `load_dataset_from_path` of nemo_rl/data/datasets/utils.py (commit d9c217cc) and `split_train_validation` of
    nemo_rl/data/datasets/raw_dataset.py (commit 04b7037f).
    """
    data_path, split = settings["data_path"], settings.get("split")
    kind = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}[Path(data_path).suffix]
    dataset = load_dataset(kind, data_files=data_path, cache_dir=str(cache))
    if split:
        dataset = dataset[split]
    elif isinstance(dataset, DatasetDict) and "train" in dataset:
        dataset = dataset["train"]
    assert "messages" in dataset.column_names, "else every other column would be dropped"
    dataset = dataset.add_column("task_name", ["nemo_rl-train"] * len(dataset))
    if settings["split_validation_size"] > 0:
        parts = dataset.train_test_split(test_size=settings["split_validation_size"], seed=settings["seed"])
        dataset = parts["train"]
    return dataset


class Processed:
    """`AllTaskProcessedDataset` (nemo_rl/data/datasets/processed_dataset.py) with `math_hf_data_processor`.

    (nemo_rl/data/processors.py, commit 006a7dad.) The tokens are left out.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> dict[str, Any]:
        row = self.dataset[idx]
        return {
            "message_log": [{"role": "user", "content": row["messages"][0]["content"]}],
            "extra_env_info": {"ground_truth": row["messages"][1]["content"]},
            "idx": idx,
            "task_name": row["task_name"],
        }


def collate(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """`rl_collate_fn` in nemo_rl/data/collate_fn.py."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def loader(config: dict[str, Any], cache: Path) -> StatefulDataLoader[Any]:
    """`init_train_dataloader` in `setup` of nemo_rl/algorithms/grpo.py (commit 002cdc27)."""
    return StatefulDataLoader(
        Processed(response_dataset(config["data"]["train"], cache)),
        batch_size=config["grpo"]["num_prompts_per_step"],
        shuffle=config["data"]["shuffle"],
        collate_fn=collate,
        drop_last=True,
        num_workers=config["data"]["num_workers"],
    )


def answers(batches: StatefulDataLoader[Any]) -> list[list[str]]:
    return [[said["ground_truth"] for said in batch["extra_env_info"]] for batch in batches]


def planned(folder: Path) -> list[list[str]]:
    rows = pl.read_parquet(folder / "train.parquet")["answer"].to_list()
    return [rows[start : start + BATCH_SIZE] for start in range(0, N_PROMPTS, BATCH_SIZE)]


def test_every_batch_is_the_manifests(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configuration(folder, monkeypatch)
    batches = list(loader(config, tmp_path))
    assert [[said["ground_truth"] for said in batch["extra_env_info"]] for batch in batches] == planned(folder)
    assert [batch["idx"] for batch in batches] == [list(range(at, at + 4)) for at in range(0, N_PROMPTS, 4)]
    assert batches[1]["message_log"][0] == [{"role": "user", "content": "What is 4?"}]
    assert config["grpo"]["max_num_steps"] == len(batches)
    responses = config["grpo"]["num_prompts_per_step"] * config["grpo"]["num_generations_per_prompt"]
    assert config["policy"]["train_global_batch_size"] == responses
    assert config["data"]["default"]["prompt_file"] is None


def test_training_goes_on_where_it_was_interrupted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load_dataloader_state` in nemo_rl/data/utils.py."""
    config = configuration(folder, monkeypatch)
    first = loader(config, tmp_path)
    batches = iter(first)
    next(batches), next(batches)
    again = loader(config, tmp_path)
    again.load_state_dict(first.state_dict())
    assert answers(again) == planned(folder)[2:]


def test_the_file_keeps_its_other_columns(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = response_dataset(configuration(folder, monkeypatch)["data"]["train"], tmp_path)
    assert dataset[1]["prompt_id"] == "prompt07"
    assert {"epoch", "step", "slot", "cluster_id", "difficulty", "topic", "is_padding", "extra"} <= set(dataset[0])


@pytest.mark.parametrize(("place", "value"), [("data.shuffle", True), ("data.train.split_validation_size", 0.25)])
def test_each_of_the_examples_own_settings_breaks_the_order(
    folder: Path, place: str, value: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = OmegaConf.create(configuration(folder, monkeypatch))
    OmegaConf.update(config, place, value)
    found = answers(loader(config, tmp_path))
    assert found != planned(folder)[: len(found)]
