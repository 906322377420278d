"""The callback that holds a training with TRL's GRPO trainer to the order of an export.

Belongs here: what is looked at before a training, while it runs and when it resumes. Does not belong here: the export
and its settings (trl), the file of the log (training_log).

Written against TRL 1.16 and transformers 5.23. What is relied on there:

- `GRPOTrainer._get_train_sampler` (`RepeatSampler`) gives each generation batch `num_generations` times and
  `steps_per_generation * num_iterations` times over; `_prepare_inputs` generates from the first of these, permutes the
  completions and cuts them into `steps_per_generation` parts.
- `_calculate_rewards` calls every reward function once a generation, with the rows' columns, in the loader's order.
- `Trainer._inner_training_loop` calls `on_train_begin` with the loader and with the state as the checkpoint has
  it; `_save_checkpoint` writes what `ExportableState.state` says into `trainer_state.json`.
- Generation takes place between `on_step_begin` and `on_step_end`, evaluation never does.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.export import ExportRecord, check_export
from saerl_assets.trainers.training_log import append_lines, start_log
from saerl_assets.trainers.trl import FORMAT, other_trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from transformers import TrainerControl, TrainerState

Args: TypeAlias = Any
"""A `GRPOConfig`. Its own types leave open what `__post_init__` fills in."""

Rewards: TypeAlias = "Sequence[float | None]"

_LOOKED_AT = 1_000_000
"""Rows of the loader that are compared before a training: all of most, a fraction of a second of any. Every later
batch is compared when its turn comes."""

_SETTINGS_REMEDY = "Take the settings from saerl_assets.trainers.trl.load and leave them as they are."


class Setting(NamedTuple):
    """A setting under which a training would not follow the order."""

    name: str
    found: object
    wanted: str


class OrderCallback(TrainerCallback, ExportableState):
    """Stops a `GRPOTrainer` that would not train in the order of an export, and logs every reward.

    When the training begins, it looks at the settings, at the data set and at what the trainer's own loader will hand
    out, and it refuses a checkpoint of another manifest or arm. From then on it compares the prompts of every step with
    the batch that is due, before the step is taken. Rewards go to `saerl_log.jsonl` in the output folder.

        order = OrderCallback(path)
        GRPOTrainer(..., reward_funcs=order.watch(my_reward), callbacks=[order])

    Args:
        path: The folder of the export.

    Raises:
        SaerlError: `not_an_export`, `export_changed`, `other_trainer`.
    """

    def __init__(self, path: str | Path) -> None:
        self._folder = Path(path)
        self._record = check_export(self._folder)
        if self._record.trainer != FORMAT.name:
            raise other_trainer(self._folder, self._record.trainer)
        order = FORMAT.read_order(self._folder)
        self._prompt_ids: list[str] = order["prompt_id"].to_list()
        self._epochs: list[int] = order["epoch"].to_list()
        self._n_watched = 0
        self._n_iterations = 1
        self._batch: int | None = None  # the one that is trained on, while a step is being taken
        self._seen: list[str] | None = None
        self._rewards: dict[int, Rewards] = {}
        self._args: Args | None = None
        self._log = Path()

    def state(self) -> dict[str, Any]:
        """What goes into `trainer_state.json` of every checkpoint: which order it was trained in, and up to now how."""
        return {"args": {"path": str(self._folder)}, "attributes": {"order": self._identity()}}

    def watch(self, rewards: Callable[..., Any] | Sequence[Any]) -> list[Any]:
        """The reward functions, for `reward_funcs`, so that their prompts are compared and their rewards logged.

        They are called as before. A reward model in the list stays as it is; it cannot be watched, and the rewards of
        the log are null then.

        Raises:
            SaerlError: `nothing_to_watch` if there is no function.
        """
        wanted: list[Any] = list(rewards) if isinstance(rewards, list | tuple) else [rewards]
        watched = [reward if _is_model(reward) else self._watched(at, reward) for at, reward in enumerate(wanted)]
        if all(_is_model(reward) for reward in wanted):
            raise SaerlError(
                "nothing_to_watch",
                "There is no reward function, and a reward model does not tell which prompts it was given.",
                where="reward_funcs",
                remedy="Call the reward model in a function of prompts and completions, and pass that.",
            )
        self._n_watched = len(wanted)
        return watched

    def on_train_begin(
        self,
        args: Args,
        state: TrainerState,
        control: TrainerControl,  # noqa: ARG002 - transformers' signature
        **objects: Any,  # noqa: ANN401 - model, optimizer, loader and so on
    ) -> None:
        """Compares what the trainer is about to do with the order.

        Raises:
            SaerlError: `order_not_kept` naming the settings, `other_dataset` naming the first row that differs,
                `other_manifest` for a checkpoint, `not_watched`.
        """
        self._args = args
        self._check_settings(args, state)
        self._check_dataset(objects["train_dataloader"])
        self._check_loader(args, objects["train_dataloader"])
        self._check_checkpoint(state)
        if not self._n_watched:
            raise SaerlError(
                "not_watched",
                "The reward functions are not watched, so nothing shows which prompts a step takes.",
                where="reward_funcs",
                remedy="Write reward_funcs=order.watch(my_reward), where order is this callback.",
            )
        if state.is_world_process_zero:
            self._log = start_log(Path(str(args.output_dir)), state.global_step // self._n_iterations)

    def on_step_begin(self, args: Args, state: TrainerState, control: TrainerControl, **_: object) -> None:  # noqa: ARG002
        """Notes which batch is due."""
        self._batch = state.global_step // self._n_iterations
        self._seen = None
        self._rewards = {}

    def on_substep_end(self, args: Args, state: TrainerState, control: TrainerControl, **_: object) -> None:  # noqa: ARG002
        """Checks after each part of a step that it was of this batch.

        Raises:
            SaerlError: `out_of_order` if the trainer took the completions of another batch once more.
        """
        self._check_generated(state.global_step)

    def on_step_end(self, args: Args, state: TrainerState, control: TrainerControl, **_: object) -> None:  # noqa: ARG002
        """Logs the batch.

        Raises:
            SaerlError: As `on_substep_end`.
        """
        self._check_generated(state.global_step - 1)
        batch, self._batch = self._batch, None
        if batch is not None and (state.global_step - 1) % self._n_iterations == 0:
            self._write(state, batch)

    def _check_generated(self, step: int) -> None:
        """The first iteration over a batch starts with generating for it."""
        if self._seen is None and step % self._n_iterations == 0:
            raise self._out_of_order(f"step {step} took completions that are not of batch {self._batch}")

    def _identity(self) -> dict[str, str | int]:
        record = self._record
        return {
            "manifest_id": record.manifest_id,
            "arm": record.arm,
            "batch_size": record.batch_size,
            "order_digest": record.order_digest,
            "num_iterations": self._n_iterations,
        }

    def _watched(self, at: int, reward: Callable[..., Any]) -> Callable[..., Any]:
        """A reward function that shows what it was given and what it gave."""

        def watched(**columns: object) -> Rewards:
            self._see(at, columns)
            self._rewards[at] = reward(**columns)
            return self._rewards[at]

        async def watched_async(**columns: object) -> Rewards:
            self._see(at, columns)
            self._rewards[at] = await reward(**columns)
            return self._rewards[at]

        is_async = inspect.iscoroutinefunction(_plain(reward)) or inspect.iscoroutinefunction(_plain(reward).__call__)
        shown: Callable[..., Any] = watched_async if is_async else watched
        name = getattr(_plain(reward), "__name__", type(reward).__name__)  # TRL calls its metrics by it
        shown.__name__, shown.__doc__ = name, reward.__doc__
        return shown

    def _see(self, at: int, columns: Mapping[str, Any]) -> None:
        """Compares the prompts of a generation with the batch that is due."""
        if self._batch is None:  # an evaluation
            return
        found = [str(prompt_id) for prompt_id in columns["prompt_id"]]
        if at in self._rewards:
            raise self._out_of_order(f"batch {self._batch} was generated in parts")
        expected = [self._prompt_ids[row] for row in self._rows_of(self._batch, self._args)]
        if found != expected:
            given = next((at for at, (one, other) in enumerate(zip(found, expected, strict=False)) if one != other), 0)
            what = f"{len(found)} completions, number {given} for prompt {found[given]}"
            wanted = f"{len(expected)}, number {given} for {expected[given]}"
            raise self._out_of_order(f"batch {self._batch} was generated with {what}, and should be with {wanted}")
        self._seen = found

    def _rows_of(self, batch: int, args: Args) -> list[int]:
        """Rows of the export of which this process has the completions of a batch, in the loader's order."""
        size, n_generations = self._record.batch_size, args.num_generations
        rows = [row for row in range(batch * size, (batch + 1) * size) for _ in range(n_generations)]
        n_here = len(rows) // args.world_size
        return rows[args.process_index * n_here : (args.process_index + 1) * n_here]

    def _check_settings(self, args: Args, state: TrainerState) -> None:
        self._n_iterations = args.num_iterations
        wrong = wrong_settings(args, self._record, resumes=state.global_step > 0)
        if wrong:
            said = "; ".join(f"{name} is {found} and must be {wanted}" for name, found, wanted in wrong)
            raise self._not_kept(f"These settings do not keep the order: {said}.", _SETTINGS_REMEDY)

    def _check_dataset(self, loader: Any) -> None:  # noqa: ANN401 - any loader
        dataset = loader.dataset
        if not hasattr(dataset, "select_columns") or not hasattr(dataset, "__len__"):
            problem = f"The data set is streamed ({type(dataset).__name__}), so its rows cannot be compared."
            raise self._not_kept(problem, "Give the trainer the data set of saerl_assets.trainers.trl.load.")
        remedy = (
            "Give the trainer the data set of saerl_assets.trainers.trl.load with all its rows and with prompt_id; "
            "leave prompts out by batches.max_prompt_tokens of the spec."
        )
        if "prompt_id" not in dataset.column_names:
            raise SaerlError("other_dataset", "The data set has no prompt_id.", where=str(self._folder), remedy=remedy)
        found = dataset.select_columns("prompt_id").with_format("arrow")[:]["prompt_id"].to_pylist()
        if found != self._prompt_ids:
            pairs = enumerate(itertools.zip_longest(found, self._prompt_ids, fillvalue="no prompt"))
            row, (given, wanted) = next((row, pair) for row, pair in pairs if pair[0] != pair[1])
            problem = (
                f"The trainer's data set has {len(found)} rows and the export {len(self._prompt_ids)}; row {row} is "
                f"{given} and should be {wanted}."
            )
            raise SaerlError("other_dataset", problem, where=str(self._folder), remedy=remedy)

    def _check_loader(self, args: Args, loader: Any) -> None:  # noqa: ANN401 - any loader
        found = itertools.islice(itertools.chain.from_iterable(loader.batch_sampler), _LOOKED_AT)
        for at, (row, wanted) in enumerate(itertools.zip_longest(found, self._planned_rows(args))):
            if row != wanted:
                problem = (
                    f"Completion {at} that the trainer's loader hands out is for row {row}, and should be for row "
                    f"{wanted}."
                )
                remedy = "Use GRPOTrainer's own sampler, one process per device, and the settings of "
                raise self._not_kept(problem, f"{remedy}saerl_assets.trainers.trl.load.")

    def _planned_rows(self, args: Args) -> Iterator[int]:
        """What the loader should hand out, as far as it is looked at."""
        n_times = args.steps_per_generation * self._n_iterations
        batches = ([self._rows_of(batch, args)] * n_times for batch in range(self._record.n_steps))
        rows = itertools.chain.from_iterable(itertools.chain.from_iterable(batches))
        return itertools.islice(rows, _LOOKED_AT)

    def _check_checkpoint(self, state: TrainerState) -> None:
        """What the checkpoint says is compared; a training that starts anew finds what `state` of this object said."""
        if state.global_step == 0:
            return
        callbacks: Any = state.stateful_callbacks  # read from JSON: a dictionary by class
        found = callbacks.get(type(self).__name__, {}).get("attributes", {}).get("order", {})
        place = f"checkpoint at step {state.global_step}"
        if not found:
            remedy = "Start anew, or resume a checkpoint that was written with this callback."
            problem = "Nothing in it tells which manifest it was trained on."
            raise SaerlError("checkpoint_without_manifest", problem, where=place, remedy=remedy)
        wrong = {
            name: (found.get(name), wanted) for name, wanted in self._identity().items() if found.get(name) != wanted
        }
        if wrong:
            name, (given, wanted) = next(iter(wrong.items()))
            remedy = "Resume with the export that it was trained on, or start anew in another output folder."
            problem = f"It was trained with {name} {_short(given)}, and this export has {_short(wanted)}."
            raise SaerlError("other_manifest", problem, where=place, remedy=remedy)
        if state.global_step % self._n_iterations:
            remedy = f"Resume a checkpoint whose step is a multiple of num_iterations, {self._n_iterations}."
            problem = "It lies amid the iterations over one batch, and TRL would begin them anew."
            raise SaerlError("order_not_kept", problem, where=place, remedy=remedy)

    def _write(self, state: TrainerState, batch: int) -> None:
        """Adds a batch to the log, the completions of all processes."""
        from accelerate.utils import gather_object

        rewards = [self._reward_of(at) for at in range(len(self._seen or []))]
        found = gather_object(list(zip(self._seen or [], rewards, strict=True)))
        if state.is_world_process_zero:
            fixed = {
                "manifest_id": self._record.manifest_id,
                "step": batch,
                "epoch": self._epochs[batch * self._record.batch_size],
            }
            append_lines(self._log, [fixed | {"prompt_id": one, "reward": reward} for one, reward in found])

    def _reward_of(self, completion: int) -> float | None:
        """What the trainer makes of the functions' rewards, see `GRPOTrainer._calculate_rewards`: the weighted sum."""
        if len(self._rewards) < self._n_watched:
            return None
        weights = getattr(self._args, "reward_weights", None) or [1.0] * self._n_watched
        found = [(weight, self._rewards[at][completion]) for at, weight in enumerate(weights)]
        known = [weight * float(reward) for weight, reward in found if reward is not None and not math.isnan(reward)]
        return sum(known) if known else None

    def _not_kept(self, problem: str, remedy: str) -> SaerlError:
        return SaerlError("order_not_kept", problem, where=str(self._folder), remedy=remedy)

    def _out_of_order(self, what: str) -> SaerlError:
        problem = f"The training left the order: {what}."
        return SaerlError("out_of_order", problem, where=str(self._folder), remedy=_SETTINGS_REMEDY)


def wrong_settings(args: Args, record: ExportRecord, *, resumes: bool = False) -> list[Setting]:
    """The settings of a `GRPOConfig` under which optimizer steps would not be the batches of an export.

    Args:
        args: The `GRPOConfig`.
        record: Of the export.
        resumes: Whether the training goes on from a checkpoint.
    """
    n_accumulated, n_processes = args.gradient_accumulation_steps, args.world_size
    n_completions = args.per_device_train_batch_size * n_processes * n_accumulated
    n_wanted, n_steps = record.batch_size * args.num_generations, record.n_steps * args.num_iterations
    product = f"per_device_train_batch_size * {n_processes} processes * gradient_accumulation_steps"
    a_batch = f"{n_wanted}, {record.batch_size} prompts with {args.num_generations} completions each"
    in_order = args.dataloader_in_order or not args.dataloader_num_workers
    splits = args.accelerator_config.split_batches
    wrong = [
        (args.shuffle_dataset, "shuffle_dataset", args.shuffle_dataset, "False"),
        (
            args.steps_per_generation != n_accumulated,
            "steps_per_generation",
            args.steps_per_generation,
            f"{n_accumulated}, as gradient_accumulation_steps is",
        ),
        (n_completions != n_wanted, product, n_completions, a_batch),
        (args.max_steps <= 0 and args.num_train_epochs > 1, "num_train_epochs", args.num_train_epochs, "1"),
        (args.max_steps > n_steps, "max_steps", args.max_steps, f"{n_steps} at most"),
        (args.auto_find_batch_size, "auto_find_batch_size", True, "False"),
        (args.remove_unused_columns, "remove_unused_columns", True, "False"),
        (args.n_gpu > 1, "n_gpu", args.n_gpu, "1 for each process, as `accelerate launch` starts them"),
        (not in_order, "dataloader_in_order", args.dataloader_in_order, "True"),
        (splits and n_processes > 1, "accelerator_config.split_batches", splits, "False"),
        (resumes and args.ignore_data_skip, "ignore_data_skip", True, "False"),
        (
            args.restore_callback_states_from_checkpoint,
            "restore_callback_states_from_checkpoint",
            True,
            "False",
        ),
    ]
    return [Setting(name, found, wanted) for is_wrong, name, found, wanted in wrong if is_wrong]


def _is_model(reward: object) -> bool:
    """Whether it is a reward model, or a model's name."""
    return isinstance(reward, str) or hasattr(reward, "forward")


def _plain(reward: Any) -> Any:  # noqa: ANN401 - any callable
    while isinstance(reward, functools.partial):
        reward = reward.func
    return reward


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) else str(value)
