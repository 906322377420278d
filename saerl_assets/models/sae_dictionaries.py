"""SAEs of the dictionary_learning package, as SAELens directories.

Belongs here: its classes and their conventions (https://github.com/saprmarks/dictionary_learning, 0.1.0,
`dictionary.py` and `trainers/`). Does not belong here: other formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from saerl_assets.disk import file_digest
from saerl_assets.models.sae_configs import (
    DictionaryBuffer,
    DictionaryConfig,
    DictionaryEvaluation,
    DictionaryTrainer,
    read_as,
)
from saerl_assets.models.sae_files import SaeContents, corrupt, read_weights, sae_contents, unsupported
from saerl_assets.models.sae_tensors import named_tensors

DICTIONARY_CONFIG = "config.json"
DICTIONARY_WEIGHTS = "ae.pt"
_EVALUATION = "eval_results.json"


@dataclass(frozen=True)
class _Class:
    """One of its classes: the architecture that it is, and its tensors' names there."""

    architecture: str
    names: dict[str, str]
    subtracts_b_dec: bool = True


_LINEAR = {"encoder.weight": "W_enc", "decoder.weight": "W_dec", "encoder.bias": "b_enc"}
_MATRICES = {"W_enc": "W_enc", "W_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec", "threshold": "threshold"}
_CLASSES = {
    "AutoEncoder": _Class("standard", _LINEAR | {"bias": "b_dec"}),
    "AutoEncoderNew": _Class("standard", _LINEAR | {"decoder.bias": "b_dec"}, subtracts_b_dec=False),
    "GatedAutoEncoder": _Class(
        "gated",
        {
            "encoder.weight": "W_enc",
            "decoder.weight": "W_dec",
            "decoder_bias": "b_dec",
            "gate_bias": "b_gate",
            "mag_bias": "b_mag",
            "r_mag": "r_mag",
        },
    ),
    "AutoEncoderTopK": _Class("topk", _LINEAR | {"b_dec": "b_dec"}),
    "BatchTopKSAE": _Class("jumprelu", _LINEAR | {"b_dec": "b_dec", "threshold": "threshold"}),
    "MatryoshkaBatchTopKSAE": _Class("jumprelu", _MATRICES),
    "JumpReluAutoEncoder": _Class("jumprelu", _MATRICES, subtracts_b_dec=False),
}


def from_dictionary_learning(folder: Path) -> SaeContents:
    """An SAE of dictionary_learning, with the activations that its own `load_dictionary` gives.

    Where it was trained on normalised activations, the package has put the factor into the biases and the threshold
    before it saved them, so that the SAE reads activations as they are.

    Args:
        folder: With `ae.pt`, `config.json`, and perhaps `eval_results.json`, whose `l0` is taken.

    Raises:
        SaerlError: `sae_unsupported` for a class that is no SAE or not known; `sae_corrupt`, and what `read_weights`
            raises.
    """
    config = read_as(DictionaryConfig, folder / DICTIONARY_CONFIG)
    trainer = config.trainer
    name = trainer.dict_class
    kind = _CLASSES.get(name)
    if kind is None:
        remedy = f"Use one of {', '.join(_CLASSES)}, or save it with sae_lens."
        raise unsupported(folder / DICTIONARY_CONFIG, f"{name} is not read.", remedy)
    file = folder / DICTIONARY_WEIGHTS
    raw = read_weights(file)
    names = {ours: theirs for theirs, ours in kind.names.items()}
    transposed = [ours for ours, theirs in names.items() if theirs.endswith("coder.weight")]
    weights = named_tensors(raw, names, file, transposed=transposed, spread=("threshold",))
    if name == "AutoEncoder":
        weights = _with_unit_decoder(weights)
    try:
        k = (int(raw["k"]) if "k" in raw else trainer.k) if "TopK" in name else None
    except (ValueError, RuntimeError) as error:
        raise corrupt(file, f"Its k is no single number: {error}.") from error
    if "TopK" in name and k is None:
        raise corrupt(folder / DICTIONARY_CONFIG, "trainer.k: it does not say how many latents are active on a token.")
    metadata = {
        "hook_name": _hook_name(trainer, config.buffer),
        "model_name": trainer.lm_name,
        "l0": _mean_l0(folder, trainer, k),
        "converted_from": f"dictionary_learning {name}, {file.name} of SHA-256 {file_digest(file)}",
    }
    is_topk = kind.architecture == "topk"
    return sae_contents(
        kind.architecture, weights, metadata, subtracts_b_dec=kind.subtracts_b_dec, k=k if is_topk else None
    )


def _with_unit_decoder(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same SAE with decoder rows of length 1, as `AutoEncoder.from_pretrained` makes it.

    Only the scale of the activations depends on it.
    """
    norms = weights["W_dec"].norm(dim=1)
    if torch.allclose(norms, torch.ones_like(norms)):
        return weights
    norms = norms.clamp(min=1e-8)  # a latent without a direction stays one
    return weights | {
        "W_enc": weights["W_enc"] * norms,
        "b_enc": weights["b_enc"] * norms,
        "W_dec": weights["W_dec"] / norms[:, None],
    }


def _hook_name(trainer: DictionaryTrainer, buffer: DictionaryBuffer | None) -> str | None:
    """Where it reads, as far as its config says: the output of block `layer`, unless a name or the buffer says else."""
    layer, name = trainer.layer, trainer.submodule_name
    if not isinstance(layer, int):
        return None
    if name is not None and "resid_p" not in name:
        return name  # a place of its own, such as mlp_out_layer_3, which is not the residual stream
    is_input = "resid_pre" in name if name else buffer is not None and buffer.io == "in"
    return f"blocks.{layer}.hook_resid_{'pre' if is_input else 'post'}"


def _mean_l0(folder: Path, trainer: DictionaryTrainer, k: int | None) -> float | None:
    """L0 as measured by its makers, or what training aimed at."""
    file = folder / _EVALUATION
    measured = read_as(DictionaryEvaluation, file).l0 if file.is_file() else None
    found = next((value for value in (measured, k, trainer.target_l0) if value is not None), None)
    return None if found is None else float(found)
