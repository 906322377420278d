"""TRL's GRPO trainer: its data file, the settings that keep the order, its traps.

Belongs here: what TRL 1.16 reads and does, as its source says (`trl/trainer/grpo_trainer.py`,
`grpo_config.py`, `RepeatSampler` in `utils.py`). Does not belong here: writing folders (export).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

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
    from pathlib import Path

DATA_FILE = "train.parquet"
SETTINGS_FILE = "grpo_config.json"


def grpo_settings(batch_size: int, *, num_generations: int = 8, n_processes: int = 1) -> dict[str, int | bool]:
    """Arguments of `GRPOConfig` under which one optimizer step is one batch of the manifest.

    TRL counts completions: a step takes `per_device_train_batch_size * n_processes *
    gradient_accumulation_steps` of them, and a prompt has `num_generations`. So that product must be
    `batch_size * num_generations`; here each device takes one prompt at a time. To use a device better,
    multiply the one and divide the other, `steps_per_generation` along with it.

    Raises:
        SaerlError: `batch_not_divisible` if the processes cannot share a batch evenly.
    """
    if batch_size % n_processes:
        raise SaerlError(
            "batch_not_divisible",
            f"{n_processes} processes cannot share a batch of {batch_size} prompts.",
            where="batches.batch_size",
            remedy=f"Make it a multiple of {n_processes}, or use fewer processes.",
        )
    n_accumulated = batch_size // n_processes
    return {
        "shuffle_dataset": False,
        "num_train_epochs": 1,
        "num_generations": num_generations,
        "per_device_train_batch_size": num_generations,
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


FORMAT = TrainerFormat(
    name="trl", data_file=DATA_FILE, settings_file=SETTINGS_FILE, write=_write, read_order=_read_order
)

_README = """\
# {key}, arm {arm}, for TRL's GRPOTrainer

Manifest `{manifest_id}`.

Rows are in training order, {size} prompts to a batch: row r belongs to batch r // {size}. Written for TRL
1.16.

```python
import json
from datasets import load_dataset
from trl import GRPOConfig, GRPOTrainer

dataset = load_dataset("parquet", data_files="train.parquet", split="train")
settings = json.load(open("grpo_config.json"))
trainer = GRPOTrainer(
    model="...",
    reward_funcs=my_reward,
    args=GRPOConfig(output_dir="...", **settings),
    train_dataset=dataset,
)
trainer.train()
```

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
- `steps_per_generation == gradient_accumulation_steps`. TRL permutes completions within the batch it
  generates at once. If that batch is one optimizer step, nothing is lost by it; if it spans several, prompts
  move between them.
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
- `auto_find_batch_size` and a changed number of processes change what one step takes.
"""
