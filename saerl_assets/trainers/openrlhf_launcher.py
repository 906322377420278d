"""Starts OpenRLHF's PPO, GRPO or REINFORCE++ training in the order of an export.

    python -m saerl_assets.trainers.openrlhf_launcher --export FOLDER [arguments of openrlhf.cli.train_ppo_ray]

Belongs here: the command line. Does not belong here: how the order is kept and proven (openrlhf_order).
"""

from __future__ import annotations

import argparse
import importlib.util
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from saerl_assets.domain.errors import SaerlError
from saerl_assets.trainers.export import check_export
from saerl_assets.trainers.openrlhf import DATA_FILE, FORMAT, SETTINGS_FILE
from saerl_assets.trainers.openrlhf_order import check_source, keep_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from saerl_assets.trainers.export import ExportRecord

TRAINING = "openrlhf.cli.train_ppo_ray"
CHAT_TEMPLATE = "--data.apply_chat_template"


def main(argv: Sequence[str] | None = None) -> None:
    """Proves the export and the installed OpenRLHF, then runs its training with one loader in order."""
    try:
        _launch(list(sys.argv[1:] if argv is None else argv))
    except SaerlError as error:
        sys.exit(f"error: {error}")


def _launch(argv: list[str]) -> None:
    own, further = _parser().parse_known_args(argv)
    record = check_export(own.export, manifest_id=own.manifest)
    if record.trainer != FORMAT.name:
        raise SaerlError(
            "other_trainer",
            f"This export is for {record.trainer}.",
            where=str(own.export),
            remedy=f"Export for OpenRLHF: saerl export {record.dataset_version} --to {FORMAT.name}",
        )
    check_source(_installed())
    arguments = openrlhf_arguments(own.export, further, chat_template=not own.no_chat_template)
    _replace_strategy(own.export, record)
    sys.argv = [TRAINING, *arguments]
    runpy.run_module(TRAINING, run_name="__main__", alter_sys=True)


def openrlhf_arguments(folder: Path, further: Sequence[str], *, chat_template: bool = True) -> list[str]:
    """What OpenRLHF is started with: the export's own arguments first, so that the user's win.

    Args:
        folder: The export.
        further: The user's arguments.
        chat_template: Whether prompts become chats.
    """
    own = (folder / SETTINGS_FILE).read_text(encoding="utf-8").split()
    if not chat_template:
        own.remove(CHAT_TEMPLATE)
    return ["--data.prompt_dataset", str((folder / DATA_FILE).resolve()), *own, *further]


def _replace_strategy(folder: Path, record: ExportRecord) -> None:
    """The driver imports `get_strategy` from here; the strategy that it makes goes into every actor."""
    import openrlhf.utils

    make = openrlhf.utils.get_strategy
    openrlhf.utils.get_strategy = lambda args: keep_order(make(args), folder, record)


def _installed() -> Path:
    spec = importlib.util.find_spec("openrlhf")
    if spec is None or not spec.submodule_search_locations:
        raise SaerlError(
            "openrlhf_missing",
            "OpenRLHF is not installed here.",
            remedy="Start this in the environment of OpenRLHF 0.11.",
        )
    return Path(spec.submodule_search_locations[0])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m saerl_assets.trainers.openrlhf_launcher",
        description=f"{TRAINING} in the order of an export. All other arguments are its own.",
        allow_abbrev=False,
    )
    parser.add_argument("--export", type=Path, required=True, metavar="FOLDER", help="what `saerl export` wrote")
    parser.add_argument("--manifest", metavar="ID", help="refuse an export of another manifest")
    parser.add_argument(
        "--no-chat-template", action="store_true", help="give string prompts to a base model as they are"
    )
    return parser


if __name__ == "__main__":
    main()
