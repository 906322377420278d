"""verl: its data file, the overrides that keep the order, its traps.

Belongs here: what verl 0.8 and 0.9 read and do. `make conformance` runs 0.9 itself; what is said of it is in its
`utils/dataset/rl_dataset.py` (rows), `trainer/ppo/utils.py` (`create_rl_sampler`, which knows no curriculum),
`trainer/ppo/v1/trainer_base.py` and `replay_buffer.py` (steps, checkpoints, what asynchronous trainers take) and
`experimental/agent_loop/agent_loop.py` (prompts that are too long). Does not belong here: writing folders (export).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

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
SETTINGS_FILE = "overrides.txt"
NO_TOPIC = "general"
"""`ability` of a prompt without a topic."""


def hydra_overrides(batch_size: int, *, experiment: str) -> list[str]:
    """Overrides under which one step is one batch of the manifest; verl 0.8 and 0.9 know all the keys.

    The critic of PPO takes its mini-batches from the actor's by default; here they are said, so that nothing else in a
    configuration parts them. Other estimators have no critic and ignore them.

    Args:
        batch_size: Prompts in a batch.
        experiment: Name of the experiment, below which verl keeps the checkpoints that it resumes from.
    """
    return [
        "data.prompt_key=prompt",
        "data.reward_fn_key=data_source",
        "data.shuffle=False",
        f"data.train_batch_size={batch_size}",
        "data.train_max_samples=-1",
        "data.filter_overlong_prompts=False",
        f"actor_rollout_ref.actor.ppo_mini_batch_size={batch_size}",
        "actor_rollout_ref.actor.shuffle=False",
        f"critic.ppo_mini_batch_size={batch_size}",
        "critic.shuffle=False",
        "trainer.total_epochs=1",
        f"trainer.experiment_name={experiment}",
    ]


def _write(request: ExportRequest, folder: Path) -> None:
    import pyarrow as pa

    require_answers(request, "verl", "reward_model.ground_truth")
    text, place = pa.string(), place_fields()
    schema = pa.schema(
        [
            ("data_source", text),
            ("prompt", message_list()),
            ("ability", text),
            ("reward_model", pa.struct([("style", text), ("ground_truth", text)])),
            ("extra_info", pa.struct([("index", pa.int64()), *place])),
        ]
    )
    rows = request.rows.with_row_index("index").select(
        data_source=pl.coalesce(_own_source(), pl.lit(request.key)),
        prompt=decode_messages(),
        ability=pl.col("topic").fill_null(NO_TOPIC),
        reward_model=pl.struct(style=pl.lit("rule"), ground_truth="answer"),
        extra_info=pl.struct("index", *(name for name, _ in place)),
    )
    write_parquet(rows, schema, folder / DATA_FILE)
    experiment = f"{request.key}-{request.arm}-{request.manifest_id[:12]}"
    overrides = "\n".join(hydra_overrides(request.batch_size, experiment=experiment))
    (folder / SETTINGS_FILE).write_text(overrides + "\n", encoding="utf-8")
    readme = _README.format(
        key=request.key,
        arm=request.arm,
        manifest_id=request.manifest_id,
        size=request.batch_size,
        experiment=experiment,
    )
    (folder / README_FILE).write_text(readme, encoding="utf-8")


def _own_source() -> pl.Expr:
    """`data_source` as the source row had it, null where it had none or no text."""
    own = pl.col("extra").str.json_path_match("$.data_source")
    return pl.when(own != "").then(own)


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
batch r // {size}. Written for verl 0.8 and 0.9.

```bash
EXPORT=path/to/this/folder
python -m verl.trainer.main_ppo \\
  $(cat $EXPORT/overrides.txt) \\
  data.train_files=$EXPORT/train.parquet \\
  data.val_files=... actor_rollout_ref.model.path=... algorithm.adv_estimator=grpo
```

PPO is the same with `algorithm.adv_estimator=gae`, which is verl's default, and `critic.model.path=...`. The
overrides hold its critic to whole batches too: `critic.ppo_mini_batch_size={size}` and `critic.shuffle=False`.

`extra_info` reaches the reward function: `prompt_id`, `epoch`, `step`, `slot`, `cluster_id`, `difficulty`,
`topic`, `is_padding`, and `extra`, the further fields of the source row as a JSON object. `data_source` is
the source row's own field of that name, else `{key}`; verl chooses the reward function by it, so give your
own with `reward.custom_reward_function.path` (0.9) if verl does not know it.

## What keeps the order

- `data.shuffle=False`. The default is True. Row order is the only interface: verl takes no sampler of yours.
- `data.train_batch_size={size}` and `actor_rollout_ref.actor.ppo_mini_batch_size={size}`: one batch, one
  optimizer step. Both count prompts, whatever `rollout.n` is. A smaller mini-batch makes several steps of one
  batch, and not of its rows in turn: verl first spreads the batch over the devices by length (in 0.9 whatever
  `trainer.balance_batch` says). Within one mini-batch that does no harm. `ppo_epochs` above 1 repeats the step.
- `data.train_max_samples=-1` takes all rows.
- `data.filter_overlong_prompts=False`: verl would drop rows before it cuts batches, and every later row would
  move into another batch. Use `batches.max_prompt_tokens` of the spec, and set `data.max_prompt_length` high
  enough; verl cuts a longer prompt from the left with no more than a line in the log, whatever
  `data.truncation` says.
- `trainer.total_epochs=1`. All planned epochs are in the file, one after the other; more would repeat the
  order.
- `trainer.experiment_name={experiment}`. verl resumes by itself (`trainer.resume_mode=auto`) from a checkpoint
  of that name, at its row number, whatever file it is given. Under this name it finds those of this manifest
  only. If you choose another name or `trainer.default_local_dir`, choose a new one for every manifest.

## Traps

- Use the synchronous trainer (`trainer.v1.trainer_mode=sync`, the default of 0.9). The asynchronous ones
  (`colocate_async`, `separate_async`, verl.experimental) hand out prompts ahead and train on what is finished
  first.
- Keep `algorithm.filter_groups.enable=False` and `trainer.v1.sampler.sync_refill_failed_groups=False` (the
  defaults) and `data.gen_batch_size` unset: dynamic sampling puts later prompts in the place of others.
- Give one file. Several are read one after the other, and batches may hold rows of two.
- The loader drops a last batch that is not full. This file has whole batches only; what was left out is
  counted in `manifest.json`.
- `data.dataloader_num_workers` does not matter: rows come back in order.
- `uid` is random, and the rollouts that 0.9 writes to `trainer.rollout_data_dir` have nothing but it and the
  texts. For logs by prompt, write `extra_info["prompt_id"]` in your reward function.
"""
