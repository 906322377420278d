"""OpenRLHF: its data file, the arguments that keep the order, its traps.

Belongs here: what OpenRLHF 0.11 reads and does, as its source says (`prepare_datasets` in
`openrlhf/trainer/ppo_trainer.py`, `openrlhf/datasets/prompts_dataset.py`, `SamplesGenerator` in
`openrlhf/trainer/ppo_utils/samples_generator.py`, the arguments of `openrlhf/cli/train_ppo_ray.py`). Does not belong
here: making it keep the order, which it does not by itself (openrlhf_launcher), writing folders (export).
"""

from __future__ import annotations

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

DATA_FILE = "train.parquet"
SETTINGS_FILE = "args.txt"


def ppo_arguments(batch_size: int, n_rows: int, *, n_samples_per_prompt: int = 8) -> list[str]:
    """Arguments of `openrlhf.cli.train_ppo_ray` under which one optimizer step is one batch of the manifest.

    `rollout.*` counts prompts, `train.batch_size` counts responses: their quotient has to be the number of responses
    to a prompt, else a batch makes several steps or none.
    """
    return [
        "--data.input_key prompt",
        "--data.label_key label",
        "--data.apply_chat_template",
        "--data.prompt_split train",
        f"--data.max_samples {n_rows}",
        f"--rollout.batch_size {batch_size}",
        f"--rollout.vllm_generate_batch_size {batch_size}",
        f"--rollout.n_samples_per_prompt {n_samples_per_prompt}",
        f"--train.batch_size {batch_size * n_samples_per_prompt}",
        "--train.num_episodes 1",
        "--train.max_epochs 1",
    ]


def _write(request: ExportRequest, folder: Path) -> None:
    """Prompts are strings if all of them were, else all are chats. What a row says about itself is in its label."""
    import pyarrow as pa

    is_chat = bool(request.rows["is_chat"].any())
    schema = pa.schema(
        [
            ("prompt", message_list() if is_chat else pa.string()),
            ("label", pa.struct([("answer", pa.string()), *place_fields()])),
            ("answer", pa.string()),
        ]
    )
    prompt = decode_messages()
    if not is_chat:
        prompt = prompt.list.first().struct.field("content")
    rows = request.rows.with_columns(prompt=prompt, label=pl.struct("answer", *PLACE_COLUMNS))
    write_parquet(rows, schema, folder / DATA_FILE)
    arguments = "\n".join(ppo_arguments(request.batch_size, request.rows.height))
    (folder / SETTINGS_FILE).write_text(arguments + "\n", encoding="utf-8")
    readme = _README.format(
        key=request.key,
        arm=request.arm,
        manifest_id=request.manifest_id,
        size=request.batch_size,
        responses=request.batch_size * 8,
        kind="chat messages" if is_chat else "a string",
    )
    (folder / README_FILE).write_text(readme, encoding="utf-8")


def _read_order(folder: Path) -> pl.DataFrame:
    label = pl.read_parquet(folder / DATA_FILE, columns=["label"])["label"].struct.unnest()
    return label.select("epoch", "step", "slot", "prompt_id")


FORMAT = TrainerFormat(
    name="openrlhf", data_file=DATA_FILE, settings_file=SETTINGS_FILE, write=_write, read_order=_read_order
)

_README = """\
# {key}, arm {arm}, for OpenRLHF

Manifest `{manifest_id}`.

Rows are in training order, {size} prompts to a batch: row r belongs to batch r // {size}. Written for
OpenRLHF 0.11, for GRPO as well as PPO.

**OpenRLHF shuffles always.** `prepare_datasets` in `openrlhf/trainer/ppo_trainer.py` passes `shuffle=True` by
position to `strategy.setup_dataloader`; there is no argument against it. So start it through the launcher
that comes with this package, which is `openrlhf.cli.train_ppo_ray` with that one loader in order:

```bash
EXPORT=path/to/this/folder
python -m saerl_assets.trainers.openrlhf_launcher --export $EXPORT \\
  --algo.advantage.estimator group_norm \\
  --reward.remote_url reward.py \\
  --actor.model_name_or_path ...
```

It adds `--data.prompt_dataset $EXPORT/train.parquet` and the arguments of `args.txt`; whatever you give comes
after them and wins. `--algo.advantage.estimator group_norm` is GRPO, `gae` (OpenRLHF's default) is PPO with a
critic; the others work as well. Before anything is loaded it proves that this folder is as it was written,
that the installed OpenRLHF still looks as expected, and that no argument breaks the order. The actor that
builds the loader holds it row by row against this folder and refuses to train on anything else.
`saerl_assets` has to be installed wherever Ray may start that actor: `pip install --no-deps saerl-assets &&
pip install polars pydantic` beside OpenRLHF.

`prompt` is {kind}. OpenRLHF hands a reward function nothing but texts and labels, so `label` is an object
with all that the row says about itself: `answer`, `prompt_id`, `epoch`, `step`, `slot`, `cluster_id`,
`difficulty`, `topic`, `is_padding`, and `extra`, the further fields of the source row as a JSON object. A
reward function that was written for plain answers takes `--data.label_key answer` instead.

## What keeps the order

- The launcher. `args.txt` alone does not.
- `--rollout.batch_size {size}` and `--rollout.vllm_generate_batch_size {size}` are prompts,
  `--train.batch_size {responses}` is responses, so it has to be {size} times `--rollout.n_samples_per_prompt`
  (8 here). A smaller one makes several optimizer steps of one batch.
- `--train.max_epochs 1` is one pass over the responses of a batch. More are further optimizer steps of the
  same batch.
- `--train.num_episodes 1`. All planned epochs are in the file, one after the other; more would repeat the
  first order.
- `--data.max_samples` takes all rows.
- No `--algo.dynamic_filtering_enable`: it replaces prompts of a batch by later ones, and every later batch
  moves.
- No second data set in `--data.prompt_dataset` and no `--data.prompt_probs`.

## Traps

- Within a batch the responses come back in the order in which they are finished, and the actor shuffles them
  between its micro-batches. That is one optimizer step, so nothing is lost by it.
- `--train.async_enable` draws the same batches, one or more steps ahead of the policy.
  `--rollout.vllm_generate_batch_size` above the batch size, which it permits, mixes batches; the launcher
  refuses it.
- `--critic.freezing_steps N` with PPO takes the first N batches without training the policy on them: the
  easiest ones of a curriculum.
- A prompt longer than `--data.max_len` less `--rollout.max_new_tokens` is cut from the left with no more than
  a line in the log. Use `batches.max_prompt_tokens` of the spec.
- `--data.apply_chat_template` makes a chat of a string. For a base model whose prompts are strings give the
  launcher `--no-chat-template`.
- A reward function that raises gives no reward: OpenRLHF logs the error and goes on.
- A missing answer is null in the label. Only what you reward by needs it; PPO with
  `--reward.model_name_or_path` does not.
- Resume (`--ckpt.load_enable`) only with this very file: OpenRLHF continues at a row number, whatever is
  there. The launcher notes the manifest in `--ckpt.path` and refuses another one.
- OpenRLHF trains on a last batch that is not full. This file has whole batches only; what was left out is
  counted in `manifest.json`.
"""
