"""The real `DPOTrainer` on a tiny model of random weights: which pairs reach which optimizer step.

What is compared is decoded from the token ids that the model was trained on, not from what a loader promised.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from transformers import AutoTokenizer, TrainerCallback, TrainerControl, TrainerState

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.export import write_export
from saerl_assets.trainers.formats import ExportRequest
from saerl_assets.trainers.trl_dpo import check_order, load
from saerl_assets_tests.tiny import write_model
from saerl_assets_tests.trainers.test_trl_dpo import request_of

N_EPOCHS, N_PROMPTS, SIZE = 2, 12, 4
N_STEPS = N_EPOCHS * N_PROMPTS // SIZE
LONG = "x" * 60
"""What makes one prompt longer than the others, in tokens, which are bytes."""

SPECIAL = {"eos_token": "\u0100", "pad_token": "\u0100"}
"""The tiny tokenizer has no token but single bytes; this is the one that stands for byte 0."""

Steps = list[list[tuple[str, str]]]
"""Of each optimizer step the pairs of prompt id and chosen answer that it was made from."""

pytestmark = [
    pytest.mark.slow,
    # What trl 1.16 warns of itself, of models that are tiny, and of a machine without a GPU.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    write_model(folder, n_blocks=1, has_head=True)
    return folder


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def request() -> ExportRequest:
    made = request_of(N_EPOCHS, N_PROMPTS, SIZE)
    longer = made.rows["messages"].str.replace("Question 5", f"Question 5{LONG}", literal=True)
    return ExportRequest(**{**vars(made), "rows": made.rows.with_columns(messages=longer)})


def planned(asked: ExportRequest) -> Steps:
    """What the manifest says: its batches, with the pair that each epoch takes."""
    rows = asked.rows.sort("epoch", "step", "slot")
    pairs = [
        (row["prompt_id"], f" good {row['prompt_id'][1:]}.{row['epoch'] % (int(row['prompt_id'][1:]) + 1)}")
        for row in rows.iter_rows(named=True)
    ]
    return [pairs[at : at + SIZE] for at in range(0, len(pairs), SIZE)]


class Watch(TrainerCallback):
    """Parts what a model learns from into optimizer steps, and ends a training that is to be cut short."""

    def __init__(self, n_steps: int) -> None:
        self.n_steps = n_steps
        self.steps: Steps = [[]]

    def on_step_end(self, args: object, state: TrainerState, control: TrainerControl, **_: object) -> None:  # noqa: ARG002
        self.steps.append([])
        control.should_training_stop = state.global_step == self.n_steps


def train(
    policy: Path,
    export: Path,
    output: Path,
    *,
    as_chat: bool = False,
    n_steps: int = 0,
    **changes: Any,  # noqa: ANN401
) -> Steps:
    """Trains in an order, as a user would, and returns what each optimizer step was made from.

    Args:
        policy: The model's folder.
        export: The export's folder.
        output: Where checkpoints go.
        as_chat: Trains on chat messages.
        n_steps: Stops after so many steps; 0 goes on to the end.
        changes: Arguments of `DPOConfig`; None leaves one out. `resume` is the checkpoint to go on
            from; `is_checked` looks at the trainer first.
    """
    watch = Watch(n_steps)
    resume, is_checked = changes.pop("resume", None), changes.pop("is_checked", False)
    trainer = make_trainer(policy, export, output, as_chat=as_chat, **changes)
    if is_checked:
        check_order(trainer, export)
    learn = trainer.training_step

    def watched(model: object, inputs: dict[str, Any], *args: object) -> Any:  # noqa: ANN401
        watch.steps[-1] += decoded(trainer.processing_class, inputs)
        return learn(model, inputs, *args)

    trainer.training_step = watched
    trainer.add_callback(watch)
    trainer.train(resume_from_checkpoint=resume)
    assert watch.steps.pop() == []
    return watch.steps


def make_trainer(policy: Path, export: Path, output: Path, *, as_chat: bool = False, **changes: Any) -> Any:  # noqa: ANN401
    """A trainer as the README of the export makes it; see `train`."""
    from trl import DPOConfig, DPOTrainer

    per_device = changes.pop("per_device_batch_size", 2)
    dataset, settings = load(export, per_device_batch_size=per_device, as_chat=as_chat)
    kept = {name: value for name, value in settings.items() if name not in changes}
    trainer = DPOTrainer(
        model=str(policy),
        args=DPOConfig(
            output_dir=str(output),
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            disable_tqdm=True,
            logging_strategy="no",
            seed=1,
            **{"save_strategy": "no", **kept, **{name: value for name, value in changes.items() if value is not None}},
        ),
        train_dataset=dataset,
        processing_class=AutoTokenizer.from_pretrained(policy, **SPECIAL),
    )
    assert set(dataset.column_names) <= set(trainer.train_dataset.column_names)
    return trainer


def decoded(tokenizer: Any, inputs: dict[str, Any]) -> list[tuple[str, str]]:  # noqa: ANN401
    """Prompt id and chosen answer of each pair of a forward pass; the first half of its rows is the chosen ones."""
    n = len(inputs["input_ids"]) // 2
    found = []
    for ids, attention, answer in zip(
        inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"], strict=True
    ):
        prompt = tokenizer.decode(ids[(attention == 1) & (answer == 0)])
        said = tokenizer.decode(ids[(attention == 1) & (answer == 1)], skip_special_tokens=True)
        number = prompt.partition("Question ")[2].partition("?")[0].rstrip("x")
        found.append((f"p{number}", said))
    for (chosen_id, chosen), (rejected_id, rejected) in zip(found[:n], found[n:], strict=True):
        assert (chosen_id, chosen.replace("good", "bad")) == (rejected_id, rejected)
    return found[:n]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "a"
    write_export("trl_dpo", request(), folder)
    return folder


@pytest.mark.parametrize("per_device", [1, 2, 4])
def test_every_optimizer_step_is_the_manifests_batch(
    per_device: int, policy: Path, export: Path, tmp_path: Path
) -> None:
    steps = train(policy, export, tmp_path, per_device_batch_size=per_device, is_checked=True)
    assert steps == planned(request())
    assert len(steps) == N_STEPS


def test_chat_messages_and_reference_figures_computed_before_keep_the_order(
    policy: Path, export: Path, tmp_path: Path
) -> None:
    steps = train(policy, export, tmp_path, as_chat=True, precompute_ref_log_probs=True, dataloader_num_workers=2)
    found = [[(prompt_id, f" {said.strip()}") for prompt_id, said in step] for step in steps]
    assert found == planned(request())


@pytest.mark.parametrize("n_done", [2, 4])
def test_a_training_that_resumes_goes_on_in_the_order(n_done: int, policy: Path, export: Path, tmp_path: Path) -> None:
    saved: dict[str, Any] = {"save_strategy": "steps", "save_steps": n_done}
    before = train(policy, export, tmp_path, n_steps=n_done, **saved)
    after = train(policy, export, tmp_path, resume=str(tmp_path / f"checkpoint-{n_done}"), **saved)
    assert len(before) == n_done
    assert before + after == planned(request())


def test_the_default_sampling_breaks_the_order(policy: Path, export: Path, tmp_path: Path) -> None:
    steps = train(policy, export, tmp_path, train_sampling_strategy=None)
    assert sorted(pair for step in steps for pair in step) == sorted(
        pair for step in planned(request()) for pair in step
    )
    assert [sorted(step) for step in steps] != [sorted(step) for step in planned(request())]


def test_a_maximal_length_drops_long_prompts_and_shifts_the_batches(policy: Path, export: Path, tmp_path: Path) -> None:
    steps = train(policy, export, tmp_path, max_length=40)
    rows = [pair for step in planned(request()) for pair in step if pair[0] != "p5"]
    assert steps == [rows[at : at + SIZE] for at in range(0, len(rows), SIZE)]
    assert steps[1] != planned(request())[1]
    whole = train(policy, export, tmp_path, max_length=200)
    assert whole == planned(request())


def test_ignore_data_skip_starts_the_order_anew(policy: Path, export: Path, tmp_path: Path) -> None:
    saved: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    train(policy, export, tmp_path, n_steps=2, **saved)
    again = train(policy, export, tmp_path, resume=str(tmp_path / "checkpoint-2"), ignore_data_skip=True, **saved)
    assert again[0] == planned(request())[0]  # what was trained on is trained on again


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train_sampling_strategy": None}, "loader hands out rows"),
        ({"max_length": 40}, "The trainer has 22 rows and the export 24; row 5 is p6 and should be p5"),
        ({"gradient_accumulation_steps": 1}, "takes 2 pairs on each of 1 devices, 1 times"),
        ({"num_train_epochs": 2}, "more than once"),
        ({"max_steps": 7}, "more than once"),
        ({"dataloader_in_order": False, "dataloader_num_workers": 1}, "overtake"),
    ],
)
def test_a_trainer_that_would_leave_the_order_is_told_so(
    changes: dict[str, Any], says: str, policy: Path, export: Path, tmp_path: Path
) -> None:
    with pytest.raises(SaerlError) as caught:
        check_order(make_trainer(policy, export, tmp_path, **changes), export)
    assert caught.value.code == "order_not_kept"
    assert says in caught.value.problem


def test_a_trainer_that_was_checked_trains_in_the_order(policy: Path, export: Path, tmp_path: Path) -> None:
    check_order(make_trainer(policy, export, tmp_path, max_steps=6), export)
    trainer = make_trainer(policy, export, tmp_path)
    check_order(trainer, export)
    trainer.train_dataset = trainer.train_dataset.remove_columns("prompt_id")
    with pytest.raises(SaerlError, match="has no column prompt_id"):
        check_order(trainer, export)


def test_processes_share_each_batch(export: Path) -> None:
    """The shards that accelerate gives to two processes, put together, are the manifest's batches."""
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler, SequentialSampler

    dataset, settings = load(export, n_processes=2)
    size, n_accumulated = settings["per_device_train_batch_size"], settings["gradient_accumulation_steps"]
    whole = BatchSampler(SequentialSampler(dataset), batch_size=size, drop_last=False)
    shards = [list(BatchSamplerShard(whole, num_processes=2, process_index=at)) for at in range(2)]
    for step in range(N_STEPS):
        parts = [shard[step * n_accumulated : (step + 1) * n_accumulated] for shard in shards]
        rows = sorted(row for part in parts for taken in part for row in taken)
        assert rows == list(range(step * SIZE, (step + 1) * SIZE))


def test_the_export_is_of_this_order(export: Path) -> None:
    found = pl.read_parquet(export / "train.parquet")["prompt_id"].to_list()
    assert found == [prompt_id for step in planned(request()) for prompt_id, _ in step]
