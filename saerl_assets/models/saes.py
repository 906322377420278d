"""Sparse autoencoders in memory: loading them, encoding and reconstructing activations.

Belongs here: the encoder of a SAELens directory, whether it fits. Does not belong here: training, pooling, fetching.

A directory with a plain TopK or JumpReLU SAE is read without `sae_lens`, whose import costs eight seconds; every other
architecture is `sae_lens`'s own. Values are the same to the bit.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from saerl_assets.disk import new_folder
from saerl_assets.domain.errors import SaerlError

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"
BLOCK_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 28, "mps": 1 << 26}
"""Pre-activations that are in memory at once, by kind of device: 64 MB on a processor, 1 GB on a GPU."""


@dataclass(frozen=True)
class SparseActivations:
    """Active latents of a batch of tokens, ascending by token and latent.

    `token` int64 [n_active], `latent` int64 [n_active], `value` float32 [n_active], all above 0.
    """

    token: torch.Tensor
    latent: torch.Tensor
    value: torch.Tensor

    def to(self, device: torch.device) -> SparseActivations:
        """The same on another device."""
        return SparseActivations(self.token.to(device), self.latent.to(device), self.value.to(device))


class Encoder(ABC):
    """One SAE in memory."""

    architecture: str
    d_in: int
    n_latents: int
    k: int | None
    """Latents that are active on a token, where the architecture fixes that."""
    hook_name: str | None
    """Where in a model its activations come from, if its makers say so."""
    device: torch.device

    @torch.inference_mode()
    def encode(self, activations: torch.Tensor) -> SparseActivations:
        """Active latents of activations [n_tokens, d_in]."""
        parts, start = [], 0
        for block in self._blocks(activations):
            part = self._encode(block)
            parts.append(SparseActivations(part.token + start, part.latent, part.value))
            start += len(block)
        if len(parts) == 1:
            return parts[0]
        columns = ([part.token for part in parts], [part.latent for part in parts], [part.value for part in parts])
        return SparseActivations(*(torch.cat(column) for column in columns))

    @torch.inference_mode()
    def reconstruct(self, activations: torch.Tensor) -> torch.Tensor:
        """What the SAE makes of activations [n_tokens, d_in]: the same shape, float32."""
        return torch.cat([self._reconstruct(block) for block in self._blocks(activations)])

    def _blocks(self, activations: torch.Tensor) -> tuple[torch.Tensor, ...]:
        n_tokens = max(BLOCK_ELEMENTS[self.device.type] // self.n_latents, 1)
        return torch.split(activations.to(self.device).float(), n_tokens)

    @abstractmethod
    def _encode(self, states: torch.Tensor) -> SparseActivations: ...

    @abstractmethod
    def _reconstruct(self, states: torch.Tensor) -> torch.Tensor: ...


class PlainEncoder(Encoder):
    """A linear encoder and decoder around a choice of latents."""

    def __init__(self, config: dict[str, Any], weights: dict[str, torch.Tensor], device: str) -> None:
        self.device = torch.device(device)
        self._w_enc, self._w_dec = weights["W_enc"].float().to(device), weights["W_dec"].float().to(device)
        self._b_enc, self._b_dec = weights["b_enc"].float().to(device), weights["b_dec"].float().to(device)
        self.d_in, self.n_latents = self._w_enc.shape
        if self._w_dec.shape != (self.n_latents, self.d_in):
            message = f"W_enc is {tuple(self._w_enc.shape)}, W_dec {tuple(self._w_dec.shape)}"
            raise ValueError(message)
        self.hook_name = (config.get("metadata") or config).get("hook_name")
        self._shift = self._b_dec if config.get("apply_b_dec_to_input", True) else torch.zeros_like(self._b_dec)

    def _pre_activations(self, states: torch.Tensor) -> torch.Tensor:
        return (states - self._shift) @ self._w_enc + self._b_enc


class TopKEncoder(PlainEncoder):
    """TopK (Gao et al. 2024, arXiv 2406.04093): the k largest pre-activations of a token, those above 0."""

    architecture = "topk"

    def __init__(self, config: dict[str, Any], weights: dict[str, torch.Tensor], device: str) -> None:
        super().__init__(config, weights, device)
        self.k: int = int(config["k"])
        self._norms = self._w_dec.norm(dim=-1) if config.get("rescale_acts_by_decoder_norm") else None

    def _encode(self, states: torch.Tensor) -> SparseActivations:
        values, latents = self._top(states)
        active = values > 0
        token = torch.arange(len(values), device=values.device)[:, None].expand_as(latents)
        return SparseActivations(token[active], latents[active], values[active])

    def _reconstruct(self, states: torch.Tensor) -> torch.Tensor:
        values, latents = self._top(states)
        if self._norms is not None:
            values = values / self._norms[latents]
        out = torch.nn.functional.embedding_bag(latents, self._w_dec, per_sample_weights=values, mode="sum")
        return out + self._b_dec

    def _top(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The k largest values of each token and their latents, ascending by latent: [n_tokens, k] each."""
        pre = self._pre_activations(states)
        if self._norms is not None:
            pre = pre * self._norms
        values, latents = pre.topk(self.k, dim=-1, sorted=False)
        latents, order = latents.sort(dim=-1)
        return values.gather(-1, order).relu(), latents


class JumpReluEncoder(PlainEncoder):
    """JumpReLU (Rajamanoharan et al. 2024, arXiv 2407.14435): pre-activations above a threshold of their latent.

    BatchTopK SAEs are saved as such.
    """

    architecture = "jumprelu"
    k = None

    def __init__(self, config: dict[str, Any], weights: dict[str, torch.Tensor], device: str) -> None:
        super().__init__(config, weights, device)
        self._threshold = weights["threshold"].float().to(device)

    def _encode(self, states: torch.Tensor) -> SparseActivations:
        return _nonzero(self._latents(states))

    def _reconstruct(self, states: torch.Tensor) -> torch.Tensor:
        return self._latents(states) @ self._w_dec + self._b_dec

    def _latents(self, states: torch.Tensor) -> torch.Tensor:
        pre = self._pre_activations(states)
        return pre.relu() * (pre > self._threshold)


class SaeLensEncoder(Encoder):
    """Any architecture that `sae_lens` has."""

    def __init__(self, sae: Any) -> None:  # noqa: ANN401 - sae_lens's own class
        self._sae = sae.eval()
        self.architecture = str(sae.cfg.architecture())
        self.d_in, self.n_latents = int(sae.cfg.d_in), int(sae.cfg.d_sae)
        self.hook_name = sae.cfg.metadata.hook_name
        self.device = torch.device(sae.device)
        k = getattr(sae.cfg, "k", None)
        self.k = None if k is None else int(k)

    def _encode(self, states: torch.Tensor) -> SparseActivations:
        found = self._sae.encode(states)
        return _nonzero(found.to_dense() if found.is_sparse else found)

    def _reconstruct(self, states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self._sae.decode(self._sae.encode(states))
        return out.float()


def load_encoder(folder: Path, device: str) -> Encoder:
    """Loads a SAELens directory.

    Raises:
        SaerlError: `sae_missing`, `sae_without_config`, `sae_corrupt`.
    """
    config_file, weights_file = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    if not folder.is_dir():
        remedy = "Give a SAELens directory, with cfg.json and sae_weights.safetensors."
        raise SaerlError("sae_missing", "There is no such SAE.", where=str(folder), remedy=remedy)
    if not config_file.exists() or not weights_file.exists():
        missing = CONFIG_FILE if not config_file.exists() else WEIGHTS_FILE
        remedy = "Give a SAELens directory, as sae.save_model writes it; pickled weights (.pt) are not read."
        raise SaerlError("sae_without_config", f"It has no {missing}.", where=str(folder), remedy=remedy)
    try:
        config = json.loads(config_file.read_text())
        weights = load_file(weights_file)
        if plain := _plain_kind(config, weights):
            return plain(config, weights, device)
        from sae_lens import SAE

        return SaeLensEncoder(SAE.load_from_disk(folder, device=device))
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        remedy = "Copy or train it again."
        raise SaerlError("sae_corrupt", f"It cannot be read: {error}.", where=str(folder), remedy=remedy) from error


def check_width(encoder: Encoder, d_model: int, where: str) -> None:
    """Holds the SAE's input width against the model's.

    Raises:
        SaerlError: `sae_wrong_width`.
    """
    if encoder.d_in != d_model:
        remedy = "Use an SAE that was trained on this model, or sae.source = 'train'."
        problem = f"It reads activations of width {encoder.d_in}, the reader's have {d_model}."
        raise SaerlError("sae_wrong_width", problem, where=where, remedy=remedy)


def check_layer(encoder: Encoder, layer: int, where: str) -> None:
    """Holds the place that the SAE's makers name against the layer that is read; one that names none passes.

    Raises:
        SaerlError: `sae_wrong_layer`, `sae_wrong_place` for one that does not read the residual stream.
    """
    if encoder.hook_name is None:
        return
    hook = encoder.hook_name
    match = re.search(r"(?:blocks|layers|h)\.(\d+)(?:\.hook_resid_(pre|post))?$", hook)
    if match is None:
        remedy = "Use an SAE of the residual stream after a block."
        raise SaerlError("sae_wrong_place", f"It reads {hook!r}.", where=where, remedy=remedy)
    after_block = int(match[1]) - (match[2] == "pre")
    if after_block != layer:
        remedy = f"Set reader.layers to {after_block} for it, or use an SAE of layer {layer}."
        problem = f"It reads {hook!r}, the output of block {after_block}, not of block {layer}."
        raise SaerlError("sae_wrong_layer", problem, where=where, remedy=remedy)


def fetch_sae(source: str, *, folder: Path, into: Path) -> Path:
    """A SAELens directory for `path:DIR` or `saelens:release/sae_id`; the latter is saved to `into`.

    Raises:
        SaerlError: `unknown_sae_source`, `hub_failed`, or what is wrong with the directory.
    """
    scheme, _, rest = source.partition(":")
    if scheme == "path":
        place = (folder / Path(rest).expanduser()).resolve()
        load_encoder(place, "cpu")
        return place
    if scheme == "saelens" and "/" in rest:
        from sae_lens import SAE

        release, _, sae_id = rest.partition("/")
        try:
            sae: Any = SAE.from_pretrained(release, sae_id)
        except Exception as error:
            remedy = "Check release and id at the SAELens registry and the network, or use path:DIR."
            raise SaerlError("hub_failed", f"{error}", where=source, remedy=remedy) from error
        with new_folder(into) as place:
            sae.save_model(place)
        return into
    remedy = "Write train, path:DIR or saelens:release/sae_id."
    raise SaerlError("unknown_sae_source", f"{source!r} names no SAE.", where="sae.source", remedy=remedy)


def _plain_kind(
    config: dict[str, Any], weights: dict[str, torch.Tensor]
) -> Callable[[dict[str, Any], dict[str, torch.Tensor], str], PlainEncoder] | None:
    """The encoder for an SAE that needs nothing of `sae_lens`: no normalisation, no reshaping, no further weights."""
    usual = {"W_enc", "W_dec", "b_enc", "b_dec"}
    if config.get("normalize_activations", "none") != "none":
        return None
    if config.get("reshape_activations") not in (None, "none"):
        return None
    if config.get("dtype", "float32") not in ("float32", "torch.float32"):
        return None
    if config.get("architecture") == "topk" and "k" in config and set(weights) == usual:
        return TopKEncoder
    if config.get("architecture") == "jumprelu" and set(weights) == usual | {"threshold"}:
        return JumpReluEncoder
    return None


def _nonzero(latents: torch.Tensor) -> SparseActivations:
    """The values above 0 of a dense array [n_tokens, n_latents]."""
    token, latent = torch.nonzero(latents > 0, as_tuple=True)
    return SparseActivations(token, latent, latents[token, latent].float())
