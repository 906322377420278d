"""Sparse autoencoders in memory: loading them, encoding and reconstructing activations.

Belongs here: the encoder of a SAELens directory, whether it fits. Does not belong here: training, pooling, other
formats (`sae_formats`), fetching (`sae_sources`).

A directory with a plain standard, TopK or JumpReLU SAE is read without `sae_lens`, whose import costs eight seconds;
every other architecture is `sae_lens`'s own. On a processor the values are the same to the bit.
"""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.sae_architectures import check_supported
from saerl_assets.models.sae_configs import SaeLensConfig, SaeLensMetadata, check_sizes, checked
from saerl_assets.models.sae_files import CONFIG_FILE, WEIGHTS_FILE, corrupt, read_config, read_weights
from saerl_assets.models.sae_tensors import TENSORS, named_tensors

BLOCK_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 28, "mps": 1 << 26}
"""Pre-activations that are in memory at once, by kind of device: 64 MB on a processor, 1 GB on a GPU."""

_EXACT_IN_TF32 = (torch.bfloat16, torch.float16)
_LAYER_NORM_MODELS = re.compile(r"gpt-?2|gpt-?j|gpt-neo|pythia|opt-|bloom", re.IGNORECASE)
_RESIDUAL_STREAM = re.compile(
    r"(?:blocks|layers|h)\.(\d+)(?:\.(hook_resid_pre|hook_in|input|hook_resid_post|hook_out|output))?$"
)


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
    """One SAE in memory.

    Args:
        config: Its cfg.json.
        device: Where it computes.
    """

    d_in: int
    n_latents: int

    def __init__(self, config: Mapping[str, Any], device: str) -> None:
        told = SaeLensConfig.model_validate(config)
        metadata = told.metadata or SaeLensMetadata()
        self.device = torch.device(device)
        self.architecture = told.architecture
        self.k = told.k
        """Latents that are active on a token, where the architecture fixes that."""
        self.l0 = metadata.l0
        """Latents that are active on a token on average, as its makers report."""
        self.hook_name = metadata.hook_name
        """Where in a model its activations come from, if its makers say so."""
        self.model_name = metadata.model_name
        """The model that it was trained on, if its makers say so."""
        self.prepend_bos = metadata.prepend_bos
        """Whether the texts that it was trained on began with a beginning-of-sequence token."""
        self.first_position = _first_position(metadata.seqpos_slice)
        """The first position in a text that it was trained on; what is before it does not count."""
        self.lacks_special_tokens = bool(metadata.exclude_special_tokens)
        """Whether its makers left special tokens out of its training."""
        processing = metadata.model_from_pretrained_kwargs or {}
        # TransformerLens takes the mean over the dimensions out of all that writes into the residual stream, in models
        # with LayerNorm, which do not see it
        self._is_centred = bool(processing.get("center_writing_weights")) and bool(
            _LAYER_NORM_MODELS.search(self.model_name or "")
        )

    @torch.inference_mode()
    def encode(self, activations: torch.Tensor) -> SparseActivations:
        """Active latents of activations [n_tokens, d_in].

        On a GPU, activations in bfloat16 or float16 are multiplied in TF32, which holds them exactly.
        """
        parts, start = [], 0
        for block, _ in self._blocks(activations):
            part = self._encode(block)
            parts.append(SparseActivations(part.token + start if start else part.token, part.latent, part.value))
            start += len(block)
        if len(parts) == 1:
            return parts[0]
        columns = ([part.token for part in parts], [part.latent for part in parts], [part.value for part in parts])
        return SparseActivations(*(torch.cat(column) for column in columns))

    @torch.inference_mode()
    def reconstruct(self, activations: torch.Tensor) -> torch.Tensor:
        """What the SAE makes of activations [n_tokens, d_in]: the same shape, float32."""
        parts = [self._reconstruct(block) + mean for block, mean in self._blocks(activations)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _blocks(self, activations: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor | float]]:
        """Blocks of tokens as the SAE saw them in training, and what was taken from them that it never saw."""
        n_tokens = max(BLOCK_ELEMENTS[self.device.type] // self.n_latents, 1)
        for block in torch.split(activations.to(self.device), n_tokens):
            if self._is_centred:
                mean = block.float().mean(dim=-1, keepdim=True)
                yield block - mean, mean
            else:
                yield block, 0.0

    @abstractmethod
    def _encode(self, states: torch.Tensor) -> SparseActivations: ...

    @abstractmethod
    def _reconstruct(self, states: torch.Tensor) -> torch.Tensor: ...


class PlainEncoder(Encoder):
    """A linear encoder and decoder around a choice of latents."""

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, torch.Tensor], device: str) -> None:
        super().__init__(config, device)
        self._w_enc, self._w_dec = weights["W_enc"].float().to(device), weights["W_dec"].float().to(device)
        self._b_enc, self._b_dec = weights["b_enc"].float().to(device), weights["b_dec"].float().to(device)
        self.n_latents, self.d_in = self._w_dec.shape
        self._shift = self._b_dec if config.get("apply_b_dec_to_input", True) else torch.zeros_like(self._b_dec)

    def _pre_activations(self, states: torch.Tensor) -> torch.Tensor:
        """Linear part of the encoder, float32 [n_tokens, n_latents]; what it returns may be changed in place."""
        if states.is_cuda and states.dtype in _EXACT_IN_TF32:
            with _tf32():
                return torch.addmm(self._bias_of_unshifted, states.float(), self._w_enc)
        return ((states.float() - self._shift) @ self._w_enc).add_(self._b_enc)

    @cached_property
    def _bias_of_unshifted(self) -> torch.Tensor:
        """The encoder's bias for states that nothing was subtracted from."""
        return self._b_enc - self._shift @ self._w_enc


class TopKEncoder(PlainEncoder):
    """TopK (Gao et al. 2024, arXiv 2406.04093): the k largest pre-activations of a token, those above 0."""

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, torch.Tensor], device: str) -> None:
        super().__init__(config, weights, device)
        if config.get("k") is None:
            message = f"{CONFIG_FILE} does not say k"
            raise ValueError(message)
        self.k: int = int(config["k"])
        if not 0 < self.k <= self.n_latents:
            message = f"k is {self.k} of {self.n_latents} latents"
            raise ValueError(message)
        self._norms = self._w_dec.norm(dim=-1) if config.get("rescale_acts_by_decoder_norm") else None

    def _encode(self, states: torch.Tensor) -> SparseActivations:
        values, latents = (found.flatten() for found in self._top(states))
        active = (values > 0).nonzero().flatten()
        return SparseActivations(active // self.k, latents[active], values[active])

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
            pre *= self._norms
        values, latents = pre.topk(self.k, dim=-1, sorted=False)
        latents, order = latents.sort(dim=-1)
        return values.gather(-1, order).relu(), latents


class JumpReluEncoder(PlainEncoder):
    """JumpReLU (Rajamanoharan et al. 2024, arXiv 2407.14435): pre-activations above a threshold of their latent.

    BatchTopK and Matryoshka SAEs are saved as such. A standard SAE has no threshold but 0.
    """

    def __init__(self, config: Mapping[str, Any], weights: Mapping[str, torch.Tensor], device: str) -> None:
        super().__init__(config, weights, device)
        self._threshold = weights["threshold"].float().to(device) if "threshold" in weights else None

    def _encode(self, states: torch.Tensor) -> SparseActivations:
        return _nonzero(self._latents(states))

    def _reconstruct(self, states: torch.Tensor) -> torch.Tensor:
        return self._latents(states) @ self._w_dec + self._b_dec

    def _latents(self, states: torch.Tensor) -> torch.Tensor:
        pre = self._pre_activations(states)
        return pre.relu_() if self._threshold is None else pre.relu() * (pre > self._threshold)


class SaeLensEncoder(Encoder):
    """Any other architecture or normalisation that `sae_lens` has."""

    def __init__(self, sae: Any, device: str) -> None:  # noqa: ANN401 - sae_lens's own class
        super().__init__(sae.cfg.to_dict(), device)
        self._sae = sae.eval()
        self.d_in, self.n_latents = int(sae.cfg.d_in), int(sae.cfg.d_sae)

    def _encode(self, states: torch.Tensor) -> SparseActivations:
        found = self._sae.encode(states)
        return _nonzero(found.to_dense() if found.is_sparse else found)

    def _reconstruct(self, states: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self._sae.decode(self._sae.encode(states))
        return out.float()


def load_encoder(folder: Path, device: str) -> Encoder:
    """Loads a SAELens directory, also one from before `sae_lens` 6.

    Raises:
        SaerlError: `sae_missing`, `sae_without_config`, `sae_without_weights`, `sae_corrupt`, `sae_unsafe`,
            `sae_not_finite`, `sae_unsupported`.
    """
    if not folder.is_dir():
        remedy = "Give a SAELens directory, with cfg.json and sae_weights.safetensors."
        raise SaerlError("sae_missing", "There is no such SAE.", where=str(folder), remedy=remedy)
    config = read_config(folder / CONFIG_FILE)
    told = checked(SaeLensConfig, config, folder / CONFIG_FILE)
    check_supported(config, folder)
    weights = read_weights(folder / WEIGHTS_FILE)
    named = {name: name for name in TENSORS if name in weights or name == "W_dec"}
    check_sizes(told, named_tensors(weights, named, folder / WEIGHTS_FILE)["W_dec"], folder / CONFIG_FILE)
    try:
        if plain := _plain_kind(config, weights):
            return plain(config, weights, device)
        from sae_lens import SAE

        with warnings.catch_warnings():  # it remarks on what Encoder takes care of
            warnings.simplefilter("ignore")
            return SaeLensEncoder(SAE.load_from_disk(folder, device=device), device)
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
        raise corrupt(folder, f"It cannot be read: {error}.") from error


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

    What enters block n is what left block n - 1.

    Raises:
        SaerlError: `sae_wrong_layer`, `sae_wrong_place` for one that does not read the residual stream after a block.
    """
    if encoder.hook_name is None:
        return
    match = _RESIDUAL_STREAM.search(encoder.hook_name)
    after_block = int(match[1]) - (match[2] in ("hook_resid_pre", "hook_in", "input")) if match else -1
    if after_block < 0:
        remedy = "Use an SAE of the residual stream after a block."
        raise SaerlError("sae_wrong_place", f"It reads {encoder.hook_name!r}.", where=where, remedy=remedy)
    if after_block != layer:
        remedy = f"Set reader.layers to {after_block} for it, or use an SAE of layer {layer}."
        problem = f"It reads {encoder.hook_name!r}, the output of block {after_block}, not of block {layer}."
        raise SaerlError("sae_wrong_layer", problem, where=where, remedy=remedy)


def _plain_kind(
    config: Mapping[str, Any], weights: Mapping[str, torch.Tensor]
) -> type[TopKEncoder | JumpReluEncoder] | None:
    """The encoder for an SAE that needs nothing of `sae_lens`: no normalisation, no reshaping, no further weights."""
    usual = {"W_enc", "W_dec", "b_enc", "b_dec"}
    version = str((config.get("metadata") or {}).get("sae_lens_version") or "0")
    if int(version.partition(".")[0]) < 6:  # sae_lens knows what its older configs leave out
        return None
    if config.get("normalize_activations", "none") != "none":
        return None
    if config.get("reshape_activations") not in (None, "none"):
        return None
    if config.get("dtype", "float32") not in ("float32", "torch.float32"):
        return None
    kinds: dict[str, tuple[type[TopKEncoder | JumpReluEncoder], set[str]]] = {
        "topk": (TopKEncoder, usual),
        "standard": (JumpReluEncoder, usual),
        "jumprelu": (JumpReluEncoder, usual | {"threshold"}),
    }
    kind, names = kinds.get(str(config.get("architecture")), (None, usual))
    return kind if set(weights) == names else None


def _first_position(limits: tuple[int | None, ...] | None) -> int:
    """Where a slice begins that is given as `sae_lens` has it: (end,), (begin, end) or (begin, end, step)."""
    begin = slice(*limits).start if limits else None
    return max(int(begin or 0), 0)


def _nonzero(latents: torch.Tensor) -> SparseActivations:
    """The values above 0 of a dense array [n_tokens, n_latents]."""
    token, latent = torch.nonzero(latents > 0, as_tuple=True)
    return SparseActivations(token, latent, latents[token, latent].float())


@contextmanager
def _tf32() -> Iterator[None]:
    """Matrix products in TF32: factors with 10 bits of mantissa, sums in float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
