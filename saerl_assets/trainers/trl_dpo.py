"""TRL's DPO trainer: its data file, the settings that keep the order, its traps.

Belongs here: what TRL 1.16 and the transformers 5 below it read and do, as their source says
(`trl/trainer/dpo_trainer.py`, `transformers/trainer.py`). Does not belong here: writing folders (export), which pair
an epoch takes (domain/preference_pairs).
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.preference_pairs import PAIRS_SCHEMA, pairs_of_slots
from saerl_assets.trainers.formats import (
    README_FILE,
    ExportRequest,
    TrainerFormat,
    message_list,
    place_fields,
    write_parquet,
)

if TYPE_CHECKING:
    from saerl_assets.trainers.export import ExportRecord

DATA_FILE = "train.parquet"
SETTINGS_FILE = "dpo_config.json"


class Loaded(NamedTuple):
    """An export, ready for `DPOTrainer`."""

    dataset: Any
    """A memory-mapped `datasets.Dataset` in the exact order, for `train_dataset`."""
    settings: dict[str, Any]
    """Arguments of `DPOConfig`; add your own, but leave these as they are."""


def load(path: str | Path, *, n_processes: int = 1, per_device_batch_size: int = 1, as_chat: bool = False) -> Loaded:
    """An export as `DPOTrainer` takes it.

    The folder is held against its own digests first, so what was changed is not trained on. `datasets` keeps a copy in
    its cache, which is mapped into memory, not read into it.

    Args:
        path: The folder that `saerl export KEY --to trl_dpo` wrote.
        n_processes: Processes that train together.
        per_device_batch_size: Pairs that a device takes at once.
        as_chat: Makes chat messages of prompts and answers that are text, so that the policy's chat template is used.

    Raises:
        SaerlError: `not_an_export`, `export_changed`, `other_trainer`; `batch_not_divisible`.
    """
    from datasets import Dataset

    folder = Path(path)
    record = _checked(folder)
    settings = dpo_settings(record.batch_size, n_processes=n_processes, per_device_batch_size=per_device_batch_size)
    dataset = Dataset.from_parquet(str(folder / DATA_FILE))
    if as_chat and isinstance(dataset[0]["prompt"], str):
        dataset = dataset.map(_chat_of, desc="Making chat messages")
    return Loaded(dataset, settings)


def check_order(trainer: Any, path: str | Path) -> None:  # noqa: ANN401 - a DPOTrainer
    """Holds what a trainer is about to train on against an export; call it between making and starting the trainer.

    It looks at the data set as the trainer has prepared it, which may have dropped rows, at the rows that the trainer's
    own loader will hand out in this process, and at what makes up an optimizer step.

    Args:
        trainer: The `DPOTrainer`, ready to train.
        path: The folder of the export.

    Raises:
        SaerlError: `order_not_kept`, naming what is wrong; `not_an_export`, `export_changed`, `other_trainer`.
    """
    folder = Path(path)
    record = _checked(folder)
    order = _read_order(folder)["prompt_id"].to_list()
    problem = _wrong_rows(trainer.train_dataset, order) or _wrong_steps(trainer, record.batch_size, len(order))
    if problem:
        remedy = "Give DPOTrainer the data set and all settings of saerl_assets.trainers.trl_dpo.load as they are."
        raise SaerlError("order_not_kept", problem, where=str(folder), remedy=remedy)


def _wrong_rows(dataset: Any, order: list[str]) -> str:  # noqa: ANN401 - any data set
    """How the rows differ from the order, in words; empty where they do not."""
    if "prompt_id" not in (getattr(dataset, "column_names", None) or ()) or not hasattr(dataset, "__len__"):
        return "The data set is streamed or has no column prompt_id, so it cannot be compared."
    found = dataset.select_columns("prompt_id").with_format("arrow")[:]["prompt_id"].to_pylist()
    if found == order:
        return ""
    row = next((at for at, (one, other) in enumerate(zip(found, order, strict=False)) if one != other), None)
    which = f"; row {row} is {found[row]} and should be {order[row]}" if row is not None else ""
    return f"The trainer has {len(found)} rows and the export {len(order)}{which}. Does max_length drop long prompts?"


def _wrong_steps(trainer: Any, batch_size: int, n_rows: int) -> str:  # noqa: ANN401 - a DPOTrainer
    """How the optimizer steps differ from the batches, in words; empty where they do not."""
    args = trainer.args
    at_once, n_processes = args.per_device_train_batch_size, args.world_size
    if at_once * n_processes * args.gradient_accumulation_steps != batch_size:
        parts = f"{at_once} pairs on each of {n_processes} devices, {args.gradient_accumulation_steps} times"
        return f"An optimizer step takes {parts}, which is not a batch of {batch_size}."
    if args.max_steps > n_rows // batch_size or (args.max_steps <= 0 and args.num_train_epochs > 1):
        return "The training goes through the order more than once; all epochs are in it already."
    if not args.dataloader_in_order and args.dataloader_num_workers:
        return "dataloader_in_order=False lets batches overtake one another."
    found = trainer.get_train_dataloader().batch_sampler
    numbers = range(args.process_index, n_rows // at_once, n_processes)
    for taken, number in itertools.zip_longest(found, numbers):
        if number is None or taken != list(range(number * at_once, (number + 1) * at_once)):
            due = "nothing" if number is None else f"{at_once} rows from {number * at_once} on"
            return f"The trainer's loader hands out rows {taken} where {due} should come: train_sampling_strategy?"
    return ""


def _checked(folder: Path) -> ExportRecord:
    from saerl_assets.trainers.export import check_export

    record = check_export(folder)
    if record.trainer != FORMAT.name:
        remedy = "Export again with: saerl export KEY --to trl_dpo."
        raise SaerlError("other_trainer", f"This export is for {record.trainer}.", where=str(folder), remedy=remedy)
    return record


def dpo_settings(batch_size: int, *, n_processes: int = 1, per_device_batch_size: int = 1) -> dict[str, Any]:
    """Arguments of `DPOConfig` under which one optimizer step is one batch of the manifest.

    A step takes `per_device_train_batch_size * n_processes * gradient_accumulation_steps` pairs, which must be
    `batch_size`.

    Args:
        batch_size: Prompts of a batch, each with one pair.
        n_processes: Processes that train together.
        per_device_batch_size: Pairs that a device takes at once.

    Raises:
        SaerlError: `batch_not_divisible` if the processes cannot share a batch evenly.
    """
    at_once = n_processes * per_device_batch_size
    if batch_size % at_once:
        raise SaerlError(
            "batch_not_divisible",
            f"{n_processes} processes cannot share a batch of {batch_size} prompts: it does not divide into {at_once} "
            "at once.",
            where="batches.batch_size",
            remedy=f"Use another number of processes or of pairs per device, whose product divides {batch_size}, or "
            "another batch size.",
        )
    return {
        "train_sampling_strategy": "sequential",
        "num_train_epochs": 1,
        "per_device_train_batch_size": per_device_batch_size,
        "gradient_accumulation_steps": batch_size // at_once,
        "max_length": None,
        "remove_unused_columns": False,
    }


def _chat_of(row: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    return {
        name: [{"role": role, "content": row[name].strip()}]
        for name, role in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant"))
    }


def _write(request: ExportRequest, folder: Path) -> None:
    """Everything is text if all of it was; else all are chat messages: a column has one type."""
    import pyarrow as pa

    rows = _with_pairs(request)
    is_chat = bool(rows["is_chat"].any() or rows["pair_is_chat"].any())
    said = message_list() if is_chat else pa.string()
    answers = [("prompt", said), ("chosen", said), ("rejected", said)]
    schema = pa.schema([*answers, ("pair", pa.int64()), *place_fields()])
    rows = rows.with_columns(
        prompt=_said("messages", is_chat=is_chat),
        chosen=_said("chosen", is_chat=is_chat),
        rejected=_said("rejected", is_chat=is_chat),
    )
    write_parquet(rows, schema, folder / DATA_FILE)
    settings = json.dumps(dpo_settings(request.batch_size), indent=2)
    (folder / SETTINGS_FILE).write_text(settings + "\n", encoding="utf-8")
    readme = _README.format(
        key=request.key,
        arm=request.arm,
        manifest_id=request.manifest_id,
        size=request.batch_size,
        kind="chat messages" if is_chat else "text",
        advice=_CHAT_ADVICE if is_chat else _TEXT_ADVICE,
    )
    (folder / README_FILE).write_text(readme, encoding="utf-8")


def _with_pairs(request: ExportRequest) -> pl.DataFrame:
    """The request's rows with one pair each."""
    pairs = pl.DataFrame(schema=PAIRS_SCHEMA) if request.pairs is None else request.pairs
    rows = pairs_of_slots(request.rows, pairs)
    missing = rows.filter(pl.col("chosen").is_null())["prompt_id"].unique(maintain_order=True)
    if len(missing):
        which = f"the first of them is {missing[0]}" if len(missing) > 1 else f"it is {missing[0]}"
        remedy = (
            "Name the fields with the two answers in data.chosen and data.rejected of a new version, or take 'trl_dpo' "
            "out of exports.trainers."
            if pairs.is_empty()
            else "Materialise prompts and preference_pairs again; they are made in one pass."
        )
        raise SaerlError(
            "pair_missing",
            f"{len(missing):,} of {rows['prompt_id'].n_unique():,} prompts have no pair of a chosen and a rejected "
            f"answer, which DPO learns from; {which}.",
            where=request.key,
            remedy=remedy,
        )
    return rows


def _said(column: str, *, is_chat: bool) -> pl.Expr:
    """A column with a JSON list of messages as these, or as the text of the only one."""
    messages = pl.col(column).str.json_decode(pl.List(pl.Struct({"role": pl.String, "content": pl.String})))
    return messages if is_chat else messages.list.first().struct.field("content")


def _read_order(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / DATA_FILE, columns=["epoch", "step", "slot", "prompt_id"])


FORMAT = TrainerFormat(
    name="trl_dpo", data_file=DATA_FILE, settings_file=SETTINGS_FILE, write=_write, read_order=_read_order
)

_TEXT_ADVICE = """\
- This is text, so TRL uses no chat template: it joins `prompt` and `chosen` as they are, with nothing between them but
  the white space that an answer begins with. For a chat model take `load("...", as_chat=True)`."""

_CHAT_ADVICE = """\
- These are chat messages, so the policy's tokenizer needs a chat template; TRL applies it."""

_README = """\
# {key}, arm {arm}, for TRL's DPOTrainer

Manifest `{manifest_id}`.

Rows are in training order, one pair of answers each, {size} to a batch: row r belongs to batch r // {size}. Written for
TRL 1.16 with transformers 5.23.

```python
from trl import DPOConfig, DPOTrainer
from saerl_assets.trainers.trl_dpo import check_order, load

dataset, settings = load("this folder")
trainer = DPOTrainer(model="...", args=DPOConfig(output_dir="...", **settings), train_dataset=dataset)
check_order(trainer, "this folder")
trainer.train()
```

`load` checks that nothing here was changed, and gives the settings for your number of processes and of pairs per
device; `as_chat=True` makes chat messages of text. `check_order` compares what the trainer made of it with the order,
and says what is wrong. Without them, take
`load_dataset("parquet", data_files="train.parquet", split="train")` and the arguments in `dpo_config.json`.

`prompt`, `chosen` and `rejected` are {kind}. The other columns stay in `trainer.train_dataset` and reach the data
collator: `pair`, `prompt_id`, `epoch`, `step`, `slot`, `cluster_id`, `difficulty`, `topic`, `is_padding`, and `extra`,
the further fields of the source row as a JSON object.

Each place in the order is one prompt with one of its pairs. A prompt with n pairs gives pair e mod n in epoch e, in the
order of the source; so n planned epochs (`batches.epochs`) use all of them. The rest is in the table
`preference_pairs`.

## What keeps the order

- `train_sampling_strategy="sequential"`. The default is "random"; "group_by_length" and "batch_rebalance" change the
  order as well.
- One optimizer step has to be one batch:

      per_device_train_batch_size * processes * gradient_accumulation_steps == {size}

  `dpo_config.json` is for one process. With 4 processes divide `gradient_accumulation_steps` by 4; to give a device
  more at a time, multiply `per_device_train_batch_size` and divide `gradient_accumulation_steps`.
- `max_length=None`. With its default of 1,024 tokens, TRL silently drops every row whose prompt alone is as long, and
  every later row moves into another batch. To bound memory, leave long prompts out by `batches.max_prompt_tokens` of
  the spec, before batches are cut, and set `max_length` above the longest prompt in the policy's own tokens: then
  answers are cut, and no row is dropped.
- `num_train_epochs=1`. All planned epochs are in the file, one after the other; more would repeat the first order.
- `remove_unused_columns=False`, so that the columns above reach the data collator. It has no part in the order.

## Traps

{advice}
- Do not filter, concatenate or interleave the data set: every later row would move into another batch.
- `dataloader_in_order=False` with `dataloader_num_workers` lets batches overtake one another.
- `accelerator_config` with `split_batches=True` makes `per_device_train_batch_size` that of all processes together, and
  `auto_find_batch_size` halves it when memory runs out. Both change what one step takes.
- Rows that do not fill the last step make a short one. This file has whole batches only; what was left out is counted
  in `manifest.json`.
- Resume only with this very file, and without `ignore_data_skip`: TRL skips as many rows as were trained on, whatever
  they are.
- `precompute_ref_log_probs` keeps the order. `padding_free` does nothing in TRL 1.16 but warn.
- A streamed data set keeps its order, whatever `train_sampling_strategy` says, but TRL then asks for `max_steps`.
- `loss_type="aot"` and "aot_unpaired" sort within what a device takes at once, which is one pair here.
"""
