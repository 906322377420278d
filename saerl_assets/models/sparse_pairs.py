"""Encoding and decoding of chosen pairs of token and latent, with gradients that touch only those.

Belongs here: what every sparse training step computes with. Does not belong here: which pairs are chosen and what the
loss is (sparse_training).

Sums have a fixed order, so that a run can be repeated to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass
class ChosenPairs:
    """The pairs of token and latent that a step computes with, ascending by token."""

    token: torch.Tensor
    """int64 [n_chosen]."""
    latent: torch.Tensor
    """int64 [n_chosen]."""
    pre: torch.Tensor
    """Their pre-activations, float [n_chosen], with gradients."""
    scores: torch.Tensor
    """What they were chosen by, of every pair: float [n_tokens, n_latents], without gradients."""


class ComputesWithPairs:
    """Mixin before a training SAE of `sae_lens`: the pairs that a step computes with, and decoding them."""

    def encode_chosen(self: Any, states: torch.Tensor, norms: torch.Tensor | None) -> ChosenPairs:
        """Chooses pairs by their pre-activation, times the latent's decoder norm where norms are given."""
        shift = self.b_dec if self.cfg.apply_b_dec_to_input else torch.zeros_like(self.b_dec)
        with torch.no_grad():
            centred = states - shift
            pre = torch.addmm(self.b_enc, centred, self.W_enc)
            scores = pre if norms is None else pre * norms
            chosen = self._choose(scores)
            token, latent = chosen // scores.shape[1], chosen % scores.shape[1]
            chosen_pre = pre.flatten()[chosen]
        chosen_pre = _EncodeChosen.apply(  # type: ignore[no-untyped-call]
            shift, self.W_enc, self.b_enc, centred, token, latent, chosen_pre
        )
        return ChosenPairs(token, latent, chosen_pre, scores)

    def _choose(self: Any, scores: torch.Tensor) -> torch.Tensor:
        """Ascending places in the flattened [n_tokens, n_latents] of what a step computes with."""
        raise NotImplementedError

    def decode_chosen(self: Any, chosen: ChosenPairs, acts: torch.Tensor, widths: list[int]) -> list[torch.Tensor]:
        """What the first so many latents make of each token, for each of the widths: [n_tokens, d_in] each."""
        out, decoded, start = self.b_dec, [], 0
        for width in widths:
            within = slice(None) if len(widths) == 1 else (chosen.latent >= start) & (chosen.latent < width)
            out = out + _bags(chosen.latent[within], acts[within], chosen.token[within], len(chosen.scores), self.W_dec)
            decoded.append(out)
            start = width
        return decoded


def pre_activations_of(
    sae: Any,  # noqa: ANN401 - sae_lens's own class
    states: torch.Tensor,
    latents: torch.Tensor,
) -> torch.Tensor:
    """Pre-activations of some latents, with gradients: [n_tokens, number of them]."""
    shift = sae.b_dec if sae.cfg.apply_b_dec_to_input else 0.0
    pre: torch.Tensor = (states - shift) @ sae.W_enc[:, latents] + sae.b_enc[latents]
    return pre


def of_latents(values: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    """A value of each latent [n_latents], for each chosen pair: [n_chosen], with gradients."""
    chosen: torch.Tensor = _OfLatents.apply(values, latent)  # type: ignore[no-untyped-call]
    return chosen


def segment_sums(values: torch.Tensor, segment: torch.Tensor, n_segments: int) -> torch.Tensor:
    """Sums of values by ascending segment, [n_segments]."""
    counts = torch.bincount(segment, minlength=n_segments)
    return torch.segment_reduce(values, "sum", lengths=counts, initial=0.0)


class _EncodeChosen(torch.autograd.Function):
    """Pre-activations of the chosen pairs, computed by the caller; their gradients touch only those pairs."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's own
        _shift: torch.Tensor,
        w_enc: torch.Tensor,
        _b_enc: torch.Tensor,
        centred: torch.Tensor,
        token: torch.Tensor,
        latent: torch.Tensor,
        chosen_pre: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(w_enc, centred, token, latent)
        return chosen_pre

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        w_enc, centred, token, latent = ctx.saved_tensors
        n_latents = w_enc.shape[1]
        latent, order = latent.sort(stable=True)
        gradient = gradient[order]
        d_w_enc = _bags(token[order], gradient, latent, n_latents, centred)
        d_b_enc = segment_sums(gradient, latent, n_latents)
        return -(w_enc @ d_b_enc), d_w_enc.T.contiguous(), d_b_enc, None, None, None, None


class _OfLatents(torch.autograd.Function):
    """Indexing whose gradient is summed in a fixed order."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        ctx.save_for_backward(latent)
        ctx.n_latents = len(values)
        return values[latent]

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN401
        latent, order = ctx.saved_tensors[0].sort(stable=True)
        return segment_sums(gradient[order], latent, ctx.n_latents), None


def _bags(
    rows: torch.Tensor, weights: torch.Tensor, bag: torch.Tensor, n_bags: int, table: torch.Tensor
) -> torch.Tensor:
    """For each bag the weighted sum of the rows of `table` in it, [n_bags, width]; `bag` ascends."""
    counts = torch.bincount(bag, minlength=n_bags)
    return torch.nn.functional.embedding_bag(
        rows, table, counts.cumsum(0) - counts, per_sample_weights=weights, mode="sum"
    )
