"""What the JSON files beside an SAE's weights may say, in every format that is read.

Belongs here: the types of the values that are used. Does not belong here: what they mean (`sae_formats`, `saes`), which
of them are supported (`sae_architectures`).

Values that are not used are let through as they are: others' files say more than is listed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from saerl_assets.models.sae_files import corrupt, read_config

Positive = Annotated[int, Field(ge=1)]
Told = TypeVar("Told", bound=BaseModel)


class _Values(BaseModel):
    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class SaeLensMetadata(_Values):
    """`metadata` in a cfg.json of `sae_lens`."""

    hook_name: str | None = None
    model_name: str | None = None
    prepend_bos: bool | None = None
    l0: float | None = None
    seqpos_slice: Annotated[tuple[int | None, ...], Field(max_length=3)] | None = None
    exclude_special_tokens: bool | list[int] | None = None
    model_from_pretrained_kwargs: dict[str, Any] | None = None
    sae_lens_version: Annotated[str, Field(pattern=r"^\d+(\.|$)")] | None = None


class SaeLensConfig(_Values):
    """A cfg.json of `sae_lens`; before its version 6 there was no `metadata`."""

    architecture: str = "standard"
    d_in: Positive | None = None
    d_sae: Positive | None = None
    k: Positive | None = None
    metadata: SaeLensMetadata | None = None


class SparsifyConfig(_Values):
    """A cfg.json of sparsify."""

    k: Positive
    activation: str = "topk"
    signed: bool = False
    transcode: bool = False
    skip_connection: bool = False


class SparsifyRun(_Values):
    """The config.json of a training run of sparsify, a folder above."""

    model: str | None = None


class DictionaryTrainer(_Values):
    """`trainer` in a config.json of dictionary_learning."""

    dict_class: str
    k: Positive | None = None
    layer: Any = None
    submodule_name: str | None = None
    lm_name: str | None = None
    target_l0: float | None = None


class DictionaryBuffer(_Values):
    """`buffer` in a config.json of dictionary_learning."""

    io: str | None = None


class DictionaryConfig(_Values):
    """A config.json of dictionary_learning."""

    trainer: DictionaryTrainer
    buffer: DictionaryBuffer | None = None


class DictionaryEvaluation(_Values):
    """An eval_results.json of dictionary_learning."""

    l0: float | None = None


def read_as(kind: type[Told], file: Path) -> Told:
    """Reads a JSON file whose values are of the right types.

    Raises:
        SaerlError: `sae_without_config`; `sae_corrupt`, naming the value.
    """
    return checked(kind, read_config(file), file)


def checked(kind: type[Told], config: Mapping[str, Any], file: Path) -> Told:
    """A file's values, if they are of the right types.

    Raises:
        SaerlError: `sae_corrupt`, naming the value.
    """
    try:
        return kind.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        wanted = first["msg"].partition(" or instance of")[0]
        found = "" if first["type"] == "missing" else f", it is {repr(first['input'])[:80]}"
        raise corrupt(file, f"{name}: {wanted[0].lower()}{wanted[1:]}{found}.") from error


def check_sizes(config: SaeLensConfig, decoder: torch.Tensor, file: Path) -> None:
    """Holds the sizes that a cfg.json names against the decoder [d_sae, d_in] beside it.

    Raises:
        SaerlError: `sae_corrupt`.
    """
    for name, size in zip(("d_sae", "d_in"), decoder.shape, strict=True):
        told = getattr(config, name)
        if told is not None and told != size:
            raise corrupt(file, f"It says {name} = {told}, but W_dec has shape {list(decoder.shape)}.")
