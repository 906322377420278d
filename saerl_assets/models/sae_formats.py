"""SAEs in other layouts than SAELens's, turned into SAELens directories.

Belongs here: recognising a layout by its files, and its conventions. Does not belong here: downloads (`sae_sources`),
encoders (`saes`).

`sae_lens` has converters of its own, but for files on disk only sparsify's, whose decoder is transposed and whose
`b_dec` is not subtracted where the decoder is normalised (6.54); sparsify itself always subtracts it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from saerl_assets.disk import file_digest
from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.sae_configs import SaeLensConfig, SparsifyConfig, SparsifyRun, check_sizes, checked, read_as
from saerl_assets.models.sae_dictionaries import DICTIONARY_CONFIG, DICTIONARY_WEIGHTS, from_dictionary_learning
from saerl_assets.models.sae_files import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    SaeContents,
    corrupt,
    read_config,
    read_weights,
    sae_contents,
    unsupported,
)
from saerl_assets.models.sae_tensors import LINEAR, named_tensors

SPARSIFY_WEIGHTS = "sae.safetensors"
KNOWN_FORMATS = (
    "Give a SAELens directory (cfg.json, sae_weights.safetensors), a sparsify directory (cfg.json, sae.safetensors), a "
    "dictionary_learning directory (config.json, ae.pt), or a Qwen-Scope file (layer0.sae.pt)."
)

_QWEN_FILES = "layer*.sae.pt"
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)[._](\d+)$")


def conversion(place: Path) -> Callable[[Path], None] | None:
    """How the SAE at a place becomes a SAELens directory; None for one that is read as it is.

    Args:
        place: A directory, or a file of Qwen-Scope.

    Returns:
        A function that writes the directory's files into a folder. It raises a SaerlError `sae_unsupported`,
        `sae_corrupt`, `sae_unsafe` or `sae_not_finite`.

    Raises:
        SaerlError: `sae_missing`, `sae_without_config`, `sae_corrupt`, `sae_unknown_format`.
    """
    if not place.exists():
        raise SaerlError("sae_missing", "There is no such SAE.", where=str(place), remedy=KNOWN_FORMATS)
    if convert := _converter(place):
        return lambda folder: convert(place).save(folder)
    if not (place / CONFIG_FILE).exists() and not (place / WEIGHTS_FILE).exists():
        problem = "It holds no SAE in a format that is known."
        raise SaerlError("sae_unknown_format", problem, where=str(place), remedy=KNOWN_FORMATS)
    architecture = read_config(place / CONFIG_FILE).get("architecture")
    if architecture == "abstopk":
        return lambda folder: in_two_directions(place).save(folder)
    if architecture in ("batchtopk", "matryoshka_batchtopk"):
        return lambda folder: _save_for_inference(place, folder)
    return None


def _converter(place: Path) -> Callable[[Path], SaeContents] | None:
    """What reads a place that is no SAELens directory."""
    if place.suffix == ".pt":
        return from_qwen_scope
    if (place / SPARSIFY_WEIGHTS).exists():
        return from_sparsify
    is_saelens = (place / CONFIG_FILE).exists() or (place / WEIGHTS_FILE).exists()
    if (place / DICTIONARY_WEIGHTS).exists() or ((place / DICTIONARY_CONFIG).exists() and not is_saelens):
        return from_dictionary_learning
    if found := sorted(place.glob(_QWEN_FILES)):
        problem = "It holds SAEs of Qwen-Scope, one file for each layer."
        remedy = f"Name one of the files: path:{place.name}/{found[0].name}."
        raise SaerlError("sae_unknown_format", problem, where=str(place), remedy=remedy)
    return None


def from_sparsify(folder: Path) -> SaeContents:
    """An SAE of EleutherAI's sparsify: the k largest of relu(W (x - b_dec) + b_enc).

    A folder is named after the module that it reads, `layers.5` for the output of block 5. Where an older one is
    signed, the k largest magnitudes count, whatever their sign.

    Source: https://github.com/EleutherAI/sparsify, `sparse_coder.py`.

    Raises:
        SaerlError: `sae_unsupported` for transcoders, skip connections and GroupMax; what `read_weights` raises.
    """
    config = read_as(SparsifyConfig, folder / CONFIG_FILE)
    file = folder / SPARSIFY_WEIGHTS
    raw = read_weights(file)
    if config.transcode or config.skip_connection or "W_skip" in raw:
        raise unsupported(folder, "It is a transcoder, which does not reconstruct what it reads.", "Use an SAE.")
    if config.activation != "topk":
        remedy = "Use one that was trained with activation = 'topk'."
        raise unsupported(folder, f"Its activation is {config.activation!r}.", remedy)
    names = {"W_enc": "encoder.weight", "W_dec": "W_dec", "b_enc": "encoder.bias", "b_dec": "b_dec"}
    weights = named_tensors(raw, names, file, transposed=("W_enc",))
    run, module = folder.parent, folder.name
    if re.fullmatch(r"seed\d+", module):
        run, module = run.parent, run.name
    block = _BLOCK.search(module)
    named = re.search(r"(?:layers|h|blocks)[._]\d+|embed", module)
    metadata = {
        "hook_name": f"blocks.{block[1]}.hook_resid_post" if block else module if named else None,
        "model_name": read_as(SparsifyRun, run / "config.json").model if (run / "config.json").is_file() else None,
        "converted_from": f"sparsify, {file.name} of SHA-256 {file_digest(file)}",
    }
    contents = sae_contents("topk", weights, metadata, subtracts_b_dec=True, k=config.k)
    return _doubled(contents) if config.signed else contents


def from_qwen_scope(file: Path) -> SaeContents:
    """A file of Qwen-Scope: the k largest of W x + b_enc, b_dec not subtracted.

    The file holds neither k nor the model: both are in the name of its repository, such as
    `SAE-Res-Qwen3-1.7B-Base-W32K-L0_50`, which is looked for in the folders above it.

    Source: https://huggingface.co/Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_50, and `sae_lens`'s `qwen_scope` converter.

    Raises:
        SaerlError: `sae_unknown_format`, `sae_without_k`; what `read_weights` raises.
    """
    raw = read_weights(file)
    if not set(LINEAR) <= set(raw) or raw["W_enc"].shape[:1] != raw["b_enc"].shape:
        problem = f"It is no Qwen-Scope file: it holds {', '.join(sorted(raw)[:6]) or 'no tensors'}."
        raise SaerlError("sae_unknown_format", problem, where=str(file), remedy=KNOWN_FORMATS)
    above = [match for folder in file.parents if (match := re.search(r"(?:SAE-Res-(.+)-W\d+K-)?L0_(\d+)", folder.name))]
    if not above:
        remedy = "Put it into a folder that has its repository's name, such as SAE-Res-Qwen3-1.7B-Base-W32K-L0_50."
        problem = "The file does not say how many latents are active on a token."
        raise SaerlError("sae_without_k", problem, where=str(file), remedy=remedy)
    model, k = above[0].groups()
    layer = re.search(r"layer(\d+)", file.name)
    metadata = {
        "hook_name": f"blocks.{layer[1]}.hook_resid_post" if layer else None,
        "model_name": f"Qwen/{model}" if model else None,
        "converted_from": f"Qwen-Scope, {file.name} of SHA-256 {file_digest(file)}",
    }
    weights = named_tensors(raw, {name: name for name in LINEAR}, file, transposed=("W_enc", "W_dec"))
    return sae_contents("topk", weights, metadata, subtracts_b_dec=False, k=int(k))


def in_two_directions(folder: Path) -> SaeContents:
    """An AbsTopK SAE (arXiv 2510.00404) as a TopK one with twice the latents.

    Its latents fire in both directions, and the two directions of one mean opposite things. Latent i is its positive
    direction, latent d_sae + i the negative one, so that every activation is above 0, maxima mean something, and
    nothing is lost: the k largest magnitudes are the k largest of both signs.

    Raises:
        SaerlError: What `read_config` and `read_weights` raise.
    """
    config, file = read_config(folder / CONFIG_FILE), folder / WEIGHTS_FILE
    told = checked(SaeLensConfig, config, folder / CONFIG_FILE)
    weights = named_tensors(read_weights(file), {name: name for name in LINEAR}, file)
    check_sizes(told, weights["W_dec"], folder / CONFIG_FILE)
    metadata = config.get("metadata") or {}
    converted = f"abstopk, {WEIGHTS_FILE} of SHA-256 {file_digest(file)}"
    config |= {"architecture": "topk", "metadata": metadata | {"converted_from": converted}}
    return _doubled(SaeContents(config, weights))


def _doubled(contents: SaeContents) -> SaeContents:
    """The same with every latent's opposite beside it."""
    weights = {
        **contents.weights,
        "W_enc": torch.cat([contents.weights["W_enc"], -contents.weights["W_enc"]], dim=1),
        "W_dec": torch.cat([contents.weights["W_dec"], -contents.weights["W_dec"]]),
        "b_enc": torch.cat([contents.weights["b_enc"], -contents.weights["b_enc"]]),
    }
    return SaeContents(contents.config | {"d_sae": len(weights["W_dec"])}, weights)


def _save_for_inference(place: Path, folder: Path) -> None:
    """A checkpoint of `sae_lens`'s training, whose own code turns it into the JumpReLU SAE that it stands for."""
    from sae_lens import TrainingSAE

    try:
        with warnings.catch_warnings():  # what sae_lens remarks on is checked here
            warnings.simplefilter("ignore")
            sae: Any = TrainingSAE.load_from_disk(place, device="cpu")
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise corrupt(place, f"It cannot be read: {error}.") from error
    sae.cfg.metadata.l0 = float(sae.cfg.k)
    sae.cfg.metadata.converted_from = f"{sae.cfg.architecture()}, a checkpoint of sae_lens"
    sae.save_inference_model(folder)
