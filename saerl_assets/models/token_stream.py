"""Activations as training sees them: their centre and scale, and the order of tokens.

Belongs here: passes over the activations that never hold a second copy of them. Does not belong here: the SAE.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from saerl_assets.domain.errors import SaerlError

BLOCK_TOKENS = 4_096
"""Tokens that are looked at together where all are passed over: they are in memory as 64-bit numbers then."""
LEAST_SPREAD = 1e-6
"""Mean distance from the mean, as a share of the mean's length, below which all tokens count as the same: what
rounding leaves."""


@dataclass(frozen=True)
class Spread:
    """Where activations lie.

    `scale` brings a token to sqrt(d_in) from the mean on average: one learning rate then fits every model. (`sae_lens`
    measures from 0 instead, where a model whose mean is large leaves training next to nothing to see.)
    """

    mean: torch.Tensor
    """float32 [d_in], unscaled."""
    scale: float


def measure_spread(activations: torch.Tensor, where: str) -> Spread:
    """Mean and scale of activations [n_tokens, d_in].

    Args:
        activations: On the processor, in any float format.
        where: What they are of, for errors.

    Raises:
        SaerlError: `activations_not_finite`, `activations_constant`.
    """
    n_tokens, d_in = activations.shape
    total, distance = torch.zeros(d_in, dtype=torch.float64), 0.0
    for start, block in _blocks(activations):
        if not torch.isfinite(block).all():
            bad = start + int((~torch.isfinite(block).all(dim=-1)).nonzero()[0])
            remedy = "Set reader.dtype = 'float32'; if it stays, the model's weights are damaged."
            problem = f"Token {bad:,} of the {n_tokens:,} to train on has activations that are not finite."
            raise SaerlError("activations_not_finite", problem, where=where, remedy=remedy)
        total += block.sum(dim=0)
    mean = total / n_tokens
    for _, block in _blocks(activations):
        distance += float((block - mean).norm(dim=-1).sum())
    if distance / n_tokens <= LEAST_SPREAD * float(mean.norm()):
        remedy = "Check that the prompts differ, or read another layer: reader.layers."
        problem = f"All {n_tokens:,} tokens have the same activations, so there is nothing to train an SAE on."
        raise SaerlError("activations_constant", problem, where=where, remedy=remedy)
    return Spread(mean.float(), float(d_in**0.5 * n_tokens / distance))


class TokenOrder(Iterator[torch.Tensor]):
    """Batches of tokens, shuffled anew every pass over them: the data provider of `sae_lens`'s trainer.

    Each batch is a function of the seed and its number, so a resumed run sees the batches that an undisturbed one
    would.
    """

    def __init__(self, activations: torch.Tensor, batch_tokens: int, seed: int, first_step: int = 0) -> None:
        self._activations, self._batch_tokens, self._seed = activations, batch_tokens, seed
        self._step = first_step
        self._shuffled: tuple[int, torch.Tensor] = (-1, torch.zeros(0))

    def __next__(self) -> torch.Tensor:
        turn, place = divmod(self._step, len(self._activations) // self._batch_tokens)
        if turn != self._shuffled[0]:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + turn)
            self._shuffled = turn, torch.randperm(len(self._activations), generator=generator)
        self._step += 1
        chosen = self._shuffled[1][place * self._batch_tokens : (place + 1) * self._batch_tokens]
        return self._activations[chosen].float()


def _blocks(activations: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """The first token's number and the float64 values of each block."""
    for start in range(0, len(activations), BLOCK_TOKENS):
        yield start, activations[start : start + BLOCK_TOKENS].double()
