"""How well an SAE fits activations, and the model that they come from.

Belongs here: the figures. Does not belong here: the verdict, which is the domain's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from saerl_assets.domain.progress import Progress, silent
from saerl_assets.domain.sae_health import SpliceLoss
from saerl_assets.models.saes import Encoder
from saerl_assets.models.texts import Shard, Text, batches
from saerl_assets.models.whole_model import WholeModel


@dataclass(frozen=True)
class Fit:
    """Figures over a sample of tokens, attention sinks left out."""

    explained_variance: float
    l0: float
    n_tokens: int
    n_sink_tokens: int
    fired: torch.Tensor
    """Which latents are active on any of the tokens, bool [n_latents], on the processor."""


@torch.inference_mode()
def measure_fit(encoder: Encoder, activations: Iterable[torch.Tensor], sink_threshold: float) -> Fit:
    """Explained variance and L0 of an encoder.

    Explained variance is 1 - sum |x - x'|^2 / sum |x - mean(x)|^2 over all tokens and dimensions.

    Args:
        encoder: The SAE.
        activations: Blocks [n_tokens, d_in].
        sink_threshold: Norm above which a token is left out.
    """
    residual = squares = 0.0
    total = torch.zeros(encoder.d_in, dtype=torch.float64)
    fired = torch.zeros(encoder.n_latents, dtype=torch.bool)
    n_tokens = n_sinks = n_active = 0
    for block in activations:
        kept = _without_sinks(block, sink_threshold)
        n_sinks += len(block) - len(kept)
        if not len(kept):
            continue
        sparse = encoder.encode(kept)
        fired[sparse.latent.cpu()] = True
        n_tokens += len(kept)
        n_active += len(sparse.value)
        # sums in float64, on the processor: not every device has them
        residual += float((kept.to(encoder.device) - encoder.reconstruct(kept)).cpu().double().pow(2).sum())
        exact = kept.cpu().double()
        squares += float(exact.pow(2).sum())
        total += exact.sum(dim=0)
    if n_tokens == 0:
        return Fit(0.0, 0.0, 0, n_sinks, fired)
    spread = squares - float(total.pow(2).sum()) / n_tokens
    return Fit(1.0 - residual / max(spread, 1e-12), n_active / n_tokens, n_tokens, n_sinks, fired)


@torch.inference_mode()
def find_fired(
    encoder: Encoder, activations: Iterable[torch.Tensor], sink_threshold: float
) -> tuple[torch.Tensor, int]:
    """Which latents are active on any token, bool [n_latents] on the processor, and over how many tokens."""
    fired, n_tokens = torch.zeros(encoder.n_latents, dtype=torch.bool), 0
    for block in activations:
        kept = _without_sinks(block, sink_threshold)
        fired[encoder.encode(kept).latent.cpu()] = True
        n_tokens += len(kept)
    return fired, n_tokens


@torch.inference_mode()
def measure_layer_profile(
    model: WholeModel, encoder: Encoder, texts: Sequence[Text], *, sink_multiple: float, token_budget: int
) -> list[float]:
    """Explained variance of an encoder at every block of the model, on the same tokens.

    It is largest at the layer that the SAE was trained on, so it tells an SAE of another layer from a poor one. Sinks
    are those above `sink_multiple` times the median norm of the block in question.
    """
    found: list[list[torch.Tensor]] = [[] for _ in range(model.n_blocks)]
    for batch in batches(texts, token_budget):
        ids = [text.token_ids for text in batch]
        for block, states in enumerate(model.states(ids, encoder.first_position)):
            found[block].append(states)
    profile = []
    for parts in found:
        states = torch.cat(parts).float()
        threshold = float(states.norm(dim=-1).median()) * sink_multiple
        profile.append(measure_fit(encoder, [states], threshold).explained_variance)
    return profile


@torch.inference_mode()
def measure_splice_loss(
    model: WholeModel,
    encoder: Encoder,
    texts: Sequence[Text],
    *,
    layer: int,
    sink_threshold: float,
    token_budget: int,
    progress: Progress = silent,
) -> SpliceLoss:
    """Next-token loss with a layer as it is, replaced by the SAE's reconstruction, and replaced by zeros.

    Attention sinks stay as they are in all three, and so do positions that the SAE was not trained on: it never sees
    them. Loss recovered is defined as in
    SAEBench (Karvonen et al. 2025, arXiv 2503.09532).

    Args:
        model: With its language-model head.
        encoder: The SAE.
        texts: Sorted by length; those of one token predict nothing.
        layer: Block whose output is replaced.
        sink_threshold: Norm above which a token is a sink.
        token_budget: Tokens in one forward pass, padding included.
        progress: Told after every batch.
    """
    changes: dict[str, Any] = {
        "clean": None,
        "spliced": partial(_replaced, encoder.reconstruct, sink_threshold),
        "ablated": partial(_replaced, torch.zeros_like, sink_threshold),
    }
    sums, n_tokens = dict.fromkeys(changes, 0.0), 0
    texts = [text for text in texts if len(text.token_ids) > 1]
    n_total, n_done = sum(len(text.token_ids) for text in texts), 0
    for batch in batches(texts, token_budget):
        ids = [text.token_ids for text in batch]
        for name, change in changes.items():
            logits, targets = model.predictions(ids, layer, change, encoder.first_position)
            sums[name] += float(cross_entropy(logits.float(), targets, reduction="sum"))
        n_tokens += sum(len(text) - 1 for text in ids)
        n_done += sum(map(len, ids))
        progress(n_done, n_total, unit="tokens", note="next-token loss")
    return SpliceLoss(**{name: total / n_tokens for name, total in sums.items()}, n_tokens=n_tokens)


def in_scope(shard: Shard, states: torch.Tensor, encoder: Encoder) -> torch.Tensor:
    """The tokens of a shard, [n_tokens, d_in], at positions that an SAE was trained on."""
    if not encoder.first_position:
        return states
    places = torch.cat([torch.arange(len(text.token_ids)) for text in shard.texts])
    return states[places >= encoder.first_position]


def _without_sinks(block: torch.Tensor, threshold: float) -> torch.Tensor:
    states = block.float()
    return states[states.norm(dim=-1) <= threshold]


def _replaced(make: Any, sink_threshold: float, states: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
    """States [n_tokens, d_model] with all but the sinks replaced."""
    is_kept = states.float().norm(dim=-1) <= sink_threshold
    changed = states.clone()
    changed[is_kept] = make(states[is_kept].float()).to(states.device, states.dtype)
    return changed
