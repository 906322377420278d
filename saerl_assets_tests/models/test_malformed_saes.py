"""SAEs whose files say something impossible: each is refused with the file, what is wrong in it, and what to do."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.sae_sources import fetch_sae

D_IN, D_SAE, K = 8, 16, 4
Changes = Mapping[str, Any]

VECTOR = torch.zeros(D_SAE)
WHOLE_NUMBERS = torch.zeros(D_SAE, D_IN, dtype=torch.int32)
BIASES = {"b_enc": torch.zeros(D_SAE), "b_dec": torch.zeros(D_IN)}


def changed(document: Changes, changes: Changes) -> dict[str, Any]:
    """A document with values put at `outer.inner`, or taken out where they are None; tensors' names may hold dots."""
    made = {name: dict(value) if isinstance(value, dict) else value for name, value in document.items()}
    for path, value in changes.items():
        outer, _, inner = path.rpartition(".")
        place, inner = (made[outer], inner) if outer in made else (made, path)
        if value is None:
            del place[inner]
        else:
            place[inner] = value
    return made


def sparsify(folder: Path, config: Changes, tensors: Changes) -> Path:
    weights = {"encoder.weight": torch.ones(D_SAE, D_IN), "W_dec": torch.ones(D_SAE, D_IN)}
    weights |= {"encoder.bias": BIASES["b_enc"], "b_dec": BIASES["b_dec"]}
    (folder / "cfg.json").write_text(json.dumps(changed({"k": K}, config)))
    save_file(changed(weights, tensors), folder / "sae.safetensors")
    return folder


def dictionary(folder: Path, config: Changes, tensors: Changes) -> Path:
    weights = {"encoder.weight": torch.ones(D_SAE, D_IN), "decoder.weight": torch.ones(D_IN, D_SAE)}
    weights |= {"encoder.bias": BIASES["b_enc"], "bias": BIASES["b_dec"]}
    trainer = {"dict_class": "AutoEncoder", "layer": 1, "lm_name": "some/model"}
    (folder / "config.json").write_text(json.dumps(changed({"trainer": trainer, "buffer": {}}, config)))
    torch.save(changed(weights, tensors), folder / "ae.pt")
    return folder


def qwen_scope(folder: Path, _config: Changes, tensors: Changes) -> Path:
    place = folder / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_4" / "layer3.sae.pt"
    place.parent.mkdir()
    weights = {"W_enc": torch.ones(D_SAE, D_IN), "W_dec": torch.ones(D_IN, D_SAE), **BIASES}
    torch.save(changed(weights, tensors), place)
    return place


def sae_lens(folder: Path, config: Changes, tensors: Changes) -> Path:
    plain = {"architecture": "topk", "d_in": D_IN, "d_sae": D_SAE, "k": K, "dtype": "float32", "device": "cpu"}
    plain |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
    plain["metadata"] = {"sae_lens_version": "6.0.0", "hook_name": "blocks.1.hook_resid_post"}
    weights = {"W_enc": torch.ones(D_IN, D_SAE), "W_dec": torch.ones(D_SAE, D_IN), **BIASES}
    (folder / "cfg.json").write_text(json.dumps(changed(plain, config)))
    save_file(changed(weights, tensors), folder / "sae_weights.safetensors")
    return folder


Writer = Callable[[Path, Changes, Changes], Path]
WRITERS: list[Writer] = [sparsify, dictionary, qwen_scope, sae_lens]
TENSORS: list[tuple[Writer, str, torch.Tensor | None, str]] = [
    (sparsify, "W_dec", VECTOR, "W_dec has shape [16], where a matrix belongs"),
    (sparsify, "W_dec", WHOLE_NUMBERS, "W_dec holds int32, no floating-point numbers"),
    (sparsify, "W_dec", torch.zeros(0, D_IN), "W_dec has shape [0, 8]"),
    (sparsify, "encoder.weight", VECTOR, "encoder.weight has shape [16]"),
    (sparsify, "encoder.weight", torch.ones(D_IN, D_SAE), "beside W_dec of shape [16, 8] it has [16, 8]"),
    (sparsify, "encoder.bias", None, "lacks encoder.bias"),
    (dictionary, "decoder.weight", VECTOR, "decoder.weight has shape [16]"),
    (dictionary, "bias", torch.zeros(D_SAE), "bias has shape [16]; beside decoder.weight of shape [8, 16] it has [8]"),
    (dictionary, "encoder.bias", torch.tensor(0.0), "encoder.bias has shape [], where a vector belongs"),
    (qwen_scope, "W_dec", VECTOR, "W_dec has shape [16]"),
    (sae_lens, "W_dec", WHOLE_NUMBERS, "W_dec holds int32"),
    (sae_lens, "b_dec", torch.zeros(D_SAE), "b_dec has shape [16]"),
    (sae_lens, "W_dec", None, "lacks W_dec"),
]
CONFIGS: list[tuple[Writer, dict[str, Any], str]] = [
    (sparsify, {"k": "x"}, "k: input should be a valid integer"),
    (sparsify, {"k": None}, "k: field required"),
    (sparsify, {"k": 0}, "k: input should be greater than or equal to 1, it is 0"),
    (dictionary, {"buffer": "x"}, "buffer: input should be a valid dictionary, it is 'x'"),
    (dictionary, {"trainer": 1}, "trainer: input should be a valid dictionary, it is 1"),
    (dictionary, {"trainer.submodule_name": 5}, "trainer.submodule_name: input should be a valid string, it is 5"),
    (dictionary, {"trainer.dict_class": ["AutoEncoder"]}, "trainer.dict_class: input should be a valid string"),
    (sae_lens, {"d_in": 99}, "says d_in = 99, but W_dec has shape [16, 8]"),
    (sae_lens, {"d_sae": 32}, "says d_sae = 32, but W_dec has shape [16, 8]"),
    (sae_lens, {"architecture": "abstopk", "d_sae": 32}, "says d_sae = 32, but W_dec has shape [16, 8]"),
    (sae_lens, {"architecture": ["topk"]}, "architecture: input should be a valid string"),
    (sae_lens, {"metadata.hook_name": 7}, "metadata.hook_name: input should be a valid string, it is 7"),
    (sae_lens, {"metadata.l0": "many"}, "metadata.l0: input should be a valid number"),
    (sae_lens, {"metadata.seqpos_slice": "ab"}, "metadata.seqpos_slice: input should be a valid tuple"),
    (sae_lens, {"metadata.sae_lens_version": "dev"}, "metadata.sae_lens_version"),
    (sae_lens, {"metadata": [1]}, "metadata: input should be a valid dictionary, it is [1]"),
    (sae_lens, {"k": None}, "cfg.json does not say k"),
]


def refused(place: Path, tmp_path: Path) -> SaerlError:
    with pytest.raises(SaerlError) as caught:
        fetch_sae(f"path:{place}", folder=tmp_path, into=tmp_path / "into")
    assert caught.value.code == "sae_corrupt"
    assert str(place) in str(caught.value.where)
    assert caught.value.remedy
    assert not (tmp_path / "into").exists()
    return caught.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sae").mkdir()
    return tmp_path / "sae"


@pytest.mark.parametrize("write", WRITERS)
def test_without_a_change_each_is_read(tmp_path: Path, folder: Path, write: Writer) -> None:
    assert fetch_sae(f"path:{write(folder, {}, {})}", folder=tmp_path, into=tmp_path / "into").is_dir()


@pytest.mark.parametrize(("write", "name", "tensor", "words"), TENSORS)
def test_a_tensor_that_does_not_fit_is_named(
    tmp_path: Path, folder: Path, write: Writer, name: str, tensor: torch.Tensor | None, words: str
) -> None:
    error = refused(write(folder, {}, {name: tensor}), tmp_path)
    assert words in str(error.problem)
    assert Path(str(error.where)).suffix in (".safetensors", ".pt")


def test_an_sae_in_two_directions_is_held_against_the_same_rules(tmp_path: Path, folder: Path) -> None:
    error = refused(sae_lens(folder, {"architecture": "abstopk"}, {"W_enc": VECTOR}), tmp_path)
    assert "W_enc has shape [16], where a matrix belongs" in str(error.problem)


@pytest.mark.parametrize(("write", "config", "words"), CONFIGS)
def test_a_setting_of_another_type_is_named(
    tmp_path: Path, folder: Path, write: Writer, config: dict[str, Any], words: str
) -> None:
    assert words in str(refused(write(folder, config, {}), tmp_path).problem)
