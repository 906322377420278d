"""A real `GRPOTrainer` on a tiny random policy, and what entered each of its optimizer steps.

Belongs here: making an export and training on it. Does not belong here: tests.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import polars as pl

from saerl_assets.trainers.export import ExportRequest, write_export
from saerl_assets.trainers.training_log import LOG_FILE
from saerl_assets.trainers.trl import OrderCallback, load
from saerl_assets_tests.tiny import write_model

if TYPE_CHECKING:
    from pathlib import Path
N_PROMPTS, SIZE = 8, 4
N_STEPS = 4
"""Of two epochs."""


def write_policy(folder: Path) -> Path:
    """A causal language model of one block whose tokenizer has an end of text."""
    from transformers import AutoTokenizer

    write_model(folder, has_head=True, n_blocks=1)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(0)
    tokenizer.save_pretrained(folder)
    return folder


def prompt_of(prompt_id: str) -> str:
    return f"What is {prompt_id}?"


def orders(shift: int = 0) -> list[list[str]]:
    """The ids of each epoch; the second has another order than the first."""
    ids = [f"p{(at + shift) % N_PROMPTS}" for at in range(N_PROMPTS)]
    return [ids, [ids[at * 3 % N_PROMPTS] for at in range(N_PROMPTS)]]


def write_order(folder: Path, *, shift: int = 0, manifest: str = "m", trainer: str = "trl") -> Path:
    """An export of two epochs with two batches each."""
    rows = pl.DataFrame(
        [
            {
                "epoch": epoch,
                "step": at // SIZE,
                "slot": at % SIZE,
                "prompt_id": prompt_id,
                "messages": json.dumps([{"role": "user", "content": prompt_of(prompt_id)}]),
                "is_chat": False,
                "answer": prompt_id[1:],
                "topic": None,
                "cluster_id": 0,
                "difficulty": at / 8,
                "extra": "{}",
                "is_padding": False,
            }
            for epoch, ids in enumerate(orders(shift))
            for at, prompt_id in enumerate(ids)
        ],
        schema_overrides={"topic": pl.String},
    )
    write_export(trainer, ExportRequest(rows, manifest * 64, "some-v1", "clustered", SIZE, "s" * 64, {}), folder)
    return folder


def batches(shift: int = 0) -> list[list[str]]:
    """The batches that `write_order` plans, in order."""
    flat = [prompt_id for ids in orders(shift) for prompt_id in ids]
    return [flat[at : at + SIZE] for at in range(0, len(flat), SIZE)]


def reward_of_length(completions: list[Any], **_: object) -> list[float]:
    return [float(len(str(completion))) for completion in completions]


def make_trainer(
    policy: Path,
    out: Path,
    dataset: Any,  # noqa: ANN401 - any data set
    settings: dict[str, Any],
    *,
    callback: Any = None,  # noqa: ANN401 - OrderCallback or none
    reward: Any = reward_of_length,  # noqa: ANN401 - one or several
    evaluation: Any = None,  # noqa: ANN401 - any data set
) -> Any:  # noqa: ANN401 - GRPOTrainer
    """A trainer that notes in `steps` the prompts whose loss entered each optimizer step."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    steps: list[list[str]] = []
    taken: list[str] = []

    class Noting(GRPOTrainer):  # type: ignore[misc]
        def compute_loss(self, model: object, inputs: dict[str, Any], *args: object, **more: object) -> object:
            for ids, mask in zip(inputs["prompt_ids"], inputs["prompt_mask"], strict=True):
                text = self.processing_class.decode(ids[mask.bool()])
                taken.append(text.removeprefix("What is ").removesuffix("?"))
            return super().compute_loss(model, inputs, *args, **more)

    class AtOptimizerStep(TrainerCallback):
        def on_optimizer_step(self, *_: object, **__: object) -> None:
            steps.append(list(taken))
            taken.clear()

    tokenizer: Any = AutoTokenizer.from_pretrained(policy)
    arguments = {
        "max_completion_length": 4,
        "learning_rate": 1e-3,
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "report_to": "none",
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
        "dataloader_pin_memory": False,
    }
    trainer = Noting(
        model=AutoModelForCausalLM.from_pretrained(policy),
        reward_funcs=callback.watch(reward) if callback else reward,
        args=GRPOConfig(output_dir=str(out), **arguments | settings),
        train_dataset=dataset,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        callbacks=[AtOptimizerStep(), *([callback] if callback else [])],
    )
    trainer.steps = steps
    return trainer


def follow(
    policy: Path,
    export: Path,
    out: Path,
    *,
    resume: str | None = None,
    num_generations: int = 2,
    per_device: int | None = None,
    reward: Any = reward_of_length,  # noqa: ANN401 - one or several
    **settings: Any,  # noqa: ANN401 - of GRPOConfig
) -> list[list[str]]:
    """Trains on an export with `load` and `OrderCallback`; returns what entered each optimizer step."""
    dataset, order = load(export, num_generations=num_generations, per_device_batch_size=per_device)
    trainer = make_trainer(policy, out, dataset, order | settings, callback=OrderCallback(export), reward=reward)
    trainer.train(resume_from_checkpoint=str(out / resume) if resume else None)
    return list(trainer.steps)


def lines_of(out: Path) -> list[dict[str, Any]]:
    """The log of a training."""
    return [json.loads(line) for line in (out / LOG_FILE).read_text().splitlines()]


def sorted_steps(steps: list[list[str]]) -> list[list[str]]:
    """Steps without the order inside each, which means nothing for the sum of their gradients."""
    return [sorted(step) for step in steps]


def planned(n_generations: int = 2, shift: int = 0) -> list[list[str]]:
    """What should enter each optimizer step."""
    return sorted_steps([batch * n_generations for batch in batches(shift)])


if __name__ == "__main__":  # one of two processes that train together
    import sys
    from pathlib import Path

    import torch

    torch.set_num_threads(1)
    model, order, out = (Path(argument) for argument in sys.argv[1:])
    dataset, settings = load(order, num_generations=2, n_processes=2)
    trainer = make_trainer(model, out, dataset, settings, callback=OrderCallback(order), reward=reward_of_length)
    trainer.train()
    rank = trainer.args.process_index
    (out / f"steps-{rank}.json").write_text(json.dumps(trainer.steps))
    torch.distributed.destroy_process_group()
