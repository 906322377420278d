"""verl reads our export in the manifest's order, under the overrides that come with it, and under these alone.

Everything here is verl's own: its configuration, `RLHFDataset`, `create_rl_sampler`, the loader as its trainers build
it, and what they save and load of it at a checkpoint.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import pytest
from conftest import (
    BATCH_SIZE,
    LONG_PROMPT_AT,
    Export,
    configure,
    make_export,
    make_trainer,
    read_batches,
    word_tokenizer,
)
from torch.utils.data import SequentialSampler
from verl.trainer.ppo.ray_trainer import RayPPOTrainer
from verl.trainer.ppo.utils import create_rl_dataset, create_rl_sampler
from verl.utils.dataset.rl_dataset import RLHFDataset

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig


def all_batches(config: DictConfig) -> list[list[str]]:
    trainer = make_trainer(config)
    return read_batches(trainer, trainer.total_training_steps)


def test_dataset_and_sampler_are_what_the_exports_readme_speaks_of(export: Export) -> None:
    config = configure(*export.overrides)
    dataset = create_rl_dataset(config.data.train_files, config.data, word_tokenizer(), None)
    assert type(dataset) is RLHFDataset
    assert type(create_rl_sampler(config.data, dataset)) is SequentialSampler
    row = dataset[6]
    assert row["index"] == row["extra_info"]["index"] == 6
    assert row["extra_info"]["prompt_id"] == export.batches[1][2]
    assert (row["extra_info"]["epoch"], row["extra_info"]["step"], row["extra_info"]["slot"]) == (0, 1, 2)
    assert row["raw_prompt"] == row["prompt"] == [{"role": "user", "content": "how many ?"}]
    assert row["reward_model"] == {"style": "rule", "ground_truth": "7"}
    assert dataset[24]["extra_info"]["epoch"] == 1


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("estimator", ["grpo", "gae"])
def test_every_batch_is_the_manifests(export: Export, estimator: str, n_workers: int) -> None:
    config = configure(
        *export.overrides, f"algorithm.adv_estimator={estimator}", f"data.dataloader_num_workers={n_workers}"
    )
    assert all_batches(config) == export.batches


def test_verls_older_trainer_reads_the_same(export: Export) -> None:
    config = configure(*export.overrides, "trainer.use_v1=False")
    trainer = object.__new__(RayPPOTrainer)  # its own constructor asks for the GPUs
    trainer.config, trainer.tokenizer, trainer.processor = config, word_tokenizer(), None
    trainer._create_dataloader(None, None, None, None)
    assert trainer.total_training_steps == len(export.batches)
    batches = [[info["prompt_id"] for info in batch["extra_info"]] for batch in trainer.train_dataloader]
    assert batches == export.batches


class Workers:
    """The workers of the GPUs, of which saving and loading a checkpoint asks nothing here."""

    def save_checkpoint(self, *_: object, **__: object) -> None: ...

    def load_checkpoint(self, *_: object, **__: object) -> None: ...


def trainer_after(n_steps: int, config: DictConfig) -> list[list[str]]:
    """Trains so many steps, saves a checkpoint as verl does, and reads the rest as a new process does."""
    first = make_trainer(config)
    first.actor_rollout_wg = Workers()
    read_batches(first, n_steps)
    first.global_steps = n_steps
    first._save_checkpoint()
    return rest_of(config)


def rest_of(config: DictConfig) -> list[list[str]]:
    again = make_trainer(config)
    again.actor_rollout_wg = Workers()
    again._load_checkpoint()
    return read_batches(again, again.total_training_steps - again.global_steps)


@pytest.mark.parametrize("n_workers", [0, 2])
@pytest.mark.parametrize("n_steps", [1, 5, 7])
def test_training_goes_on_where_it_was_interrupted(
    export: Export, n_steps: int, n_workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = configure(*export.overrides, "algorithm.adv_estimator=grpo", f"data.dataloader_num_workers={n_workers}")
    assert trainer_after(n_steps, config) == export.batches[n_steps:]


def test_another_manifest_does_not_go_on_from_this_ones_checkpoint(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """verl resumes by itself from whatever checkpoint has the experiment's name, at its row number."""
    monkeypatch.chdir(tmp_path)
    other = make_export(tmp_path / "b", seed=2)
    assert other.batches != export.batches
    named_alike = ["trainer.experiment_name=mine", "algorithm.adv_estimator=grpo"]
    trainer_after(3, configure(*export.overrides, *named_alike))
    assert rest_of(configure(*other.overrides, *named_alike)) == other.batches[3:]

    trainer_after(3, configure(*export.overrides, "algorithm.adv_estimator=grpo"))
    assert rest_of(configure(*other.overrides, "algorithm.adv_estimator=grpo")) == other.batches


@pytest.mark.parametrize("seed", ["null", "7"])
def test_verls_default_shuffles(export: Export, seed: str) -> None:
    default = configure().data.shuffle
    assert default is True
    read = all_batches(configure(*export.overrides, f"data.shuffle={default}", f"data.seed={seed}"))
    assert sorted(chain(*read)) == sorted(export.order)
    assert read != export.batches


def test_verls_own_length_filter_shifts_every_later_row(export: Export) -> None:
    limit = "data.max_prompt_length=50"
    assert all_batches(configure(*export.overrides, limit)) == export.batches
    read = all_batches(configure(*export.overrides, limit, "data.filter_overlong_prompts=True"))
    at = LONG_PROMPT_AT // BATCH_SIZE
    assert read[:at] == export.batches[:at]
    flat = export.order
    long = flat[LONG_PROMPT_AT]
    left = [prompt_id for prompt_id in flat if prompt_id != long]
    assert list(chain(*read)) == left[: len(left) // BATCH_SIZE * BATCH_SIZE]
    assert all(mine != theirs for mine, theirs in zip(read[at:], export.batches[at:], strict=False))


def test_a_maximum_of_samples_takes_rows_away(export: Export) -> None:
    cut = all_batches(configure(*export.overrides, "data.train_max_samples=10"))
    assert cut == export.batches[:2]
    drawn = all_batches(configure(*export.overrides, "data.train_max_samples=40", "data.shuffle=True", "data.seed=1"))
    assert drawn != export.batches


def test_another_batch_size_cuts_other_batches_and_loses_the_tail(export: Export) -> None:
    read = all_batches(configure(*export.overrides, "data.train_batch_size=12"))
    flat = export.order
    assert read == [flat[:12], flat[12:24], flat[24:36]]
    assert len(flat) == 40


def test_more_epochs_repeat_the_order(export: Export) -> None:
    assert all_batches(configure(*export.overrides, "trainer.total_epochs=2")) == export.batches * 2


def test_two_files_are_read_one_after_the_other(export: Export) -> None:
    data = export.folder / "train.parquet"
    assert all_batches(configure(*export.overrides, f"data.train_files=[{data},{data}]")) == export.batches * 2
