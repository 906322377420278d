"""NeMo-RL: its data file, the configuration that keeps the order, its traps.

Belongs here: what NeMo-RL reads and does, as its source says (`ResponseDataset` in
`nemo_rl/data/datasets/response_datasets/response_dataset.py`, `load_dataset_from_path` in
`nemo_rl/data/datasets/utils.py`, `math_hf_data_processor` in `nemo_rl/data/processors.py`, `setup` in
`nemo_rl/algorithms/grpo.py`, `examples/configs/grpo_math_1B.yaml`). Does not belong here: writing folders (export).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.formats import (
    README_FILE,
    ExportRequest,
    TrainerFormat,
    decode_messages,
    message_list,
    place_fields,
    require_answers,
    write_parquet,
)

if TYPE_CHECKING:
    from pathlib import Path

DATA_FILE = "train.parquet"
SETTINGS_FILE = "grpo.yaml"
N_GENERATIONS = 16
"""Responses to a prompt, as in NeMo-RL's own examples."""


def _write(request: ExportRequest, folder: Path) -> None:
    """The prompt is the first message and the answer the second, as NeMo-RL's own processor reads them."""
    import pyarrow as pa

    require_answers(request, "nemo_rl", "the message of the assistant, its ground truth")
    messages = decode_messages()
    _require_single_turns(request.rows.with_columns(turns=messages), request.key)
    schema = pa.schema([("messages", message_list()), ("answer", pa.string()), *place_fields()])
    answer = pl.struct(role=pl.lit("assistant"), content="answer")
    rows = request.rows.with_columns(messages=pl.concat_list(messages, answer))
    write_parquet(rows, schema, folder / DATA_FILE)
    named = {
        "key": request.key,
        "arm": request.arm,
        "manifest_id": request.manifest_id,
        "size": request.batch_size,
        "steps": request.rows.height // request.batch_size,
        "generations": N_GENERATIONS,
        "responses": request.batch_size * N_GENERATIONS,
    }
    (folder / SETTINGS_FILE).write_text(_SETTINGS % named, encoding="utf-8")
    (folder / README_FILE).write_text(_README % named, encoding="utf-8")


def _require_single_turns(rows: pl.DataFrame, where: str) -> None:
    """Refuses prompts of which NeMo-RL's processor would take a part for the whole."""
    first = pl.col("turns").list.first().struct.field("role")
    other = rows.filter((pl.col("turns").list.len() != 1) | (first != "user"))["prompt_id"].unique(maintain_order=True)
    if len(other):
        more = f" and {len(other) - 1} others are" if len(other) > 1 else " is"
        raise SaerlError(
            "not_single_turn",
            f"Prompt {other[0]}{more} more than one message of the user; NeMo-RL reads the first message alone as "
            "prompt and the second as answer.",
            where=where,
            remedy="Export to 'parquet' and give NeMo-RL a processor of your own, or put what the system says into "
            "the message of the user.",
        )


def _read_order(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / DATA_FILE, columns=["epoch", "step", "slot", "prompt_id"])


FORMAT = TrainerFormat(
    name="nemo_rl", data_file=DATA_FILE, settings_file=SETTINGS_FILE, write=_write, read_order=_read_order
)

_SETTINGS = """\
# %(key)s, arm %(arm)s, manifest %(manifest_id)s.
# To be merged into a GRPO configuration: copy it, put `defaults: path/to/examples/configs/grpo_math_1B.yaml` on top.
grpo:
  num_prompts_per_step: %(size)d
  num_generations_per_prompt: %(generations)d
  max_num_epochs: 1
  max_num_steps: %(steps)d
  use_dynamic_sampling: false
  batch_multiplier: 1
  val_period: 0
  val_at_start: false
  val_at_end: false
  async_grpo:
    enabled: false
policy:
  train_global_batch_size: %(responses)d
data:
  shuffle: false
  use_multiple_dataloader: false
  train:
    dataset_name: ResponseDataset
    data_path: ${oc.env:SAERL_EXPORT}/train.parquet
    split: null
    split_validation_size: 0
  validation: null
  default:
    prompt_file: null
    system_prompt_file: null
    processor: math_hf_data_processor
    env_name: math
"""

_README = """\
# %(key)s, arm %(arm)s, for NeMo-RL

Manifest `%(manifest_id)s`.

Rows are in training order, %(size)d prompts to a batch: row r belongs to batch r // %(size)d. Written for
NeMo-RL's GRPO as its source was in 2026 (0.6 to 0.8).

```bash
export SAERL_EXPORT=/absolute/path/to/this/folder
(echo "defaults: $PWD/examples/configs/grpo_math_1B.yaml"; cat $SAERL_EXPORT/grpo.yaml) > ordered.yaml
uv run examples/run_grpo.py --config ordered.yaml
```

`messages` are the prompt, as the user, and the answer, as the assistant, which NeMo-RL's processor
`math_hf_data_processor` takes as ground truth. A file that has `messages` keeps its other columns, but that
processor hands on only the texts and `idx`, the row's number in this file: join on it, or let a processor of
your own put `prompt_id`, `epoch`, `step`, `slot`, `cluster_id`, `difficulty`, `topic`, `is_padding` or
`extra` into `extra_env_info`.

## What keeps the order

- `data.shuffle: false`. NeMo-RL's example configurations say true.
- `data.train.split_validation_size: 0`. The example has 0.05, which draws a random part and permutes the
  rest. Give a validation set of your own in `data.validation` and set `grpo.val_period` again.
- `grpo.num_prompts_per_step: %(size)d`, and `policy.train_global_batch_size: %(responses)d`: %(size)d times
  `grpo.num_generations_per_prompt` (%(generations)d here). A smaller one makes several optimizer steps of one
  batch.
- `grpo.use_dynamic_sampling: false` and `grpo.batch_multiplier: 1`. Dynamic sampling draws more prompts and
  drops those whose responses are all right or all wrong.
- `data.use_multiple_dataloader: false`. With it a function of yours chooses from which data set the next
  prompts come.
- `grpo.max_num_epochs: 1` and `grpo.max_num_steps: %(steps)d`. All planned epochs are in the file, one after
  the other; more would repeat the first order.
- `grpo.async_grpo.enabled: false`. With it batches are drawn in order but trained on as they are finished.

## Traps

- A column `task_name` would collide with the one that NeMo-RL adds; there is none here.
- `data.default.prompt_file` wraps every prompt into a text; `grpo_math_1B.yaml` has one. It is null here, for
  the prompt is exported as it was.
- A prompt longer than `data.max_input_seq_length` is cut to four tokens and left out of the loss, silently.
  Use `batches.max_prompt_tokens` of the spec.
- The loader drops a last batch that is not full. This file has whole batches only; what was left out is
  counted in `manifest.json`.
- Resume only with this very file: NeMo-RL goes on at a row number. It compares the data set's name, which is
  `ResponseDataset` for every file, so another file is not noticed and rows are skipped.
- Give one file: several are concatenated, and every row of the second moves.
- Prompts are single messages of the user: the processor reads no system message.
"""
