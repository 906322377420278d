"""GGUF files as folders that transformers loads fast.

Belongs here: converting one, once. Does not belong here: finding files (sources), loading models (reader).

transformers reads GGUF by itself, but takes 15 to 25 seconds for the 98 MB demo model: it parses the file
anew for the config, the tokenizer and the weights, and dequantises on the way. A converted copy loads in
under a second, and every process of every run loads it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from safetensors.torch import save_file

from saerl_assets.disk import new_folder
from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.sources import ModelFiles

FORMAT = "2"
"""Raise it when what is written changes, so that older copies are not taken."""


def tokeniser_folder(files: ModelFiles) -> Path:
    """A folder with config and tokenizer: the model's own, or what its GGUF file says.

    Raises:
        SaerlError: `model_corrupt`.
    """
    if files.gguf_file is None:
        return files.folder
    return _made(files, "tokeniser", lambda place: _write_tokeniser(files, place))


def weights_folder(files: ModelFiles, dtype: str) -> Path:
    """A folder with config and safetensors: the model's own, or its GGUF file dequantised to `dtype`.

    Raises:
        SaerlError: `model_corrupt`.
    """
    if files.gguf_file is None:
        return files.folder
    return _made(files, dtype, lambda place: _write_weights(files, getattr(torch, dtype), place))


def _made(files: ModelFiles, what: str, write: Callable[[Path], None]) -> Path:
    target = files.workspace / "converted" / f"{files.digest[:32]}-{FORMAT}" / what
    if target.is_dir():
        return target
    try:
        with new_folder(target) as place, _parsed_once():
            write(place)
    except SaerlError:
        raise
    except Exception as error:
        file = files.folder / str(files.gguf_file)
        remedy = "Fetch the file again; if it stays, take the model as safetensors."
        raise SaerlError(
            "model_corrupt", f"The GGUF file cannot be read: {error}.", where=str(file), remedy=remedy
        ) from error
    return target


def _write_tokeniser(files: ModelFiles, place: Path) -> None:
    from transformers import AutoConfig, AutoTokenizer

    AutoTokenizer.from_pretrained(files.folder, gguf_file=files.gguf_file).save_pretrained(place)
    _write_config(AutoConfig.from_pretrained(files.folder, gguf_file=files.gguf_file), place)


def _write_weights(files: ModelFiles, dtype: torch.dtype, place: Path) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(files.folder, gguf_file=files.gguf_file, dtype=dtype)
    # transformers' own save_pretrained refuses: it still takes the dequantised model for a quantized one
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:  # one tensor under two names
        weights.pop("lm_head.weight", None)
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    _write_config(model.config, place)


def _write_config(config: Any, place: Path) -> None:  # noqa: ANN401 - any model's config
    settings = config.to_dict()
    settings.pop("quantization_config", None)
    (place / "config.json").write_text(json.dumps(settings, indent=2, sort_keys=True, default=str))


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Lets transformers share what it parses: the header, and a table that it builds anew for every module."""
    import gguf
    from tqdm import tqdm
    from transformers import modeling_gguf_pytorch_utils
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    quiet = functools.partial(tqdm, disable=True)
    with (
        patch.object(gguf, "GGUFReader", functools.lru_cache(maxsize=1)(gguf.GGUFReader)),
        patch.object(gguf, "get_tensor_name_map", functools.lru_cache(maxsize=4)(gguf.get_tensor_name_map)),
        patch.object(modeling_gguf_pytorch_utils, "tqdm", quiet),
    ):
        yield
