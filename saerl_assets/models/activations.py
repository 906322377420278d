"""Activations kept on disk for a while, so that training an SAE and computing features read the model once.

Belongs here: writing and reading the activations of a shard, and the threshold of attention sinks. Does not belong
here: what is made of them.

They are kept in the reader's own number format, so that a row computed from the cache is the very row that a fresh
pass would give.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from saerl_assets.disk import disk_error, new_file
from saerl_assets.models.device import TokenBudget
from saerl_assets.models.extraction import Activations, ReadsBatches, read_shard
from saerl_assets.models.texts import Shard


class ActivationCache:
    """One file per shard in a folder; a damaged file counts as missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, shard: Shard) -> bool:
        """Whether there is a file for the shard, whole or not."""
        return self._file(shard).exists()

    def get(self, shard: Shard) -> Activations | None:
        """The shard's activations, or None where they are not kept."""
        try:
            found = load_file(self._file(shard))
        except (OSError, SafetensorError):
            return None
        layers = {int(name): states for name, states in found.items()}
        complete = all(len(states) == shard.n_tokens for states in layers.values())
        return Activations(layers) if complete else None

    def put(self, shard: Shard, activations: Activations) -> None:
        """Keeps a shard's activations; the file appears whole.

        Raises:
            SaerlError: `disk_full`, `not_writable`.
        """
        try:
            with new_file(self._file(shard)) as made:
                save_file({str(layer): states for layer, states in activations.layers.items()}, made)
        except SafetensorError as error:
            raise disk_error(error, self.folder) from error

    def get_or_read(self, reader: ReadsBatches, shard: Shard, *, budget: TokenBudget) -> Activations:
        """The kept activations, else those of a fresh pass, which are then kept."""
        found = self.get(shard)
        if found is None:
            found = read_shard(reader, shard, budget=budget)
            self.put(shard, found)
        return found

    def remove(self) -> None:
        """Removes everything."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, shard: Shard) -> Path:
        return self.folder / f"{shard.shard_id}.safetensors"


def sink_threshold(activations: Sequence[torch.Tensor], multiple: float) -> float:
    """The norm above which a token is an attention sink: `multiple` times the median norm of the given tokens."""
    norms = torch.cat([states.float().norm(dim=-1) for states in activations])
    return float(norms.median()) * multiple


def without_sinks(activations: Sequence[torch.Tensor], threshold: float) -> torch.Tensor:
    """The tokens whose norm is at most the threshold: [n_tokens, d_model]."""
    return torch.cat([states[states.float().norm(dim=-1) <= threshold] for states in activations])
