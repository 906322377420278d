"""What makes OpenRLHF keep an order: its loader of training prompts unshuffled, and held against the export.

Belongs here: the replacement for `strategy.setup_dataloader`, what has to be true of the installed OpenRLHF, of its
arguments and of the checkpoint for it to work. Does not belong here: the command line (openrlhf_launcher), the files
(openrlhf).

Where it acts: `train` in `openrlhf/cli/train_ppo_ray.py` makes one strategy in the driver and hands it to the Ray
actor that builds the loaders, `PPOTrainer` or, with `--train.async_enable`, `GenerateSamplesActor`. Nothing that is
patched in the driver's modules would be there. So `OrderedLoader` sits on the strategy itself and travels with it.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from saerl_assets.disk import new_file
from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.export import ExportRecord, check_export
from saerl_assets.trainers.openrlhf import DATA_FILE

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPTS = "PromptDataset"
"""OpenRLHF's class for the rows of `--data.prompt_dataset`."""
NOTE_FILE = "saerl_export.json"
"""Beside the checkpoints: the order that they were trained in."""
_KNOWN = "Use OpenRLHF 0.11, or a release of saerl_assets that knows this one."


@dataclass(frozen=True, eq=False)
class OrderedLoader:
    """Takes the place of `strategy.setup_dataloader`. It travels with the strategy into any process."""

    strategy: Any
    """OpenRLHF's `DeepspeedStrategy`."""
    export: str
    """The folder of the export."""
    manifest_id: str

    def __call__(
        self,
        replay_buffer: Any,  # noqa: ANN401 - a data set of OpenRLHF
        batch_size: int,
        pin_memory: bool = False,  # noqa: FBT001, FBT002 - as OpenRLHF has it
        shuffle: bool = True,  # noqa: FBT001, FBT002
        *further: Any,  # noqa: ANN401
        **named: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """OpenRLHF's own loader, in order if it is to be a shuffled one of prompts.

        Raises:
            SaerlError: `order_lost` if what it would yield is not the export, or as `check_export`.
        """
        own = type(self.strategy).setup_dataloader
        is_training = shuffle and type(replay_buffer).__name__ == PROMPTS
        loader = own(
            self.strategy, replay_buffer, batch_size, pin_memory, shuffle and not is_training, *further, **named
        )
        if is_training:
            record = check_export(Path(self.export), manifest_id=self.manifest_id)
            check_loader(loader, replay_buffer, Path(self.export), record)
            steps = f"{record.n_rows:,} prompts in {record.n_steps:,} batches of {record.batch_size}"
            self.strategy.print(
                f"saerl: the loader yields {steps}, in the order of manifest {record.manifest_id[:12]}."
            )
        return loader


def keep_order(strategy: Any, folder: Path, record: ExportRecord) -> Any:  # noqa: ANN401 - OpenRLHF's strategy
    """Makes a strategy, and every copy of it in another process, build the loader of an export's prompts in order.

    Raises:
        SaerlError: `settings_break_order` or `other_manifest`.
    """
    check_settings(strategy.args, folder, record)
    note_manifest(strategy.args, record)
    strategy.setup_dataloader = OrderedLoader(strategy, str(folder.resolve()), record.manifest_id)
    return strategy


def check_loader(loader: Any, prompts: Any, folder: Path, record: ExportRecord) -> None:  # noqa: ANN401
    """Holds what a loader will yield against the export, row by row.

    Args:
        loader: The `StatefulDataLoader`.
        prompts: Its `PromptDataset`.
        folder: The export.
        record: Its `manifest.json`.

    Raises:
        SaerlError: `order_lost`, with the row and the prompt.
    """
    from openrlhf.datasets.prompts_dataset import preprocess_data

    settings = prompts.strategy.args.data
    template = prompts.tokenizer.apply_chat_template if settings.apply_chat_template else None
    order = list(loader.sampler)
    if len(order) != record.n_rows:
        raise _lost(f"It yields {len(order):,} prompts where the export has {record.n_rows:,}.", folder)
    rows = pl.read_parquet(folder / DATA_FILE).iter_rows(named=True)
    for place, (index, row) in enumerate(zip(order, rows, strict=True)):
        _, prompt, label, _ = prompts[index]
        wanted = preprocess_data(row, prompts.input_template, settings.input_key, settings.label_key, template)
        if (prompt, label) != wanted:
            expected = row["label"]["prompt_id"]
            raise _lost(f"At place {place:,} it yields row {index:,}, which is not prompt {expected}.", folder)


def check_settings(args: Any, folder: Path, record: ExportRecord) -> None:  # noqa: ANN401 - argparse's
    """Refuses arguments of OpenRLHF under which a step would not be a batch of the export.

    Raises:
        SaerlError: `settings_break_order`, naming each of them with what it has to be.
    """
    problems = list(_broken_settings(args, folder, record))
    if problems:
        raise SaerlError(
            "settings_break_order",
            f"These arguments would break the order: {'; '.join(problems)}.",
            where=str(folder),
            remedy="Change or leave them out; the README of the export says why.",
        )


def _broken_settings(args: Any, folder: Path, record: ExportRecord) -> Iterator[str]:  # noqa: ANN401
    n_samples = args.rollout.n_samples_per_prompt
    generated = args.rollout.vllm_generate_batch_size or args.rollout.batch_size
    file = (folder / DATA_FILE).resolve()
    if args.data.prompt_dataset is None or Path(args.data.prompt_dataset).resolve() != file:
        yield f"--data.prompt_dataset is {args.data.prompt_dataset}, not {file}"
    if args.data.prompt_probs is not None:
        yield "--data.prompt_probs samples the data"
    if args.data.max_samples < record.n_rows:
        yield f"--data.max_samples is {args.data.max_samples}, less than the {record.n_rows} rows"
    if args.rollout.batch_size != record.batch_size:
        yield f"--rollout.batch_size is {args.rollout.batch_size}, not {record.batch_size}"
    if generated != record.batch_size:
        yield f"--rollout.vllm_generate_batch_size is {generated}, not {record.batch_size}"
    if args.train.batch_size != record.batch_size * n_samples:
        wanted = f"{record.batch_size} prompts x {n_samples} responses = {record.batch_size * n_samples}"
        yield f"--train.batch_size is {args.train.batch_size}, not {wanted}"
    if args.train.num_episodes != 1:
        yield f"--train.num_episodes is {args.train.num_episodes}, not 1: all epochs are in the file"
    if args.algo.dynamic_filtering_enable:
        yield "--algo.dynamic_filtering_enable replaces prompts by later ones"


def note_manifest(args: Any, record: ExportRecord) -> None:  # noqa: ANN401 - argparse's
    """Notes beside the checkpoints which order they are trained in; refuses to resume those of another one.

    OpenRLHF continues at a row number, whatever the file is.

    Raises:
        SaerlError: `other_manifest`.
    """
    place = Path(args.ckpt.path)
    note = place / NOTE_FILE
    own = {"manifest_id": record.manifest_id, "arm": record.arm, "order_digest": record.order_digest}
    if args.ckpt.load_enable and (place / "_actor").exists():
        found = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else None
        if found is None or found["order_digest"] != own["order_digest"]:
            trained = (
                f"in the order of manifest {found['manifest_id'][:12]}, {found['arm']}"
                if found
                else "in no known order"
            )
            raise SaerlError(
                "other_manifest",
                f"These checkpoints were trained {trained}, not in that of {record.manifest_id[:12]}, {record.arm}.",
                where=str(place),
                remedy="Resume with the export that they were trained on, or name another --ckpt.path.",
            )
    else:
        with new_file(note) as made:
            made.write_text(json.dumps(own, indent=2) + "\n", encoding="utf-8")


def check_source(package: Path) -> None:
    """Refuses an OpenRLHF whose source is not what this module was written for.

    Nothing of it is imported.

    Args:
        package: The installed folder `openrlhf`.

    Raises:
        SaerlError: `openrlhf_changed`, with the file and what was expected there.
    """
    prepare = _function(package / "trainer" / "ppo_trainer.py", "prepare_datasets")
    loaders = [call for call in _calls(prepare, "setup_dataloader") if _names(call)[:1] == ["prompts_dataset"]]
    _expect(
        len(loaders) == 1 and _constant(loaders[0], 3) is True,
        package / "trainer" / "ppo_trainer.py",
        "prepare_datasets makes the prompts' loader by strategy.setup_dataloader(prompts_dataset, 1, True, True, ...)",
    )
    own = _function(package / "utils" / "deepspeed" / "deepspeed.py", "setup_dataloader")
    _expect(
        [argument.arg for argument in own.args.args[:5]]
        == ["self", "replay_buffer", "batch_size", "pin_memory", "shuffle"],
        package / "utils" / "deepspeed" / "deepspeed.py",
        "DeepspeedStrategy.setup_dataloader takes replay_buffer, batch_size, pin_memory and shuffle in this order",
    )
    train = _function(package / "cli" / "train_ppo_ray.py", "train")
    _expect(
        len(_calls(train, "get_strategy")) == 1 and any("strategy" in _names(call) for call in _calls(train, "remote")),
        package / "cli" / "train_ppo_ray.py",
        "train makes one strategy with get_strategy and hands it to the trainer's actor",
    )
    for file in ("ppo_trainer.py", "ppo_trainer_async.py"):
        made = [_names(call) for call in _calls(_tree(package / "trainer" / file), "prepare_datasets")]
        _expect(
            made == [["strategy", "tokenizer"]],
            package / "trainer" / file,
            "one actor makes the loaders with prepare_datasets(strategy, tokenizer)",
        )
    preprocess = _function(package / "datasets" / "prompts_dataset.py", "preprocess_data")
    _expect(
        [argument.arg for argument in preprocess.args.args]
        == ["data", "input_template", "input_key", "label_key", "apply_chat_template"],
        package / "datasets" / "prompts_dataset.py",
        "preprocess_data makes prompt and label of a row",
    )


def _expect(holds: bool, path: Path, expected: str) -> None:  # noqa: FBT001 - it is the sentence's verb
    if not holds:
        raise SaerlError(
            "openrlhf_changed",
            f"The installed OpenRLHF is not the one that this launcher knows. Expected: {expected}.",
            where=str(path),
            remedy=_KNOWN,
        )


def _tree(path: Path) -> ast.Module:
    _expect(path.is_file(), path, "this file")
    return ast.parse(path.read_text(encoding="utf-8"))


def _function(path: Path, name: str) -> ast.FunctionDef:
    found = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.FunctionDef) and node.name == name]
    _expect(len(found) == 1, path, f"one function {name}")
    return found[0]


def _calls(tree: ast.AST, name: str) -> list[ast.Call]:
    """Calls of a function or method of this name."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call for call in calls if name in {getattr(call.func, "id", None), getattr(call.func, "attr", None)}]


def _names(call: ast.Call) -> list[str]:
    return [argument.id if isinstance(argument, ast.Name) else "" for argument in call.args]


def _constant(call: ast.Call, at: int) -> object:
    given = call.args[at] if len(call.args) > at else None
    return given.value if isinstance(given, ast.Constant) else None


def _lost(problem: str, folder: Path) -> SaerlError:
    return SaerlError(
        "order_lost",
        f"OpenRLHF's loader does not keep the order. {problem}",
        where=str(folder),
        remedy="Give it this export alone, through the launcher, in one process that builds the loader.",
    )
