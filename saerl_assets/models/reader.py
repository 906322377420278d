"""The reader: a language model that is run up to the highest layer that is read, and no further.

Belongs here: the truncated forward pass. Does not belong here: tokenizing, SAEs, pooling, batching policy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.device import to_device
from saerl_assets.models.gguf import tokeniser_folder, weights_folder
from saerl_assets.models.sources import ModelFiles
from saerl_assets.models.texts import TokenIds


class Reader:
    """A decoder cut off after the highest block that is read.

    The blocks above it are not kept, and the pass ends with it: the final norm is never computed, nor is
    there a language-model head. Layer n is the residual stream after block n, counted from 0
    (`blocks.n.hook_resid_post`, `hidden_states[n + 1]` of all but the last block, whose entry there has the
    final norm applied).
    """

    def __init__(self, model: Any, blocks: nn.ModuleList, layers: Sequence[int], files: ModelFiles) -> None:  # noqa: ANN401
        text = model.config.get_text_config()
        self.digest, self.name = files.digest, files.source.partition("#")[0]
        self.layers = tuple(sorted(layers))
        self.n_blocks = len(blocks)
        self.d_model = int(text.hidden_size)
        self.max_tokens: int | None = getattr(text, "max_position_embeddings", None)
        self._n_vocabulary = int(text.vocab_size)
        self._model = model
        self._caught: dict[int, torch.Tensor] = {}
        del blocks[self.layers[-1] + 1 :]
        for layer in self.layers:
            blocks[layer].register_forward_hook(self._catch(layer, last=layer == self.layers[-1]))
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype

    @classmethod
    def load(cls, files: ModelFiles, *, layers: Sequence[int], dtype: str, device: str) -> Reader:
        """Loads the blocks up to the highest layer.

        Raises:
            SaerlError: `layer_missing` naming how many blocks there are; `model_corrupt`; `model_incomplete`.
        """
        from transformers import AutoModel

        model, found = load_weights(AutoModel, files, dtype)
        blocks = decoder_blocks(model, files)
        _check_layers(layers, len(blocks), files)
        check_complete(found, files)
        reader = cls(model, blocks, layers, files)
        model.to(device)  # after the cut, so that the device never holds what is not read
        reader.device = next(model.parameters()).device
        return reader

    @torch.inference_mode()
    def read(self, token_ids: Sequence[TokenIds]) -> dict[int, torch.Tensor]:
        """Runs one batch.

        Texts are padded on the right. Attention is causal, so no token sees the padding and no mask is
        needed.

        Args:
            token_ids: n texts of at least one token.

        Returns:
            For each layer the activations of all tokens, text after text: [sum of lengths, d_model].

        Raises:
            SaerlError: `text_too_long`, `token_unknown`.
        """
        lengths = np.array([len(ids) for ids in token_ids])
        longest = int(lengths.max())
        is_text = np.arange(longest) < lengths[:, None]
        padded = np.zeros(is_text.shape, dtype=np.int64)
        padded[is_text] = np.concatenate(token_ids)
        self._check(longest, int(padded.max()))
        self._caught.clear()
        try:
            with contextlib.suppress(_ReachedLastLayerError):
                self._model(input_ids=to_device(padded, self.device), use_cache=False)
        finally:  # a pass that failed for want of memory must not hold on to any
            caught, self._caught = self._caught, {}
        places = None if is_text.all() else to_device(np.flatnonzero(is_text), self.device)
        return {
            layer: states.flatten(0, 1) if places is None else states.flatten(0, 1).index_select(0, places)
            for layer, states in sorted(caught.items())
        }

    def _check(self, longest: int, largest_id: int) -> None:
        if self.max_tokens is not None and longest > self.max_tokens:
            problem = f"A text of {longest:,} tokens is over the {self.max_tokens:,} that the model can read."
            remedy = f"Set reader.max_tokens = {self.max_tokens} or lower, so that longer texts are rejected."
            raise SaerlError("text_too_long", problem, where="reader.max_tokens", remedy=remedy)
        if largest_id >= self._n_vocabulary:
            problem = f"A text holds token {largest_id}, the model knows {self._n_vocabulary}."
            remedy = "The tokenizer is of another model: put the right one beside the weights."
            raise SaerlError("token_unknown", problem, where=self.name, remedy=remedy)

    def _catch(self, layer: int, *, last: bool) -> Callable[..., None]:
        def keep(_module: nn.Module, _inputs: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            self._caught[layer] = output if isinstance(output, torch.Tensor) else output[0]
            if last:
                raise _ReachedLastLayerError

        return keep


def load_weights(kind: Any, files: ModelFiles, dtype: str) -> tuple[Any, dict[str, Any]]:  # noqa: ANN401 - AutoModel...
    """A model of transformers in memory, on the processor, and what it says of weights that are missing.

    Weights that have the wanted number format already are mapped, not read: blocks that are let go cost nothing.
    Cutting the config instead would change models whose blocks know how many there are.

    Args:
        kind: `AutoModel` or `AutoModelForCausalLM`.
        files: Of the model. Only safetensors are opened, and no code that comes with them is run.
        dtype: Number format.

    Raises:
        SaerlError: `model_corrupt`.
    """
    _quieten()
    folder = weights_folder(files, dtype)
    try:
        model, found = kind.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            output_loading_info=True,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:
        remedy = "Fetch the model again; its files cannot be read."
        raise SaerlError("model_corrupt", f"{error}", where=str(files.folder), remedy=remedy) from error
    return model.eval().requires_grad_(requires_grad=False), found


class _ReachedLastLayerError(Exception):
    """Ends a forward pass whose remainder nobody wants, whatever the architecture has there."""


def sizes_of(files: ModelFiles) -> dict[str, int]:
    """Sizes that an estimate needs: `n_blocks`, `d_model`, `d_ff`, `n_vocabulary`."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(tokeniser_folder(files), local_files_only=True).get_text_config()
    return {
        "n_blocks": int(config.num_hidden_layers),
        "d_model": int(config.hidden_size),
        "n_vocabulary": int(config.vocab_size),
        "d_ff": int(getattr(config, "intermediate_size", 0) or 4 * config.hidden_size),
    }


def decoder_blocks(model: Any, files: ModelFiles) -> nn.ModuleList:  # noqa: ANN401 - any architecture
    """The decoder's list of blocks, whatever the architecture calls it."""
    n_blocks = int(model.config.get_text_config().num_hidden_layers)
    for module in model.get_decoder().modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks:
            return module
    problem = f"{type(model).__name__} has no list of {n_blocks} blocks."
    raise SaerlError("model_unsupported", problem, where=files.source, remedy="Use a decoder model.")


def _check_layers(layers: Sequence[int], n_blocks: int, files: ModelFiles) -> None:
    if max(layers) >= n_blocks:
        remedy = f"It has {n_blocks} blocks: choose layers from 0 to {n_blocks - 1}; the middle ones say most."
        problem = f"{files.source.partition('#')[0]} has no layer {max(layers)}."
        raise SaerlError("layer_missing", problem, where="reader.layers", remedy=remedy)


def check_complete(found: dict[str, Any], files: ModelFiles) -> None:
    """Weights that the files lack would otherwise be random numbers."""
    missing = sorted([*found["missing_keys"], *(str(entry[0]) for entry in found["mismatched_keys"])])
    if missing:
        some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        remedy = "Fetch the model again, with every file of its weights."
        raise SaerlError("model_incomplete", f"Its files lack weights: {some}.", where=str(files.folder), remedy=remedy)


def _quieten() -> None:
    """Leaves progress to us, and does not report the language-model head, which is left out on purpose."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
