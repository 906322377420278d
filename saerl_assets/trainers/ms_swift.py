"""ms-swift: its data file, the arguments that keep the order, its traps.

Belongs here: what ms-swift 4.6 reads and does, as its source says (`load_dataset` in `swift/dataset/loader.py`,
`RowPreprocessor` in `swift/dataset/preprocessor/core.py`, `GRPOTrainer` in `swift/rlhf_trainers/grpo_trainer.py`,
`OnPolicySample` in `swift/rl_core/data.py`). Does not belong here: writing folders (export).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.trainers.formats import (
    README_FILE,
    ExportRequest,
    TrainerFormat,
    decode_messages,
    message_list,
    place_fields,
    write_parquet,
)

if TYPE_CHECKING:
    from pathlib import Path

DATA_FILE = "train.parquet"
SETTINGS_FILE = "grpo.yaml"
PROMPT_ID = "saerl_prompt_id"
"""ms-swift numbers the prompts of a batch in a column `prompt_id` of its own, over whatever is there."""


def grpo_arguments(batch_size: int, *, num_generations: int = 8) -> dict[str, str | int | bool]:
    """Arguments of `swift rlhf` under which one optimizer step is one batch of the manifest, on one process.

    As TRL it counts responses: `per_device_train_batch_size * processes * gradient_accumulation_steps` have to be
    `batch_size * num_generations`.
    """
    return {
        "rlhf_type": "grpo",
        "dataset_shuffle": False,
        "train_dataloader_shuffle": False,
        "split_dataset_ratio": 0,
        "strict": True,
        "streaming": False,
        "truncation_strategy": "left",
        "dynamic_sample": False,
        "num_train_epochs": 1,
        "num_iterations": 1,
        "num_generations": num_generations,
        "per_device_train_batch_size": num_generations,
        "gradient_accumulation_steps": batch_size,
        "steps_per_generation": batch_size,
    }


def _write(request: ExportRequest, folder: Path) -> None:
    import pyarrow as pa

    places = [(PROMPT_ID if name == "prompt_id" else name, kind) for name, kind in place_fields()]
    schema = pa.schema([("messages", message_list()), ("solution", pa.string()), *places])
    rows = request.rows.with_columns(messages=decode_messages()).rename({"answer": "solution", "prompt_id": PROMPT_ID})
    write_parquet(rows, schema, folder / DATA_FILE)
    named = {"key": request.key, "arm": request.arm, "manifest_id": request.manifest_id, "size": request.batch_size}
    settings = "".join(f"{name}: {json.dumps(value)}\n" for name, value in grpo_arguments(request.batch_size).items())
    head = "# {key}, arm {arm}, manifest {manifest_id}.\n".format(**named)
    (folder / SETTINGS_FILE).write_text(head + settings, encoding="utf-8")
    (folder / README_FILE).write_text(_README.format(**named), encoding="utf-8")


def _read_order(folder: Path) -> pl.DataFrame:
    rows = pl.read_parquet(folder / DATA_FILE, columns=["epoch", "step", "slot", PROMPT_ID])
    return rows.rename({PROMPT_ID: "prompt_id"})


FORMAT = TrainerFormat(
    name="ms_swift", data_file=DATA_FILE, settings_file=SETTINGS_FILE, write=_write, read_order=_read_order
)

_README = """\
# {key}, arm {arm}, for ms-swift

Manifest `{manifest_id}`.

Rows are in training order, {size} prompts to a batch: row r belongs to batch r // {size}. Written for GRPO of
ms-swift 4.6.

```bash
EXPORT=path/to/this/folder
swift rlhf $EXPORT/grpo.yaml \\
  --dataset $EXPORT/train.parquet --external_plugins my_reward.py --reward_funcs my_reward --model ... --output_dir ...
```

The file comes first; arguments after it win. `messages` are the prompt, `solution` is the answer, under the
name by which ms-swift's own reward functions take it. All other columns reach the reward function as lists:
`saerl_prompt_id`, `epoch`, `step`, `slot`, `cluster_id`, `difficulty`, `topic`, `is_padding`, and `extra`,
the further fields of the source row as a JSON object.

## What keeps the order

- `dataset_shuffle: false`. The default is true and permutes twice: `load_dataset` the rows, the trainer's
  sampler their numbers. `train_dataloader_shuffle: false` is what ms-swift's other trainers obey.
- One optimizer step has to be one batch. ms-swift counts responses, so

      per_device_train_batch_size * processes * gradient_accumulation_steps == {size} * num_generations

`grpo.yaml` is for one process and 8 responses to a prompt. With 4 processes divide
`gradient_accumulation_steps` and `steps_per_generation` by 4; to give a device more at a time, multiply
`per_device_train_batch_size` and divide both.
- `steps_per_generation` equal to `gradient_accumulation_steps`; do not set `generation_batch_size` beside it.
- `dynamic_sample: false`: it draws other prompts for those whose responses are all alike.
- `truncation_strategy: left`: `delete` replaces a prompt that is too long by another one. Use
  `batches.max_prompt_tokens` of the spec.
- `split_dataset_ratio: 0`: a part for validation would be taken from these rows. Give `--val_dataset`.
- `num_train_epochs: 1`. All planned epochs are in the file, one after the other; more would repeat the first
  order.

## Traps

- `strict: true`. By default a row that ms-swift cannot read is dropped with a line in the log, and every
  later row moves into another batch.
- Give one path and nothing after it: `train.parquet#1000` samples, several data sets are concatenated or
  interleaved.
- The column `prompt_id` is ms-swift's own: it numbers the prompts of each batch in it, over whatever was
  there. Ours is `saerl_prompt_id`.
- `streaming: true` reads through a buffer that is shuffled unless `dataset_shuffle` is off.
- The sampler drops a last batch that is not full. This file has whole batches only; what was left out is
  counted in `manifest.json`.
- `solution` is null where the source has no answer. ms-swift's own `accuracy` needs it, a reward model or a
  function of yours may not.
- Resume only with this very file: ms-swift skips as many rows as were trained on, whatever they are.
- `num_iterations` above 1 trains again on the responses of a batch before it goes on.
"""
