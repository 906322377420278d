"""`sae_lens`'s training SAEs with a training step that computes only with active latents.

Belongs here: which latents a step computes with, and its losses. Does not belong here: what the losses are, which is
`sae_lens`'s; arithmetic with pairs (sparse_pairs); the SAE before its first step (training_setup); the loop around it
(sae_training). Importing this module imports `sae_lens`, which takes seconds.

Of 4,096 latents 32 are active on a token, yet a step of `sae_lens` multiplies with all of them six times: once forward
and once backward for either weight, and once for each bias; more often where prefixes are nested. Here one dense
product is left, the one that finds out which latents are active; on a processor a step is four times as fast. Loss and
gradients are the same up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from sae_lens import (
    BatchTopKTrainingSAE,
    BatchTopKTrainingSAEConfig,
    JumpReLUTrainingSAE,
    JumpReLUTrainingSAEConfig,
    MatryoshkaBatchTopKTrainingSAE,
    MatryoshkaBatchTopKTrainingSAEConfig,
    TopKTrainingSAE,
    TopKTrainingSAEConfig,
)
from sae_lens.saes.jumprelu_sae import JumpReLU, Step
from sae_lens.saes.sae import TrainStepInput, TrainStepOutput

from saerl_assets.models.sparse_pairs import (
    ChosenPairs,
    ComputesWithPairs,
    of_latents,
    pre_activations_of,
    segment_sums,
)


class _SparseTopKStep(ComputesWithPairs):
    """The step of TopK and what descends from it."""

    def training_forward_pass(self: Any, step_input: TrainStepInput) -> TrainStepOutput:
        """One step's outputs and losses, as `sae_lens` defines them for the class.

        Args:
            step_input: Activations [n_tokens, d_in] and which latents are dead.
        """
        states = step_input.sae_in
        with torch.no_grad():
            norms = self.W_dec.norm(dim=-1) if self.cfg.rescale_acts_by_decoder_norm else torch.ones_like(self.b_enc)
        chosen = self.encode_chosen(states, norms)
        # the decoder norm scales an activation up for choosing it and down again for decoding, so it cancels here
        *inner, out = self.decode_chosen(chosen, chosen.pre.relu(), self._widths())
        losses = {"mse_loss": _squares(out - states)}
        losses["auxiliary_reconstruction_loss"] = self._auxiliary_loss(step_input, out, norms)
        for width, prefix in zip(self._widths(), inner, strict=False):
            losses[f"inner_mse_loss_{width}"] = _squares(prefix - states)
        acts = (chosen.pre.detach() * norms[chosen.latent]).relu()
        self._follow(acts)
        return _output(states, out, chosen, acts, losses)

    def _widths(self: Any) -> list[int]:
        """Widths of the prefixes whose reconstruction counts; the last is all latents."""
        return [self.cfg.d_sae]

    def _follow(self, acts: torch.Tensor) -> None:
        """Told the chosen activations of every batch."""

    def _auxiliary_loss(self: Any, step_input: TrainStepInput, out: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
        """What the strongest dead latents leave of the residual when they reconstruct it.

        As `TopKTrainingSAE.calculate_topk_aux_loss` (Gao et al. 2024, arXiv 2406.04093, appendix A.2), but computed
        with the dead latents alone.
        """
        dead = _dead(step_input)
        if len(dead) == 0 or self.cfg.aux_loss_coefficient == 0:
            return out.new_zeros(())
        states = step_input.sae_in
        residual = (states - out).detach()
        pre = pre_activations_of(self, states, dead)
        n_strongest = min(states.shape[-1] // 2, len(dead))
        if n_strongest < len(dead):
            strongest = (pre.detach() * norms[dead]).topk(n_strongest, dim=-1, sorted=False).indices
            pre = torch.zeros_like(pre).scatter(-1, strongest, pre.gather(-1, strongest))
        share = min(len(dead) / (states.shape[-1] // 2), 1.0)
        weighted: torch.Tensor = self.cfg.aux_loss_coefficient * share * _squares(pre @ self.W_dec[dead] - residual)
        return weighted


class _BatchChoice(_SparseTopKStep):
    """k latents a token on average over the batch."""

    def _choose(self: Any, scores: torch.Tensor) -> torch.Tensor:
        flat, n_chosen = scores.flatten(), int(self.cfg.k * len(scores))
        # The largest are sought among those above half of the usual threshold, a few per cent of all: a sixth of the
        # time, and the same choice as long as there are enough of them.
        likely = (flat > 0.5 * self.topk_threshold).nonzero().flatten()
        if self.topk_threshold <= 0 or len(likely) < n_chosen:
            return flat.topk(n_chosen, sorted=False).indices.sort().values
        chosen: torch.Tensor = likely[flat[likely].topk(n_chosen, sorted=False).indices].sort().values
        return chosen

    def _follow(self: Any, acts: torch.Tensor) -> None:
        self.update_topk_threshold(acts)


class SparseTopKTrainingSAE(_SparseTopKStep, TopKTrainingSAE):  # type: ignore[misc]
    """TopK (Gao et al. 2024, arXiv 2406.04093): k latents on every token."""

    def _choose(self: Any, scores: torch.Tensor) -> torch.Tensor:
        latent = scores.topk(self.cfg.k, dim=-1, sorted=False).indices
        first = torch.arange(len(scores), device=scores.device)[:, None] * scores.shape[1]
        chosen: torch.Tensor = (first + latent).flatten()
        return chosen


class SparseBatchTopKTrainingSAE(_BatchChoice, BatchTopKTrainingSAE):  # type: ignore[misc]
    """BatchTopK (Bussmann et al. 2024, arXiv 2412.06410)."""


class SparseMatryoshkaTrainingSAE(_BatchChoice, MatryoshkaBatchTopKTrainingSAE):  # type: ignore[misc]
    """Matryoshka BatchTopK (Bussmann et al. 2025, arXiv 2503.17547): nested prefixes reconstruct too."""

    def _widths(self) -> list[int]:
        widths: list[int] = self.cfg.matryoshka_widths
        return widths


class SparseJumpReLUTrainingSAE(ComputesWithPairs, JumpReLUTrainingSAE):  # type: ignore[misc]
    """JumpReLU (Rajamanoharan et al. 2024, arXiv 2407.14435) with the quadratic loss around a target L0.

    A pair has gradients where it is active, or within half a bandwidth of its latent's threshold.
    """

    def training_forward_pass(self, step_input: TrainStepInput) -> TrainStepOutput:
        """One step's outputs and losses, as `JumpReLUTrainingSAE` defines them.

        Args:
            step_input: Activations [n_tokens, d_in], which latents are dead, the coefficient of the sparsity loss.
        """
        states, to_input = step_input.sae_in, self.cfg.jumprelu_ste_to_input
        with torch.no_grad():
            self.threshold.clamp_(min=0.0)
        chosen = self.encode_chosen(states, None)
        threshold = of_latents(self.threshold, chosen.latent)
        # A batch of one, each pair a latent: the functions of sae_lens sum the thresholds' gradients over the batch.
        pairs = chosen.pre[None], threshold, self.bandwidth, to_input
        acts = JumpReLU.apply(*pairs)[0]
        (out,) = self.decode_chosen(chosen, acts, [self.cfg.d_sae])
        l0 = segment_sums(Step.apply(*pairs)[0], chosen.token, len(states))
        aim = self.cfg.target_l0
        losses = {
            "mse_loss": _squares(out - states),
            "l0_loss": step_input.coefficients["l0"] * (2 / aim * (l0 - aim) ** 2).mean(),
            "pre_act_loss": self._pre_act_loss(step_input),
        }
        return _output(states, out, chosen, acts.detach(), losses)

    def _choose(self, scores: torch.Tensor) -> torch.Tensor:
        near: torch.Tensor = scores > self.threshold - self.bandwidth / 2
        return near.flatten().nonzero().flatten()

    def _pre_act_loss(self, step_input: TrainStepInput) -> torch.Tensor:
        """How far dead latents are below their thresholds, as `calculate_pre_act_loss` of `sae_lens`."""
        dead, coefficient = _dead(step_input), self.cfg.pre_act_loss_coefficient
        loss: torch.Tensor = self.b_dec.new_zeros(())
        if len(dead) and coefficient is not None:
            below = (self.threshold[dead] - pre_activations_of(self, step_input.sae_in, dead)).relu()
            loss = coefficient * (below * self.W_dec[dead].norm(dim=-1)).sum(dim=-1).mean()
        return loss


def _output(
    states: torch.Tensor, out: torch.Tensor, chosen: ChosenPairs, acts: torch.Tensor, losses: dict[str, torch.Tensor]
) -> TrainStepOutput:
    latent_acts = torch.zeros_like(chosen.scores)
    latent_acts[chosen.token, chosen.latent] = acts
    return TrainStepOutput(
        sae_in=states,
        sae_out=out,
        feature_acts=latent_acts,
        hidden_pre=chosen.scores,
        loss=torch.stack(list(losses.values())).sum(),
        losses=losses,
    )


def _squares(residual: torch.Tensor) -> torch.Tensor:
    """Mean over tokens of the squared length."""
    return residual.pow(2).sum(dim=-1).mean()


def _dead(step_input: TrainStepInput) -> torch.Tensor:
    mask = step_input.dead_neuron_mask
    return torch.zeros(0, dtype=torch.long) if mask is None else mask.nonzero().flatten()


SPARSE_KINDS: dict[str, tuple[Any, Any]] = {
    "topk": (SparseTopKTrainingSAE, TopKTrainingSAEConfig),
    "batchtopk": (SparseBatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    "jumprelu": (SparseJumpReLUTrainingSAE, JumpReLUTrainingSAEConfig),
    "matryoshka": (SparseMatryoshkaTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig),
}
"""By architecture the class with the sparse step and its configuration."""

DENSE_KINDS: dict[str, tuple[Any, Any]] = {
    "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
    "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    "jumprelu": (JumpReLUTrainingSAE, JumpReLUTrainingSAEConfig),
    "matryoshka": (MatryoshkaBatchTopKTrainingSAE, MatryoshkaBatchTopKTrainingSAEConfig),
}
"""The same from `sae_lens`, for devices without the operations that the sparse step needs."""
