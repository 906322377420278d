"""Checkpoints of an SAE's training, and the finished SAE on disk.

Belongs here: folders that appear whole, and taking up from them. Does not belong here: what is trained.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from saerl_assets.disk import new_folder
from saerl_assets.domain.spec import SaeSpec, digest

RECORD_FILE = "training.json"
"""Which recipe a checkpoint or SAE is of, and the history of its training."""

SAE_FOLDER = "sae"
"""The SAELens directory in the folder of a finished training; the record is beside it, so that it stays a
plain one."""

HistoryRow = dict[str, float]


def recipe_digest(activations: torch.Tensor, spec: SaeSpec, layer: int, seed: int) -> str:
    """SHA-256 over everything that decides the trained weights: settings, seed and the activations' bytes."""
    raw = activations.contiguous().cpu().view(torch.uint8).numpy()
    names = ("architecture", "n_latents", "k", "training_tokens", "batch_tokens", "learning_rate")
    return digest(
        {
            **{name: getattr(spec, name) for name in names},
            "layer": layer,
            "seed": seed,
            "shape": list(activations.shape),
            "activations": hashlib.sha256(raw.data).hexdigest(),
        }
    )


def save_checkpoint(trainer: Any, folder: Path, recipe: str, history: list[HistoryRow]) -> None:  # noqa: ANN401
    """Writes the whole state of training; the one before it goes once this one is complete."""
    older = list(folder.glob("checkpoint-*"))
    with new_folder(folder / f"checkpoint-{trainer.n_training_steps:09d}") as place:
        trainer.save_checkpoint("state", base_path=place)
        (place / RECORD_FILE).write_text(json.dumps({"recipe": recipe, "history": history}))
    for checkpoint in older:
        shutil.rmtree(checkpoint, ignore_errors=True)


def restore_checkpoint(trainer: Any, folder: Path, recipe: str) -> list[HistoryRow]:  # noqa: ANN401
    """Takes up the latest checkpoint of this recipe, if there is one; returns its history.

    Raises:
        OSError, RuntimeError, KeyError, ValueError: it is damaged; the trainer is then in no defined state.
    """
    for checkpoint in sorted(folder.glob("checkpoint-*"), reverse=True):
        history = read_history(checkpoint, recipe)
        if history is not None:
            state = checkpoint / "state"
            trainer.load_trainer_state(state)  # torch.load with its default, weights_only=True: nothing is unpickled
            try:
                trainer.sae.load_weights_from_checkpoint(state)
            except SafetensorError as error:
                raise ValueError(str(error)) from error
            return history
    return []


def save_finished(sae: Any, folder: Path, recipe: str, history: list[HistoryRow]) -> None:  # noqa: ANN401
    """Writes the SAELens directory that inference reads."""
    sae.cfg.device = "cpu"  # where it was trained is no property of it
    with new_folder(folder) as place:
        _, config = sae.save_inference_model(str(place / SAE_FOLDER))
        # sae_lens writes the fields in the order of a set, which is another one in every process
        config.write_text(json.dumps(json.loads(config.read_text()), sort_keys=True, indent=1))
        (place / RECORD_FILE).write_text(json.dumps({"recipe": recipe, "history": history}))


def read_history(folder: Path, recipe: str) -> list[HistoryRow] | None:
    """The history of what is in a folder; None if there is nothing, or something of another recipe."""
    try:
        record = json.loads((folder / RECORD_FILE).read_text())
    except (OSError, ValueError):
        return None
    history: list[HistoryRow] | None = record["history"] if record.get("recipe") == recipe else None
    return history
