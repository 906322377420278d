"""Files that hold an SAE: reading them without running anything, and writing a SAELens directory.

Belongs here: JSON and tensors on disk, and what is wrong with them. Does not belong here: what a format means
(`sae_formats`), encoders (`saes`).
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from saerl_assets.domain.errors import SaerlError

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
LAYOUT_VERSION = "6.0.0"
"""The `sae_lens` version whose directory layout is written."""


@dataclass(frozen=True)
class SaeContents:
    """What a SAELens directory holds."""

    config: dict[str, Any]
    """Its cfg.json."""
    weights: dict[str, torch.Tensor]
    """`W_enc` [d_in, d_sae], `W_dec` [d_sae, d_in], biases and thresholds."""

    def save(self, folder: Path) -> None:
        """Writes both files into a folder that is there, the weights as float32."""
        weights = {name: tensor.float().contiguous() for name, tensor in self.weights.items()}
        save_file(weights, folder / WEIGHTS_FILE)
        (folder / CONFIG_FILE).write_text(json.dumps(self.config, indent=1, sort_keys=True))


def sae_contents(
    architecture: str,
    weights: Mapping[str, torch.Tensor],
    metadata: Mapping[str, Any],
    *,
    subtracts_b_dec: bool,
    k: int | None = None,
) -> SaeContents:
    """Contents of a SAELens directory that needs no normalisation of its input.

    Args:
        architecture: As `sae_lens` calls it.
        weights: Under `sae_lens`'s names and shapes.
        metadata: What is known of the SAE: `hook_name`, `model_name`, `prepend_bos`, `l0`, `converted_from`; a value
            of None is left out.
        subtracts_b_dec: Whether the encoder sees the activations minus the decoder's bias.
        k: For TopK alone.
    """
    d_sae, d_in = weights["W_dec"].shape
    config = {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": subtracts_b_dec,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **({} if k is None else {"k": k, "rescale_acts_by_decoder_norm": False}),
        "metadata": {
            "sae_lens_version": LAYOUT_VERSION,
            **{name: value for name, value in metadata.items() if value is not None},
        },
    }
    return SaeContents(config, dict(weights))


def read_config(file: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        SaerlError: `sae_without_config`, `sae_corrupt`.
    """
    if not file.is_file():
        remedy = f"Put the {file.name} that belongs to these weights beside them."
        raise SaerlError("sae_without_config", f"It has no {file.name}.", where=str(file.parent), remedy=remedy)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise corrupt(file, f"It is no JSON: {error}.") from error
    if not isinstance(found, dict):
        raise corrupt(file, "It is no JSON object.")
    return found


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """Reads tensors to the processor: safetensors, or a `.pt` of nothing but tensors. No code in it ever runs.

    Raises:
        SaerlError: `sae_without_weights`, `sae_corrupt`, `sae_unsafe`, `sae_not_finite`.
    """
    if not file.is_file():
        remedy = f"Give a folder with {file.name}; pickled weights are read of dictionary_learning and Qwen-Scope only."
        raise SaerlError("sae_without_weights", f"It has no {file.name}.", where=str(file.parent), remedy=remedy)
    try:
        weights = load_file(file) if file.suffix == ".safetensors" else _unpickled(file)
    except pickle.UnpicklingError as error:
        raise unsafe(file) from error
    except Exception as error:  # a damaged file makes torch raise all sorts
        words = str(error).strip().partition("\n")[0] or type(error).__name__
        raise corrupt(file, f"It cannot be read: {words}.") from error
    for name, tensor in weights.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            remedy = "Copy or train it again: its training diverged, or the file is damaged."
            raise SaerlError("sae_not_finite", f"{name} holds NaN or infinity.", where=str(file), remedy=remedy)
    return weights


def corrupt(place: Path | str, problem: str) -> SaerlError:
    """An SAE whose files contradict themselves or cannot be read."""
    return SaerlError("sae_corrupt", problem, where=str(place), remedy="Copy or train it again.")


def unsafe(place: Path | str) -> SaerlError:
    """A pickle that torch refused to unpickle, whose own words advise to switch the guard off."""
    problem = "It is damaged, or a pickle that holds more than tensors; nothing in it was run."
    remedy = "Fetch it again from its makers; if it stays, ask them for safetensors."
    return SaerlError("sae_unsafe", problem, where=str(place), remedy=remedy)


def unsupported(place: Path | str, problem: str, remedy: str) -> SaerlError:
    """An SAE that is whole, but of a kind that is not read here."""
    return SaerlError("sae_unsupported", problem, where=str(place), remedy=remedy)


def _unpickled(file: Path) -> dict[str, torch.Tensor]:
    with warnings.catch_warnings():  # torch remarks on old pickle protocols
        warnings.simplefilter("ignore")
        found = torch.load(file, map_location="cpu", weights_only=True)
    if not isinstance(found, dict):
        message = "it holds no dictionary of tensors"
        raise ValueError(message)  # noqa: TRY004 - a damaged file, not a wrong argument
    return {str(name): tensor for name, tensor in found.items() if isinstance(tensor, torch.Tensor)}
