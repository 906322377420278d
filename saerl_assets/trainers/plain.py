"""Plain JSONL and Parquet: the order for a trainer of your own, or one that is not known here.

Belongs here: the columns and the three settings that any loader needs. Does not belong here: a trainer's own schema.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import polars as pl

from saerl_assets.trainers.formats import (
    PLACE_COLUMNS,
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

SETTINGS_FILE = "loader.json"
_ORDER_COLUMNS = {"epoch": pl.Int64, "step": pl.Int64, "slot": pl.Int64, "prompt_id": pl.String}


def loader_settings(batch_size: int) -> dict[str, int | bool]:
    """What a loader has to do, whatever it is called there."""
    return {"shuffle": False, "batch_size": batch_size, "drop_last": True, "epochs": 1}


def _write(request: ExportRequest, folder: Path, *, data_file: str) -> None:
    import pyarrow as pa

    schema = pa.schema([("messages", message_list()), ("answer", pa.string()), *place_fields()])
    rows = request.rows.with_columns(messages=decode_messages())
    if data_file.endswith(".parquet"):
        write_parquet(rows, schema, folder / data_file)
    else:
        rows.select("messages", "answer", *PLACE_COLUMNS).write_ndjson(folder / data_file)
    settings = json.dumps(loader_settings(request.batch_size), indent=2)
    (folder / SETTINGS_FILE).write_text(settings + "\n", encoding="utf-8")
    kind, read = _READERS[data_file]
    readme = _README.format(
        key=request.key,
        arm=request.arm,
        manifest_id=request.manifest_id,
        size=request.batch_size,
        file=data_file,
        kind=kind,
        read=read,
    )
    (folder / README_FILE).write_text(readme, encoding="utf-8")


def _read_jsonl(folder: Path) -> pl.DataFrame:
    return pl.read_ndjson(folder / "train.jsonl", schema=_ORDER_COLUMNS)


def _read_parquet(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "train.parquet", columns=list(_ORDER_COLUMNS))


JSONL = TrainerFormat(
    name="jsonl",
    data_file="train.jsonl",
    settings_file=SETTINGS_FILE,
    write=partial(_write, data_file="train.jsonl"),
    read_order=_read_jsonl,
)
PARQUET = TrainerFormat(
    name="parquet",
    data_file="train.parquet",
    settings_file=SETTINGS_FILE,
    write=partial(_write, data_file="train.parquet"),
    read_order=_read_parquet,
)

_READERS = {
    "train.jsonl": ("JSONL", 'rows = [json.loads(line) for line in open("train.jsonl", encoding="utf-8")]'),
    "train.parquet": ("Parquet", 'rows = pyarrow.parquet.read_table("train.parquet").to_pylist()'),
}
_README = """\
# {key}, arm {arm}, as {kind}

Manifest `{manifest_id}`.

One row per prompt in `{file}`, in training order, {size} prompts to a batch: row r belongs to batch r //
{size}.

```python
{read}
batches = [rows[start : start + {size}] for start in range(0, len(rows), {size})]
```

`messages` are chat messages with `role` and `content`; a prompt that was a string is one message of the user.
`answer` is the reference answer or null. `prompt_id`, `epoch`, `step`, `slot`, `cluster_id`, `difficulty`,
`topic` and `is_padding` say where the row stands and why; `extra` has the further fields of the source row as
a JSON object, in a string.

## What keeps the order

- No `shuffle`, in the data set, the loader or the sampler.
- `batch_size` {size} prompts to one optimizer step, `drop_last` or not: this file has whole batches only;
  what was left out is counted in `manifest.json`.
- `epochs` 1. All planned epochs are in the file, one after the other; more would repeat the first order.

## Traps

- A trainer that counts responses needs {size} times the responses to a prompt.
- Do not filter, concatenate or interleave the rows after this: every later row would move into another batch.
- Several processes: one batch is shared among them, each takes its part of the same {size} rows.
- JSONL has no types. A reader that guesses them from the first rows fails on a column that is null in all of
  these and has text later; the Parquet export (`saerl export KEY --to parquet`) has the types in it.
- Resume only with this very file.
- Write a line per prompt with `manifest_id`, `step`, `prompt_id`, `reward` and `epoch` into a log to have it
  held against the manifest afterwards (`saerl verify`).
"""
