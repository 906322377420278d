"""A GGUF file reads as transformers reads it, is converted once, and a broken one says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.reader import Reader, sizes_of
from saerl_assets.models.sources import locate_model
from saerl_assets.models.tokeniser import Tokeniser

D_MODEL, D_FF, N_BLOCKS, N_HEADS, N_VOCABULARY = 32, 64, 3, 4, 40
TEXTS = [[5, 9, 17], [3] * 7]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny Llama as GGUF, its weights random."""
    place = tmp_path_factory.mktemp("gguf")
    writer = gguf.GGUFWriter(place / "tiny.gguf", "llama")
    writer.add_name("tiny")
    writer.add_context_length(128)
    writer.add_embedding_length(D_MODEL)
    writer.add_block_count(N_BLOCKS)
    writer.add_feed_forward_length(D_FF)
    writer.add_head_count(N_HEADS)
    writer.add_head_count_kv(N_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(D_MODEL // N_HEADS)
    writer.add_vocab_size(N_VOCABULARY)
    writer.add_tokenizer_model("gpt2")
    tokens = ["<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz0123456789", "Ġ", "ab"]
    writer.add_token_list(tokens)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    random = np.random.default_rng(0)

    def tensor(name: str, *shape: int) -> None:
        writer.add_tensor(name, random.normal(size=shape, scale=0.3).astype(np.float32))

    tensor("token_embd.weight", N_VOCABULARY, D_MODEL)
    tensor("output_norm.weight", D_MODEL)
    tensor("output.weight", N_VOCABULARY, D_MODEL)
    for block in range(N_BLOCKS):
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            tensor(f"blk.{block}.{name}.weight", D_MODEL, D_MODEL)
        tensor(f"blk.{block}.ffn_gate.weight", D_FF, D_MODEL)
        tensor(f"blk.{block}.ffn_up.weight", D_FF, D_MODEL)
        tensor(f"blk.{block}.ffn_down.weight", D_MODEL, D_FF)
        tensor(f"blk.{block}.attn_norm.weight", D_MODEL)
        tensor(f"blk.{block}.ffn_norm.weight", D_MODEL)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return place


def test_it_reads_as_transformers_reads_the_file_itself(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    files = locate_model(f"path:{folder}", cache=tmp_path, folder=tmp_path)
    found = Reader.load(files, layers=(1,), dtype="float32", device="cpu").read(TEXTS)[1]
    model = AutoModel.from_pretrained(folder, gguf_file="tiny.gguf", dtype=torch.float32).eval()
    with torch.no_grad():
        expected = [
            model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0] for ids in TEXTS
        ]
    torch.testing.assert_close(found, torch.cat(expected), atol=1e-5, rtol=1e-5)
    assert sizes_of(files) == {"n_blocks": 3, "d_model": 32, "n_vocabulary": 40, "d_ff": 64}
    assert Tokeniser.load(files, "plain")(["ab c"], [None])[0].token_ids == [39, 38, 4]


def test_it_is_converted_once_and_the_models_own_folder_stays_as_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "model"
    shutil.copytree(folder, mine)
    files = locate_model("path:model/tiny.gguf", cache=tmp_path / "cache", folder=tmp_path)
    first = Reader.load(files, layers=(0,), dtype="float32", device="cpu").read(TEXTS)[0]
    Tokeniser.load(files, "plain")
    assert [file.name for file in mine.iterdir()] == ["tiny.gguf"]

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("the GGUF file was parsed again")

    monkeypatch.setattr(gguf, "GGUFReader", refuse)
    again = Reader.load(files, layers=(0,), dtype="float32", device="cpu").read(TEXTS)[0]
    assert torch.equal(first, again)
    Tokeniser.load(files, "plain")


@pytest.mark.parametrize("n_bytes", [0, 100, 3_000, -2_000])
def test_a_broken_file_is_named_and_leaves_nothing_behind(folder: Path, tmp_path: Path, n_bytes: int) -> None:
    content = (folder / "tiny.gguf").read_bytes()
    (tmp_path / "broken.gguf").write_bytes(content[:n_bytes])
    files = locate_model("path:broken.gguf", cache=tmp_path / "cache", folder=tmp_path)
    with pytest.raises(SaerlError) as caught:
        Reader.load(files, layers=(0,), dtype="float32", device="cpu")
    assert caught.value.code == "model_corrupt"
    assert "broken.gguf" in caught.value.where
    assert not list((tmp_path / "cache" / "converted").rglob("*.safetensors"))


def test_a_layer_beyond_the_model_is_no_broken_file(folder: Path, tmp_path: Path) -> None:
    files = locate_model(f"path:{folder}", cache=tmp_path, folder=tmp_path)
    with pytest.raises(SaerlError, match="3 blocks"):
        Reader.load(files, layers=(3,), dtype="float32", device="cpu")
