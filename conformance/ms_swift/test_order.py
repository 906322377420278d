"""ms-swift trains on our export in the manifest's order: its real `swift rlhf`, on a tiny policy, without vLLM.

Nothing stands in for anything: the arguments are those of the export's `grpo.yaml`, and what is looked at are the rows
of every optimizer step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import BATCH_SIZE, Export
from swift.pipelines import rlhf_main
from swift.rewards import ORM, orms
from swift.rlhf_trainers.grpo_trainer import GRPOTrainer

if TYPE_CHECKING:
    from pathlib import Path

SEEN: list[dict[str, Any]] = []
"""What the reward function got, call by call."""


class Length(ORM):
    """Rewards something that differs between responses."""

    def __call__(self, completions: list[str], **columns: Any) -> list[float]:
        SEEN.append(columns)
        return [float(len(text)) for text in completions]


orms["saerl_length"] = Length


def train(
    export: Export, policy: Path, output: Path, monkeypatch: pytest.MonkeyPatch, **changed: Any
) -> list[list[str]]:
    """Trains; returns the prompt ids of every optimizer step, as the trainer hands them to its loss."""
    steps: list[list[str]] = []
    own = GRPOTrainer._prepare_batch_inputs

    def watched(trainer: GRPOTrainer, samples: list[Any]) -> Any:
        steps.append([sample.extra["saerl_prompt_id"] for sample in samples])
        return own(trainer, samples)

    SEEN.clear()
    monkeypatch.setattr(GRPOTrainer, "_prepare_batch_inputs", watched)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(output / "cache"))
    torch.set_num_threads(1)
    given = {
        "model": policy, "model_type": "qwen2", "template": "qwen2_5", "output_dir": output / "run", "use_vllm": False,
        "reward_funcs": "saerl_length", "max_completion_length": 4, "torch_dtype": "float32", "report_to": "none",
        "tuner_type": "full", "bf16": False, "save_strategy": "no", "logging_steps": 100, "beta": 0,
        "num_generations": 2, "per_device_train_batch_size": 2, "dataloader_num_workers": 0, "padding_free": False,
        "gradient_checkpointing": False, "use_cpu": True,
    }  # fmt: skip
    rlhf_main(export.arguments(**given | changed))
    return steps


def test_every_optimizer_step_is_the_manifests_batch(
    export: Export, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = train(export, policy, tmp_path, monkeypatch)
    assert steps == [[prompt_id for prompt_id in batch for _ in range(2)] for batch in export.batches]
    got = SEEN[1]
    assert got["saerl_prompt_id"][::2] == export.batches[1]
    assert got["step"] == [1] * 2 * BATCH_SIZE
    assert got["epoch"] == [0] * 2 * BATCH_SIZE
    assert {"slot", "cluster_id", "difficulty", "topic", "is_padding", "extra"} <= set(got)
    assert got["solution"][0] == str(int(export.batches[1][0].removeprefix("prompt")))
    assert set(got["prompt_id"]) == {f"prompt_{at}" for at in range(BATCH_SIZE)}, "ms-swift's own, not ours"


def test_ms_swifts_default_shuffles(
    export: Export, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = train(export, policy, tmp_path, monkeypatch, dataset_shuffle=True)
    trained = sorted(prompt_id for step in steps for prompt_id in step)
    assert trained == sorted(prompt_id for batch in export.batches for prompt_id in batch * 2)
    assert [step[::2] for step in steps] != export.batches
