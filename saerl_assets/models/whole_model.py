"""The reader's model with all of its blocks and its language-model head, for looking at what an SAE does to it.

Belongs here: passes over the whole model. Does not belong here: reading prompts, which stops at the layer (reader).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from saerl_assets.models.reader import check_complete, decoder_blocks, load_weights
from saerl_assets.models.sources import ModelFiles
from saerl_assets.models.texts import TokenIds

Change = Callable[[torch.Tensor], torch.Tensor]
"""Activations [n_tokens, d_model] into others of the same shape."""


class WholeModel:
    """A causal language model."""

    def __init__(self, model: Any, blocks: nn.ModuleList, *, predicts: bool) -> None:  # noqa: ANN401 - any architecture
        self._model, self._blocks = model, blocks
        self.n_blocks = len(blocks)
        self.predicts = predicts
        """Whether it has a language-model head; a bare decoder has none."""
        self._device = next(model.parameters()).device

    @classmethod
    def load(cls, files: ModelFiles, *, dtype: str, device: str) -> WholeModel:
        """Loads all weights.

        Raises:
            SaerlError: `model_corrupt`, `model_incomplete`.
        """
        from transformers import AutoModelForCausalLM

        model, found = load_weights(AutoModelForCausalLM, files, dtype)
        head = {name for name in found["missing_keys"] if not name.startswith(f"{model.base_model_prefix}.")}
        check_complete({**found, "missing_keys": set(found["missing_keys"]) - head}, files)
        return cls(model.to(device), decoder_blocks(model, files), predicts=not head)

    def states(self, token_ids: Sequence[TokenIds], first: int = 0) -> list[torch.Tensor]:
        """The output of every block for one batch of texts, from a position on: [n_tokens, d_model] each."""
        ids, is_text = _padded(token_ids)
        caught: list[torch.Tensor] = []
        hooks = [
            block.register_forward_hook(lambda _module, _inputs, output: caught.append(_states_of(output)))
            for block in self._blocks
        ]
        try:
            self._model.base_model(input_ids=ids.to(self._device), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        mask = _from(first, is_text).to(self._device)
        return [states[mask] for states in caught]

    def predictions(
        self, token_ids: Sequence[TokenIds], layer: int, change: Change | None, first: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Next-token logits for one batch of texts, with the output of a block changed on the way.

        Args:
            token_ids: The texts.
            layer: The block.
            change: What becomes of its output.
            first: Tokens before this position of a text stay as they are.

        Returns:
            Logits [n, n_vocabulary] of all tokens that have a next one, and those, int64 [n].
        """
        ids, is_text = _padded(token_ids)
        ids, is_text = ids.to(self._device), is_text.to(self._device)
        is_changed = _from(first, is_text)

        def replace(_module: nn.Module, _inputs: object, output: Any) -> Any:  # noqa: ANN401 - a tensor or a tuple
            if change is None:
                return output
            states = _states_of(output)
            changed = states.clone()
            changed[is_changed] = change(states[is_changed])
            return changed if isinstance(output, torch.Tensor) else (changed, *output[1:])

        hook = self._blocks[layer].register_forward_hook(replace)
        try:
            logits = self._model(input_ids=ids, use_cache=False).logits
        finally:
            hook.remove()
        has_next = is_text[:, 1:]
        return logits[:, :-1][has_next], ids[:, 1:][has_next]


def _padded(token_ids: Sequence[TokenIds]) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts padded on the right, int64 [n_texts, longest], and which of it is text, bool of the same shape."""
    texts = [torch.as_tensor(ids, dtype=torch.long) for ids in token_ids]
    lengths = torch.tensor([len(ids) for ids in texts])
    return pad_sequence(texts, batch_first=True), torch.arange(int(lengths.max())) < lengths[:, None]


def _from(first: int, is_text: torch.Tensor) -> torch.Tensor:
    """Which of [n_texts, longest] is text and not before a position."""
    return is_text & (torch.arange(is_text.shape[1], device=is_text.device) >= first)


def _states_of(output: torch.Tensor | tuple[torch.Tensor, ...]) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[0]
