"""The reader: a language model that is run up to the highest layer that is read, and no further.

Belongs here: tokenizing and the truncated forward pass. Does not belong here: SAEs, pooling, batching policy.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.readings import TokenisedText
from saerl_assets.models.sources import ModelFiles

Template = Literal["plain", "chat"]


class Tokeniser:
    """A model's tokenizer with its template: `saerl_assets.domain.readings.Tokenise`."""

    def __init__(self, tokenizer: Any, template: Template) -> None:  # noqa: ANN401 - transformers' own
        self._tokenizer = tokenizer
        self._template = template

    @classmethod
    def load(cls, files: ModelFiles, template: Template) -> Tokeniser:
        """Loads the tokenizer without the weights.

        Raises:
            SaerlError: `model_without_tokenizer`, or `no_chat_template` for template `chat`.
        """
        from transformers import AutoTokenizer

        folder, gguf = _converted(files)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, **({"gguf_file": gguf} if gguf else {}))
        except Exception as error:
            remedy = "Put the model's tokenizer files (tokenizer.json, tokenizer_config.json) beside its weights."
            raise SaerlError("model_without_tokenizer", f"{error}", where=str(files.folder), remedy=remedy) from error
        if template == "chat" and not tokenizer.chat_template:
            remedy = "Set reader.template = 'plain', or use a model that was trained on chats."
            raise SaerlError(
                "no_chat_template", "The tokenizer has no chat template.", where=files.source, remedy=remedy
            )
        return cls(tokenizer, template)

    def __call__(
        self, prompts: Sequence[list[dict[str, str]] | str], responses: Sequence[str | None]
    ) -> list[TokenisedText]:
        """Token ids of each prompt, followed by those of its response where there is one."""
        heads = [self._render(prompt) for prompt in prompts]
        special = self._template == "plain"
        ids = self._encode(heads, add_special_tokens=special)
        spoken = [i for i, response in enumerate(responses) if response is not None]
        tails = dict(
            zip(
                spoken,
                self._encode([responses[i] or "" for i in spoken], add_special_tokens=False),
                strict=True,
            )
        )
        return [TokenisedText(head + tails.get(i, []), len(head) if i in tails else 0) for i, head in enumerate(ids)]

    def _render(self, prompt: list[dict[str, str]] | str) -> str:
        if isinstance(prompt, str):
            return prompt
        if self._template == "plain":
            return "\n".join(message["content"] for message in prompt)
        return str(self._tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))

    def _encode(self, texts: list[str], *, add_special_tokens: bool) -> list[list[int]]:
        if not texts:
            return []
        found: list[list[int]] = self._tokenizer(texts, add_special_tokens=add_special_tokens)["input_ids"]
        return found


class Reader:
    """A decoder cut off after the highest block that is read.

    The blocks above it, the final norm and the language-model head are never computed and never kept. Layer n is the
    residual stream after block n, counted from 0 (`blocks.n.hook_resid_post`, `hidden_states[n + 1]`).
    """

    def __init__(self, model: nn.Module, blocks: nn.ModuleList, layers: Sequence[int], digest: str) -> None:
        self.digest = digest
        self.layers = tuple(layers)
        self._model = model
        self._caught: dict[int, torch.Tensor] = {}
        for layer in layers:
            blocks[layer].register_forward_hook(self._catch(layer))
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.d_model = int(model.config.get_text_config().hidden_size)  # type: ignore[union-attr, operator]

    @classmethod
    def load(cls, files: ModelFiles, *, layers: Sequence[int], dtype: str, device: str) -> Reader:
        """Loads the blocks up to the highest layer.

        Raises:
            SaerlError: `layer_missing` naming how many blocks there are, `model_corrupt`.
        """
        from transformers import AutoConfig, AutoModel

        _quieten()
        folder, _ = _converted(files)
        try:
            config = AutoConfig.from_pretrained(folder)
            text = config.get_text_config()
            _check_layers(layers, int(text.num_hidden_layers), files)
            _shorten(text, max(layers) + 1)
            model = AutoModel.from_pretrained(folder, config=config, dtype=getattr(torch, dtype))
        except SaerlError:
            raise
        except Exception as error:
            remedy = "Download the model again; its files cannot be read."
            raise SaerlError("model_corrupt", f"{error}", where=str(files.folder), remedy=remedy) from error
        model = model.eval().requires_grad_(requires_grad=False).to(device)
        return cls(model, _blocks(model, max(layers) + 1), layers, files.digest)

    @torch.inference_mode()
    def read(self, token_ids: Sequence[Sequence[int]]) -> dict[int, torch.Tensor]:
        """Runs one batch.

        Texts are padded on the right. Attention is causal, so no token sees the padding and no mask is needed.

        Args:
            token_ids: n texts of at least one token.

        Returns:
            For each layer the activations of all tokens, text after text: [sum of lengths, d_model].
        """
        lengths = torch.tensor([len(ids) for ids in token_ids])
        longest = int(lengths.max())
        padded = torch.zeros(len(token_ids), longest, dtype=torch.long)
        for row, ids in enumerate(token_ids):
            padded[row, : len(ids)] = torch.as_tensor(ids, dtype=torch.long)
        self._caught.clear()
        self._model(input_ids=padded.to(self.device), use_cache=False)
        is_text = (torch.arange(longest)[None, :] < lengths[:, None]).to(self.device)
        full = bool(is_text.all())
        return {
            layer: states.flatten(0, 1) if full else states[is_text] for layer, states in sorted(self._caught.items())
        }

    def _catch(self, layer: int) -> Any:  # noqa: ANN401 - a hook
        def keep(_module: nn.Module, _inputs: object, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
            self._caught[layer] = output if isinstance(output, torch.Tensor) else output[0]

        return keep


def _check_layers(layers: Sequence[int], n_blocks: int, files: ModelFiles) -> None:
    if max(layers) >= n_blocks:
        remedy = f"It has {n_blocks} blocks: choose layers from 0 to {n_blocks - 1}; the middle ones say most."
        raise SaerlError(
            "layer_missing",
            f"{files.source.partition('#')[0]} has no layer {max(layers)}.",
            where="reader.layers",
            remedy=remedy,
        )


def _shorten(config: Any, n_blocks: int) -> None:  # noqa: ANN401 - any model's config
    """Tells the config that the model has only so many blocks, so that no others are made or loaded."""
    config.num_hidden_layers = n_blocks
    kinds: object = getattr(config, "layer_types", None)
    if isinstance(kinds, list):
        config.layer_types = kinds[:n_blocks]


def _blocks(model: nn.Module, n_blocks: int) -> nn.ModuleList:
    """The list of blocks, whatever the architecture calls it; the norm that follows them is taken out."""
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == n_blocks:
            parent = model.get_submodule(name.rpartition(".")[0])
            for norm in ("norm", "ln_f", "final_layer_norm", "final_layernorm"):
                if isinstance(getattr(parent, norm, None), nn.Module):
                    setattr(parent, norm, nn.Identity())
            return module
    message = f"{type(model).__name__} has no list of {n_blocks} blocks"
    raise TypeError(message)


def _converted(files: ModelFiles) -> tuple[Path, str | None]:
    """A folder with safetensors and tokenizer files; a GGUF file is converted once: that takes half a minute."""
    if files.gguf_file is None:
        return files.folder, None
    target = files.folder / f".{files.gguf_file}.safetensors"
    if not (target / "config.json").exists():
        from transformers import AutoModel, AutoTokenizer

        _quieten()
        try:
            model = AutoModel.from_pretrained(files.folder, gguf_file=files.gguf_file, dtype=torch.float32)
            tokenizer = AutoTokenizer.from_pretrained(files.folder, gguf_file=files.gguf_file)
        except Exception as error:
            remedy = "Download the model again; its file cannot be read."
            place = str(files.folder / files.gguf_file)
            raise SaerlError("model_corrupt", f"{error}", where=place, remedy=remedy) from error
        # The weights are plain floats now, but transformers still calls the model quantized and refuses to save it.
        model.__dict__.pop("hf_quantizer", None)
        model.config.__dict__.pop("quantization_config", None)
        folder = Path(tempfile.mkdtemp(dir=files.folder))
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        shutil.rmtree(target, ignore_errors=True)
        folder.replace(target)
    return target, None


def _quieten() -> None:
    """Leaves progress to us, and does not report the blocks that are left out on purpose."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]


def sizes_of(files: ModelFiles) -> dict[str, int]:
    """Sizes that an estimate needs: `n_blocks`, `d_model`, `d_ff`, `n_vocabulary`."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(_converted(files)[0]).get_text_config()
    return {
        "n_blocks": int(config.num_hidden_layers),
        "d_model": int(config.hidden_size),
        "n_vocabulary": int(config.vocab_size),
        "d_ff": int(getattr(config, "intermediate_size", 0) or 4 * config.hidden_size),
    }
