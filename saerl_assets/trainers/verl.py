"""verl: its data file, the overrides that keep the order, its traps.

Belongs here: what verl 0.8 and 0.9 read and do, as their source says (`verl/utils/dataset/rl_dataset.py`,
`verl/trainer/ppo/utils.py`, `verl/trainer/config/data/legacy_data.yaml`). Does not belong here: writing
folders (export).
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
    write_parquet,
)

if TYPE_CHECKING:
    from pathlib import Path

DATA_FILE = "train.parquet"
SETTINGS_FILE = "overrides.txt"
NO_TOPIC = "general"
"""`ability` of a prompt without a topic."""


def hydra_overrides(batch_size: int) -> list[str]:
    """Overrides under which one step is one batch of the manifest; verl 0.8 and 0.9 know all the keys."""
    return [
        "data.prompt_key=prompt",
        "data.reward_fn_key=data_source",
        "data.shuffle=False",
        f"data.train_batch_size={batch_size}",
        "data.train_max_samples=-1",
        "data.filter_overlong_prompts=False",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={batch_size}",
        "actor_rollout_ref.actor.shuffle=False",
        "trainer.total_epochs=1",
    ]


def _write(request: ExportRequest, folder: Path) -> None:
    import pyarrow as pa

    _check_answers(request)
    text, integer = pa.string(), pa.int64()
    schema = pa.schema(
        [
            ("data_source", text),
            ("prompt", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            (
                "extra_info",
                pa.struct(
                    [
                        ("index", integer),
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
                ),
            ),
        ]
    )
    info = ["prompt_id", "epoch", "step", "slot", "cluster_id", "difficulty", "topic", "is_padding", "extra"]
    rows = request.rows.with_row_index("index").select(
        data_source=pl.coalesce(_own_source(), pl.lit(request.key)),
        prompt=decode_messages(),
        ability=pl.col("topic").fill_null(NO_TOPIC),
        reward_model=pl.struct(style=pl.lit("rule"), ground_truth="answer"),
        extra_info=pl.struct("index", *info),
    )
    write_parquet(rows, schema, folder / DATA_FILE)
    overrides = "\n".join(hydra_overrides(request.batch_size))
    (folder / SETTINGS_FILE).write_text(overrides + "\n", encoding="utf-8")
    readme = _README.format(key=request.key, arm=request.arm, manifest_id=request.manifest_id, size=request.batch_size)
    (folder / README_FILE).write_text(readme, encoding="utf-8")


def _own_source() -> pl.Expr:
    """`data_source` as the source row had it, null where it had none or no text."""
    own = pl.col("extra").str.json_path_match("$.data_source")
    return pl.when(own != "").then(own)


def _check_answers(request: ExportRequest) -> None:
    """Refuses rows that a reward function, which compares with `ground_truth`, would fail on mid-training."""
    missing = request.rows.filter(pl.col("answer").is_null())["prompt_id"].unique(maintain_order=True)
    if len(missing):
        others = f" and {len(missing) - 1} others have" if len(missing) > 1 else " has"
        raise SaerlError(
            "answer_missing",
            f"Prompt {missing[0]}{others} no answer, which verl needs as reward_model.ground_truth.",
            where=request.key,
            remedy="Name the field with the answer in data.answer, or take 'verl' out of exports.trainers.",
        )


def _read_order(folder: Path) -> pl.DataFrame:
    info = pl.read_parquet(folder / DATA_FILE, columns=["extra_info"])["extra_info"].struct.unnest()
    return info.select("epoch", "step", "slot", "prompt_id")


FORMAT = TrainerFormat(
    name="verl", data_file=DATA_FILE, settings_file=SETTINGS_FILE, write=_write, read_order=_read_order
)

_README = """\
# {key}, arm {arm}, for verl

Manifest `{manifest_id}`.

Rows are in training order, {size} prompts to a batch: row r, which is also `extra_info.index`, belongs to
batch r // {size}. Written for verl 0.8 and 0.9, for GRPO as well as PPO (`algorithm.adv_estimator=gae`).

```bash
EXPORT=path/to/this/folder
python -m verl.trainer.main_ppo \\
  $(cat $EXPORT/overrides.txt) \\
  data.train_files=$EXPORT/train.parquet \\
  data.val_files=... actor_rollout_ref.model.path=... algorithm.adv_estimator=grpo
```

`extra_info` reaches the reward function: `prompt_id`, `epoch`, `step`, `slot`, `cluster_id`, `difficulty`,
`topic`, `is_padding`, and `extra`, the further fields of the source row as a JSON object. `data_source` is
the source row's own field of that name, else `{key}`; verl chooses the reward function by it, so give your
own with `reward.custom_reward_function.path` if verl does not know it.

## What keeps the order

- `data.shuffle=False`. The default is True. Row order is the only interface.
- `data.train_batch_size={size}` and `actor_rollout_ref.actor.ppo_mini_batch_size={size}`: one batch, one
  optimizer step. Both count prompts, whatever `rollout.n` is. A smaller mini-batch makes several steps of one
  batch.
- `data.train_max_samples=-1` takes all rows.
- `data.filter_overlong_prompts=False`: verl would drop rows after batches were cut, and every later row would
  move into another batch. Use `batches.max_prompt_tokens` of the spec, and set `data.max_prompt_length` high
  enough; verl cuts a longer prompt from the left with no more than a line in the log.
- `trainer.total_epochs=1`. All planned epochs are in the file, one after the other; more would repeat the
  order.

## Traps

- Use the synchronous trainer (`trainer.v1.trainer_mode=sync`, the default of 0.9). The asynchronous ones hand
  out single prompts and train on what is finished first.
- Keep `algorithm.filter_groups.enable=False` (the default) and `data.gen_batch_size` unset: dynamic sampling
  replaces prompts.
- The loader drops a last batch that is not full. This file has whole batches only; what was left out is
  counted in `manifest.json`.
- `data.dataloader_num_workers` does not matter: rows come back in order.
- `uid` is random. Join logs on `extra_info.index` or `extra_info.prompt_id`.
- `trainer.balance_batch` moves rows between devices within a batch, which does no harm.
- Give one file. With several, or with another order of them, rows are at other places.
- Resume only with this very file: verl continues at a row number, whatever is there.
"""
