"""Sparse autoencoders: loading them, encoding and reconstructing activations.

Belongs here: `path:` and `saelens:` sources, the encoder. Does not belong here: training, pooling.

A SAELens directory with a plain TopK SAE is read without `sae_lens`, whose import costs eight seconds; every other
architecture is `sae_lens`'s own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from saerl_assets.domain.errors import SaerlError

CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "sae_weights.safetensors"


@dataclass(frozen=True)
class SparseActivations:
    """Active latents of a batch of tokens, ascending by token and latent.

    `token` int64 [nnz], `latent` int64 [nnz], `value` float32 [nnz], all above 0.
    """

    token: torch.Tensor
    latent: torch.Tensor
    value: torch.Tensor


class Encoder:
    """One SAE in memory."""

    architecture: str
    d_in: int
    n_latents: int
    k: int | None

    def encode(self, activations: torch.Tensor) -> SparseActivations:
        """Active latents of activations [n_tokens, d_in]."""
        raise NotImplementedError

    def reconstruct(self, activations: torch.Tensor) -> torch.Tensor:
        """What the SAE makes of activations: [n_tokens, d_in], float32."""
        raise NotImplementedError


class TopKEncoder(Encoder):
    """TopK (Gao et al. 2024, arXiv 2406.04093): the k largest pre-activations of a token, those above 0."""

    architecture = "topk"

    def __init__(self, config: dict[str, Any], weights: dict[str, torch.Tensor], device: str) -> None:
        self.k: int = int(config["k"])
        self._w_enc, self._w_dec = weights["W_enc"].float().to(device), weights["W_dec"].float().to(device)
        self._b_enc, self._b_dec = weights["b_enc"].float().to(device), weights["b_dec"].float().to(device)
        self.d_in, self.n_latents = self._w_enc.shape
        self._norms = self._w_dec.norm(dim=-1) if config.get("rescale_acts_by_decoder_norm") else None
        shift = self._b_dec @ self._w_enc if config.get("apply_b_dec_to_input", True) else 0.0
        self._bias = self._b_enc - shift

    def encode(self, activations: torch.Tensor) -> SparseActivations:
        """See `Encoder.encode`."""
        values, latents = self._top(activations)
        active = values > 0
        token = torch.arange(len(values), device=values.device)[:, None].expand_as(latents)
        return SparseActivations(token[active], latents[active], values[active])

    def reconstruct(self, activations: torch.Tensor) -> torch.Tensor:
        """See `Encoder.reconstruct`."""
        values, latents = self._top(activations)
        if self._norms is not None:
            values = values / self._norms[latents]
        out = torch.nn.functional.embedding_bag(latents, self._w_dec, per_sample_weights=values, mode="sum")
        return out + self._b_dec

    def _top(self, activations: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pre = torch.addmm(self._bias, activations.float(), self._w_enc)
        if self._norms is not None:
            pre = pre * self._norms
        values, latents = pre.topk(self.k, dim=-1, sorted=False)
        latents, order = latents.sort(dim=-1)
        return values.gather(-1, order).relu(), latents


class SaeLensEncoder(Encoder):
    """Any architecture that `sae_lens` has."""

    def __init__(self, sae: Any) -> None:  # noqa: ANN401 - sae_lens's own class
        self._sae = sae.eval()
        self.architecture = str(sae.cfg.architecture())
        self.d_in, self.n_latents = int(sae.cfg.d_in), int(sae.cfg.d_sae)
        k = getattr(sae.cfg, "k", None)
        self.k = None if k is None else int(k)

    @torch.inference_mode()
    def encode(self, activations: torch.Tensor) -> SparseActivations:
        """See `Encoder.encode`."""
        found = self._sae.encode(activations.float())
        dense = found.to_dense() if found.is_sparse else found
        token, latent = torch.nonzero(dense > 0, as_tuple=True)
        return SparseActivations(token, latent, dense[token, latent].float())

    @torch.inference_mode()
    def reconstruct(self, activations: torch.Tensor) -> torch.Tensor:
        """See `Encoder.reconstruct`."""
        out: torch.Tensor = self._sae.decode(self._sae.encode(activations.float()))
        return out


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
        plain = config.get("normalize_activations", "none") == "none" and not _is_reshaped(config)
        if config.get("architecture") == "topk" and plain:
            return TopKEncoder(config, load_file(weights_file), device)
        from sae_lens import SAE

        return SaeLensEncoder(SAE.load_from_disk(folder, device=device))
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError) as error:
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
        sae.save_model(into)
        return into
    remedy = "Write train, path:DIR or saelens:release/sae_id."
    raise SaerlError("unknown_sae_source", f"{source!r} names no SAE.", where="sae.source", remedy=remedy)


def _is_reshaped(config: dict[str, Any]) -> bool:
    return config.get("reshape_activations", "none") not in (None, "none")
