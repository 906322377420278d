"""What the conformance tests with verl share: an export as users get it, verl's own configuration, its own trainers.

Belongs here: fixtures. Does not belong here: anything that stands in for verl, but for what needs a GPU (test_steps).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config
from verl.trainer.ppo.v1 import get_trainer_cls

from saerl_assets.domain.batches import plan_manifest
from saerl_assets.domain.spec import BatchSpec
from saerl_assets.trainers.export import ExportRequest, check_export, write_export
from saerl_assets.trainers.formats import README_FILE

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

BATCH_SIZE = 4
N_PROMPTS = 22  # 5 batches and 2 prompts over, in each of 2 epochs
LONG_PROMPT_AT = 5  # row of the one prompt that is longer than verl's limit in the tests of it


@dataclass(frozen=True)
class Export:
    """An export and the order that it stands for."""

    folder: Path
    manifest_id: str
    batches: list[list[str]]
    """Prompt ids of every batch of the manifest, over both epochs."""

    @property
    def order(self) -> list[str]:
        """Prompt ids of all batches, one after the other."""
        return [prompt_id for batch in self.batches for prompt_id in batch]

    @property
    def overrides(self) -> list[str]:
        """What the export tells verl, and where its data are; there has to be a file for validation too."""
        data = self.folder / "train.parquet"
        lines = (self.folder / "overrides.txt").read_text(encoding="utf-8").split()
        return [*lines, f"data.train_files={data}", f"data.val_files={data}"]


def make_export(folder: Path, *, seed: int = 1, batch_size: int = BATCH_SIZE) -> Export:
    """Plans two epochs with the product's planner and exports them for verl."""
    ids = [hashlib.sha256(f"prompt {at}".encode()).hexdigest()[:32] for at in range(N_PROMPTS)]
    numbers = np.random.default_rng(0)
    candidates = pl.DataFrame(
        {
            "prompt_id": ids,
            "cluster_id": pl.Series(numbers.integers(0, 3, N_PROMPTS), dtype=pl.UInt32),
            "difficulty": numbers.random(N_PROMPTS),
            "n_tokens": pl.Series([10] * N_PROMPTS, dtype=pl.UInt32),
            "kept": [True] * N_PROMPTS,
            "quality": numbers.random(N_PROMPTS),
        }
    )
    spec = BatchSpec(batch_size=batch_size, epochs=2)
    plan = plan_manifest(candidates, spec, key="some-v1", seed=seed)
    order = plan.manifest.filter(pl.col("arm") == "clustered").sort("epoch", "step", "slot")
    long = order["prompt_id"][LONG_PROMPT_AT]
    asked = ["how many " * (60 if prompt_id == long else 1) + "?" for prompt_id in ids]
    prompts = pl.DataFrame(
        {
            "prompt_id": ids,
            "messages": [json.dumps([{"role": "user", "content": text}]) for text in asked],
            "is_chat": False,
            "answer": "7",
            "topic": "counting",
            "extra": "{}",
        }
    )
    rows = order.join(prompts, on="prompt_id", how="left", maintain_order="left")
    request = ExportRequest(rows, plan.manifest_id, "some-v1", "clustered", batch_size, "s" * 64, {})
    write_export("verl", request, folder)
    batches = order.group_by("epoch", "step", maintain_order=True).agg("prompt_id")["prompt_id"].to_list()
    return Export(folder, plan.manifest_id, batches)


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Two planned epochs of 22 prompts in batches of 4."""
    made = make_export(tmp_path_factory.mktemp("export") / "a")
    check_export(made.folder, manifest_id=made.manifest_id)
    assert (made.folder / README_FILE).exists()
    assert len(made.batches) == 2 * (N_PROMPTS // BATCH_SIZE)
    assert made.batches[:5] != made.batches[5:], "the second epoch is a plan of its own"
    return made


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model as verl looks at one before it loads weights."""
    folder = tmp_path_factory.mktemp("model")
    Qwen2Config(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        architectures=["Qwen2ForCausalLM"],
    ).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def configure(*overrides: str) -> DictConfig:
    """verl's configuration with these overrides, as `python -m verl.trainer.main_ppo OVERRIDES` makes it.

    Hydra refuses an override whose key verl does not have.
    """
    with initialize_config_module("verl.trainer.config", version_base=None):
        return compose("ppo_trainer", overrides=["data.dataloader_num_workers=0", *overrides])


def make_trainer(config: DictConfig) -> Any:
    """verl's trainer of the mode that the configuration names, its data loader made, its workers not."""
    trainer = get_trainer_cls(config.trainer.v1.trainer_mode)(config=OmegaConf.create(OmegaConf.to_container(config)))
    trainer.tokenizer, trainer.processor = word_tokenizer(), None
    trainer.global_steps = 1
    trainer._init_dataloader()
    return trainer


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word, so that a prompt's length is known."""
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<eos>": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<eos>")
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
    return tokenizer


def prompt_ids(batch: Any) -> list[str]:
    """Prompts of a batch as verl's loader gave it, in its order."""
    return [info["prompt_id"] for info in batch["extra_info"]]


def read_batches(trainer: Any, n_batches: int) -> list[list[str]]:
    """Prompts of the next batches that verl's trainer takes from its loader for generation."""
    return [prompt_ids(trainer._next_train_batch()) for _ in range(n_batches)]
