"""`sae_lens`'s TopK training SAEs with a training step that computes only with active latents.

Belongs here: the step's arithmetic. Does not belong here: what the loss is, which is `sae_lens`'s; the loop
around it (sae_training). Importing this module imports `sae_lens`, which takes seconds.

Of 4,096 latents 32 are active on a token, yet the step of `TopKTrainingSAE` multiplies with all of them six
times: once forward and once backward for either weight, and once for each bias. Here one dense product is
left, the one that finds out which latents are active; on a processor a step is six times as fast. Loss and
gradients are the same up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput

Chosen = tuple[torch.Tensor, torch.Tensor]
"""Active pairs of (token, latent), int64 [n_active] each, ascending by token."""


class _SparseStep:
    """Mixin before a TopK training SAE of `sae_lens`: replaces its dense forward pass."""

    def training_forward_pass(self: Any, step_input: TrainStepInput) -> TrainStepOutput:
        """One step's outputs and losses, as `TrainingSAE.training_forward_pass` defines them.

        Args:
            step_input: Activations [n_tokens, d_in] and which latents are dead.
        """
        states = step_input.sae_in
        with torch.no_grad():
            centred = states - self.b_dec if self.cfg.apply_b_dec_to_input else states
            pre = torch.addmm(self.b_enc, centred, self.W_enc)
            norms = self.W_dec.norm(dim=-1) if self.cfg.rescale_acts_by_decoder_norm else torch.ones_like(self.b_enc)
            scores = pre * norms
            token, latent = self._choose(scores)
            latent_acts = torch.zeros_like(scores)
            latent_acts[token, latent] = scores[token, latent].relu()
        shift = self.b_dec if self.cfg.apply_b_dec_to_input else torch.zeros_like(self.b_dec)
        chosen_pre = _EncodeChosen.apply(  # type: ignore[no-untyped-call]
            shift, self.W_enc, self.b_enc, centred, token, latent, pre[token, latent]
        )
        # the decoder norm scales an activation up for choosing it and down again for decoding, so it cancels
        # here
        out = _bags(latent, chosen_pre.relu(), token, len(states), self.W_dec) + self.b_dec
        losses = {"mse_loss": (out - states).pow(2).sum(dim=-1).mean()}
        losses["auxiliary_reconstruction_loss"] = self._auxiliary_loss(step_input, out, norms)
        return TrainStepOutput(
            sae_in=states,
            sae_out=out,
            feature_acts=latent_acts,
            hidden_pre=scores,
            loss=losses["mse_loss"] + losses["auxiliary_reconstruction_loss"],
            losses=losses,
        )

    def _choose(self: Any, scores: torch.Tensor) -> Chosen:
        raise NotImplementedError

    def _auxiliary_loss(self: Any, step_input: TrainStepInput, out: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
        """What the strongest dead latents leave of the residual when they reconstruct it.

        As `TopKTrainingSAE.calculate_topk_aux_loss` (Gao et al. 2024, arXiv 2406.04093, appendix A.2), but
        computed with the dead latents alone.
        """
        mask = step_input.dead_neuron_mask
        dead = mask.nonzero().flatten() if mask is not None else torch.zeros(0, dtype=torch.long)
        if len(dead) == 0 or self.cfg.aux_loss_coefficient == 0:
            return out.new_zeros(())
        states = step_input.sae_in
        residual = (states - out).detach()
        shift = self.b_dec if self.cfg.apply_b_dec_to_input else 0.0
        pre = (states - shift) @ self.W_enc[:, dead] + self.b_enc[dead]
        n_strongest = min(states.shape[-1] // 2, len(dead))
        if n_strongest < len(dead):
            strongest = (pre.detach() * norms[dead]).topk(n_strongest, dim=-1, sorted=False).indices
            pre = torch.zeros_like(pre).scatter(-1, strongest, pre.gather(-1, strongest))
        loss = (pre @ self.W_dec[dead] - residual).pow(2).sum(dim=-1).mean()
        share = min(len(dead) / (states.shape[-1] // 2), 1.0)
        weighted: torch.Tensor = self.cfg.aux_loss_coefficient * share * loss
        return weighted


class SparseTopKTrainingSAE(_SparseStep, TopKTrainingSAE):  # type: ignore[misc]
    """TopK (Gao et al. 2024, arXiv 2406.04093): k latents on every token."""

    def _choose(self, scores: torch.Tensor) -> Chosen:
        latent = scores.topk(self.cfg.k, dim=-1, sorted=False).indices
        token = torch.arange(len(scores), device=scores.device).repeat_interleave(self.cfg.k)
        return token, latent.flatten()


class SparseBatchTopKTrainingSAE(_SparseStep, BatchTopKTrainingSAE):  # type: ignore[misc]
    """BatchTopK (Bussmann et al. 2024, arXiv 2412.06410): k latents a token on average over the batch."""

    def _choose(self, scores: torch.Tensor) -> Chosen:
        flat = scores.flatten().topk(int(self.cfg.k * len(scores)), sorted=False).indices.sort().values
        return flat // scores.shape[1], flat % scores.shape[1]

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """See `_SparseStep`; also follows the threshold that takes the batch's place at inference."""
        output = _SparseStep.training_forward_pass(self, step_input)
        self.update_topk_threshold(output.feature_acts)
        return output


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
        # a fixed order of summation, so that a run can be repeated to the bit
        latent, order = latent.sort(stable=True)
        gradient = gradient[order]
        d_w_enc = _bags(token[order], gradient, latent, n_latents, centred)
        d_b_enc = _segment_sums(gradient, latent, n_latents)
        return -(w_enc @ d_b_enc), d_w_enc.T.contiguous(), d_b_enc, None, None, None, None


def _bags(
    rows: torch.Tensor, weights: torch.Tensor, bag: torch.Tensor, n_bags: int, table: torch.Tensor
) -> torch.Tensor:
    """For each bag the weighted sum of the rows of `table` in it, [n_bags, width]; `bag` ascends."""
    counts = torch.bincount(bag, minlength=n_bags)
    return torch.nn.functional.embedding_bag(
        rows, table, counts.cumsum(0) - counts, per_sample_weights=weights, mode="sum"
    )


def _segment_sums(values: torch.Tensor, segment: torch.Tensor, n_segments: int) -> torch.Tensor:
    """Sums of values by ascending segment, [n_segments]."""
    counts = torch.bincount(segment, minlength=n_segments)
    return torch.segment_reduce(values, "sum", lengths=counts, initial=0.0)


SPARSE_KINDS: dict[str, tuple[Any, Any]] = {
    "topk": (SparseTopKTrainingSAE, TopKTrainingSAEConfig),
    "batchtopk": (SparseBatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
}
"""By architecture the class with the sparse step and its configuration."""

DENSE_KINDS: dict[str, tuple[Any, Any]] = {
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
}
"""The same from `sae_lens`, for devices without the operations that the sparse step needs."""
