"""TRL's GRPO trainer: its data file, the settings that keep the order, its traps.

Belongs here: what TRL 1.16 reads and does, as its source says (`trl/trainer/grpo_trainer.py`,
`grpo_config.py`, `RepeatSampler` in `utils.py`). Does not belong here: writing folders (export), watching a
training (trl_callback, whose `OrderCallback` can be imported from here too).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.formats import (
    README_FILE,
    ExportRequest,
    TrainerFormat,
    decode_messages,
    write_parquet,
)

if TYPE_CHECKING:
    from saerl_assets.trainers.trl_callback import OrderCallback

__all__ = ["FORMAT", "Loaded", "OrderCallback", "grpo_settings", "load"]

DATA_FILE = "train.parquet"
SETTINGS_FILE = "grpo_config.json"


class Loaded(NamedTuple):
    """An export, ready for `GRPOTrainer`."""

    dataset: Any
    """A memory-mapped `datasets.Dataset` in the exact order, for `train_dataset`."""
    settings: dict[str, int | bool]
    """Arguments of `GRPOConfig`; add your own, but leave these as they are."""


def load(
    path: str | Path,
    *,
    num_generations: int = 8,
    n_processes: int = 1,
    per_device_batch_size: int | None = None,
    as_chat: bool = False,
) -> Loaded:
    """An export as `GRPOTrainer` takes it.

    The folder is held against its own digests first, so what was changed is not trained on. `datasets` keeps a
    copy in its cache, which is mapped into memory, not read into it.

    Args:
        path: The folder that `saerl export KEY --to trl` wrote.
        num_generations: Completions of a prompt.
        n_processes: Processes that train together.
        per_device_batch_size: Completions that a device takes at once; one prompt's by default.
        as_chat: Makes chat messages of prompts that are text, so that the policy's chat template is used.

    Raises:
        SaerlError: `not_an_export`, `export_changed`, `other_trainer`; `batch_not_divisible`.
    """
    from datasets import Dataset

    from saerl_assets.trainers.export import check_export

    folder = Path(path)
    record = check_export(folder)
    if record.trainer != FORMAT.name:
        raise other_trainer(folder, record.trainer)
    settings = grpo_settings(
        record.batch_size,
        num_generations=num_generations,
        n_processes=n_processes,
        per_device_batch_size=per_device_batch_size,
    )
    dataset = Dataset.from_parquet(str(folder / DATA_FILE))
    if as_chat and isinstance(dataset[0]["prompt"], str):
        dataset = dataset.map(_chat_of, desc="Making chat messages")
    return Loaded(dataset, settings)


def _chat_of(row: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    return {"prompt": [{"role": "user", "content": row["prompt"]}]}


def other_trainer(folder: Path, trainer: str) -> SaerlError:
    """An export of another trainer's."""
    remedy = "Export again with: saerl export KEY --to trl."
    return SaerlError("other_trainer", f"This export is for {trainer}.", where=str(folder), remedy=remedy)


def grpo_settings(
    batch_size: int, *, num_generations: int = 8, n_processes: int = 1, per_device_batch_size: int | None = None
) -> dict[str, int | bool]:
    """Arguments of `GRPOConfig` under which one optimizer step is one batch of the manifest.

    TRL counts completions: a step takes `per_device_train_batch_size * n_processes *
    gradient_accumulation_steps` of them, and a prompt has `num_generations`. So that product must be
    `batch_size * num_generations`.

    Args:
        batch_size: Prompts of a batch.
        num_generations: Completions of a prompt.
        n_processes: Processes that train together.
        per_device_batch_size: Completions that a device takes at once; one prompt's by default.

    Raises:
        SaerlError: `batch_not_divisible` if the processes cannot share a batch evenly.
    """
    per_device = num_generations if per_device_batch_size is None else per_device_batch_size
    n_completions, at_once = batch_size * num_generations, per_device * n_processes
    if n_completions % at_once:
        raise SaerlError(
            "batch_not_divisible",
            f"{n_processes} processes cannot share a batch of {batch_size} prompts: its {n_completions} completions "
            f"do not divide into {at_once} at once.",
            where="batches.batch_size",
            remedy=f"Use another number of processes or of completions per device, whose product divides "
            f"{n_completions}, or another batch size.",
        )
    n_accumulated = n_completions // at_once
    return {
        "shuffle_dataset": False,
        "num_train_epochs": 1,
        "num_generations": num_generations,
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": n_accumulated,
        "steps_per_generation": n_accumulated,
        "remove_unused_columns": False,
    }


def _write(request: ExportRequest, folder: Path) -> None:
    """Prompts are strings if all of them were; else all are chats, for TRL looks at the first one only."""
    import pyarrow as pa

    text, integer = pa.string(), pa.int64()
    is_chat = bool(request.rows["is_chat"].any())
    message = pa.struct([("role", text), ("content", text)])
    schema = pa.schema(
        [
            ("prompt", pa.list_(message) if is_chat else text),
            ("answer", text),
            ("prompt_id", text),
            ("epoch", integer),
            ("step", integer),
            ("slot", integer),
            ("cluster_id", integer),
            ("difficulty", pa.float64()),
            ("topic", text),
            ("is_padding", pa.bool_()),
            ("extra", text),
        ]
    )
    prompt = decode_messages()
    if not is_chat:
        prompt = prompt.list.first().struct.field("content")
    write_parquet(request.rows.with_columns(prompt=prompt), schema, folder / DATA_FILE)
    settings = json.dumps(grpo_settings(request.batch_size), indent=2)
    (folder / SETTINGS_FILE).write_text(settings + "\n", encoding="utf-8")
    readme = _README.format(
        key=request.key,
        arm=request.arm,
        manifest_id=request.manifest_id,
        size=request.batch_size,
        kind="chat messages" if is_chat else "a string",
    )
    (folder / README_FILE).write_text(readme, encoding="utf-8")


def _read_order(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / DATA_FILE, columns=["epoch", "step", "slot", "prompt_id"])


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class whose module needs transformers
    """`OrderCallback`, imported when it is asked for: this module is read by those who do not train, too."""
    if name == "OrderCallback":
        from saerl_assets.trainers.trl_callback import OrderCallback

        return OrderCallback
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


FORMAT = TrainerFormat(
    name="trl", data_file=DATA_FILE, settings_file=SETTINGS_FILE, write=_write, read_order=_read_order
)

_README = """\
# {key}, arm {arm}, for TRL's GRPOTrainer

Manifest `{manifest_id}`.

Rows are in training order, {size} prompts to a batch: row r belongs to batch r // {size}. Written for TRL
1.16.

```python
from saerl_assets.trainers.trl import OrderCallback, load
from trl import GRPOConfig, GRPOTrainer

dataset, settings = load("this folder", num_generations=8)
order = OrderCallback("this folder")
trainer = GRPOTrainer(
    model="...",
    reward_funcs=order.watch(my_reward),
    args=GRPOConfig(output_dir="...", **settings),
    train_dataset=dataset,
    callbacks=[order],
)
trainer.train()
```

`load` checks that nothing here was changed, and gives the settings for your number of generations, processes and
completions per device; `as_chat=True` makes chat messages of prompts that are text. `OrderCallback` stops a training
that would not follow the order, with the setting that is wrong; it refuses to resume another manifest's checkpoint,
sees through the reward function that every step takes its own batch, and writes each completion's reward to
`saerl_log.jsonl` in the output folder. Both need `pip install 'saerl-assets[trl]'`. Without them:
`load_dataset("parquet", data_files="train.parquet", split="train")` and the arguments in `grpo_config.json`.

`prompt` is {kind}. All other columns reach the reward function as lists: `answer`, `topic`, `prompt_id`,
`epoch`, `step`, `slot`, `cluster_id`, `difficulty`, `is_padding`, and `extra`, the further fields of the
source row as a JSON object.

## What keeps the order

- `shuffle_dataset=False`. The default is True and permutes all rows.
- One optimizer step has to be one batch. TRL counts completions, so

      per_device_train_batch_size * processes * gradient_accumulation_steps == {size} * num_generations

  `grpo_config.json` is for one process and 8 generations. With 4 processes divide
  `gradient_accumulation_steps` and `steps_per_generation` by 4; to give a device more at a time, multiply
  `per_device_train_batch_size` and divide both.
- `steps_per_generation == gradient_accumulation_steps`, the default. TRL permutes completions within the batch it
  generates at once. If that batch is one optimizer step, nothing is lost by it; if it spans several, prompts
  move between them. A divisor is fine too, as long as `num_iterations` is 1: it generates a batch in parts, which takes
  less memory.
- `num_train_epochs=1`. All planned epochs are in the file, one after the other; more would repeat the first
  order.
- `remove_unused_columns=False`, so that the reward function sees the columns above.

## Traps

- Keep the data set in memory mapped form, as `load_dataset` gives it. A streaming one is shuffled through a
  buffer unless `shuffle_dataset=False`.
- Do not filter, concatenate or interleave the data set: every later row would move into another batch.
  Prompts that are too long are left out by `batches.max_prompt_tokens` of the spec, before batches are cut.
- TRL drops a last batch that is not full. This file has whole batches only; what was left out is counted in
  `manifest.json`.
- Resume only with this very file: TRL skips as many rows as were trained on, whatever they are.
- With `num_iterations` above 1, a batch is trained on for so many steps in a row. Resume only from a checkpoint whose
  step is a multiple of it: TRL starts counting anew, and every later step would take the batch before its own.
- `auto_find_batch_size` (which GRPOConfig refuses) and a changed number of processes change what one step takes.
"""
