"""The truncated reader against the full model of every architecture, and what is wrong with a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.reader import Reader
from saerl_assets.models.sources import ModelFiles, locate_model
from saerl_assets.models.tokeniser import Tokeniser
from saerl_assets_tests.tiny import TinyWorld

COMMON: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
GROUPED = {**COMMON, "num_key_value_heads": 2}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**GROUPED),
    "mistral": MistralConfig(**GROUPED, sliding_window=5),
    "qwen2": Qwen2Config(**GROUPED),
    "qwen3": Qwen3Config(**GROUPED, head_dim=8),
    "gemma": GemmaConfig(**GROUPED, head_dim=8),
    "gemma2": Gemma2Config(**GROUPED, head_dim=8, sliding_window=5),
    "gemma3": Gemma3TextConfig(
        **GROUPED, head_dim=8, sliding_window=5, layer_types=["sliding_attention", "full_attention"] * 2
    ),
    "gpt2": GPT2Config(vocab_size=128, n_embd=32, n_layer=4, n_head=4, n_positions=64),
    "gpt_neox": GPTNeoXConfig(**COMMON, max_position_embeddings=64),
}
TEXTS = [[5, 9, 17], [3] * 11, [7, 8, 9, 10, 11, 12], [1]]


def saved(folder: Path, config: PretrainedConfig) -> tuple[ModelFiles, Any]:
    from transformers import AutoModel

    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    return locate_model(f"path:{folder}", cache=folder, folder=folder), model


def hidden_states(model: Any, ids: list[int]) -> list[torch.Tensor]:  # noqa: ANN401 - any architecture
    """The residual stream after each block, of one text alone; the last one before the final norm."""
    caught: list[torch.Tensor] = []
    blocks = next(module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    hook = blocks[-1].register_forward_hook(
        lambda _module, _inputs, output: caught.append(output if isinstance(output, torch.Tensor) else output[0])
    )
    with torch.no_grad():
        found = model(input_ids=torch.tensor([ids]), output_hidden_states=True).hidden_states
    hook.remove()
    return [*(states[0] for states in found[1:-1]), caught[0][0]]


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_the_cut_off_reader_gives_the_hidden_states_of_the_full_model(tmp_path: Path, name: str) -> None:
    files, model = saved(tmp_path / name, CONFIGS[name])
    wanted = [hidden_states(model, ids) for ids in TEXTS]
    found = Reader.load(files, layers=range(4), dtype="float32", device="cpu").read(TEXTS)
    assert sorted(found) == [0, 1, 2, 3]
    for layer in range(4):
        texts = torch.cat([states[layer] for states in wanted])
        torch.testing.assert_close(found[layer], texts, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_a_cut_below_the_last_block_changes_nothing_and_bfloat16_little(tmp_path: Path, name: str) -> None:
    files, model = saved(tmp_path / name, CONFIGS[name])
    wanted = torch.cat([hidden_states(model, ids)[2] for ids in TEXTS])
    (found,) = Reader.load(files, layers=(2,), dtype="float32", device="cpu").read(TEXTS).values()
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    (rounded,) = Reader.load(files, layers=(2,), dtype="bfloat16", device="cpu").read(TEXTS).values()
    assert rounded.dtype == torch.bfloat16
    off = (rounded.float() - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    assert float(off.max()) < 0.05


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3"])
def test_the_window_of_these_models_is_shorter_than_the_texts(tmp_path: Path, name: str) -> None:
    """Else the tests above would say nothing about it."""
    config = CONFIGS[name]
    files, _ = saved(tmp_path / name, config)
    assert config.sliding_window < len(TEXTS[1])
    first_changed = [TEXTS[2][0], *TEXTS[1][1:]]
    (a,) = Reader.load(files, layers=(0,), dtype="float32", device="cpu").read([TEXTS[1]]).values()
    (b,) = Reader.load(files, layers=(0,), dtype="float32", device="cpu").read([first_changed]).values()
    differs = (a - b).abs().amax(dim=-1) > 1e-6
    assert differs[: config.sliding_window].all()
    assert not differs[config.sliding_window :].any()


def test_the_pass_ends_with_the_layer(tmp_path: Path) -> None:
    files, _ = saved(tmp_path / "m", CONFIGS["llama"])
    reader = Reader.load(files, layers=(1,), dtype="float32", device="cpu")
    seen: list[str] = []
    for name, module in reader._model.named_modules():
        module.register_forward_hook(lambda _module, _inputs, _output, name=name: seen.append(name))
    reader.read(TEXTS)
    assert "layers.0" in seen
    assert "norm" not in seen
    assert "" not in seen


def test_the_number_format_and_the_device_are_the_wanted_ones(tmp_path: Path) -> None:
    files, model = saved(tmp_path / "m", CONFIGS["qwen2"])
    reader = Reader.load(files, layers=(1,), dtype="bfloat16", device="cpu")
    (found,) = reader.read(TEXTS).values()
    assert found.dtype == reader.dtype == torch.bfloat16
    assert (reader.d_model, reader.n_blocks, reader.device.type) == (32, 4, "cpu")
    with torch.no_grad():
        whole = model(input_ids=torch.tensor([TEXTS[0]]), output_hidden_states=True).hidden_states[2][0]
    torch.testing.assert_close(found[:3].float(), whole, atol=0.05, rtol=0.05)


def test_a_text_longer_than_the_model_reads_is_refused(tmp_path: Path) -> None:
    files, _ = saved(tmp_path / "m", CONFIGS["gpt2"])
    reader = Reader.load(files, layers=(0,), dtype="float32", device="cpu")
    assert len(reader.read([[1] * 64])[0]) == 64
    with pytest.raises(SaerlError, match="65 tokens") as caught:
        reader.read([[1] * 65])
    assert caught.value.code == "text_too_long"


def test_a_token_that_the_model_does_not_know_is_refused(tmp_path: Path) -> None:
    files, _ = saved(tmp_path / "m", CONFIGS["llama"])
    reader = Reader.load(files, layers=(0,), dtype="float32", device="cpu")
    with pytest.raises(SaerlError) as caught:
        reader.read([[1, 128]])
    assert caught.value.code == "token_unknown"


def test_weights_that_the_files_lack_are_named_not_invented(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    files, _ = saved(tmp_path / "m", CONFIGS["llama"])
    weights = tmp_path / "m" / "model.safetensors"
    kept = {name: tensor for name, tensor in load_file(weights).items() if "layers.1.mlp" not in name}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(SaerlError, match=r"layers\.1\.mlp") as caught:
        Reader.load(files, layers=(2,), dtype="float32", device="cpu")
    assert caught.value.code == "model_incomplete"


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    saved(folder, CONFIGS["llama"])
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(SaerlError, match="are not read") as caught:
        locate_model(f"path:{folder}", cache=tmp_path, folder=tmp_path)
    assert caught.value.code == "model_without_weights"


def test_blocks_above_the_layer_are_not_in_memory(tmp_path: Path) -> None:
    files, model = saved(tmp_path / "m", CONFIGS["llama"])
    reader = Reader.load(files, layers=(1,), dtype="float32", device="cpu")
    kept = sum(parameter.numel() for parameter in reader._model.parameters())
    block = sum(parameter.numel() for parameter in model.layers[0].parameters())
    final_norm = model.norm.weight.numel()
    assert kept == model.embed_tokens.weight.numel() + 2 * block + final_norm


def test_a_text_does_not_depend_on_its_neighbours_beyond_rounding(tmp_path: Path) -> None:
    files, _ = saved(tmp_path / "m", CONFIGS["mistral"])
    reader = Reader.load(files, layers=(2,), dtype="float32", device="cpu")
    alone = torch.cat([reader.read([ids])[2] for ids in TEXTS])
    torch.testing.assert_close(reader.read(TEXTS)[2], alone, atol=1e-5, rtol=1e-5)


def test_a_layer_beyond_the_model_names_its_blocks(tmp_path: Path) -> None:
    files, _ = saved(tmp_path / "m", CONFIGS["llama"])
    with pytest.raises(SaerlError, match="4 blocks"):
        Reader.load(files, layers=(4,), dtype="float32", device="cpu")


def test_corrupt_weights_are_named(tmp_path: Path) -> None:
    files, _ = saved(tmp_path / "m", CONFIGS["llama"])
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(SaerlError) as caught:
        Reader.load(files, layers=(0,), dtype="float32", device="cpu")
    assert caught.value.code == "model_corrupt"
    assert str(tmp_path / "m") in caught.value.where


@pytest.mark.parametrize(
    ("remove", "code"),
    [("model.safetensors", "model_without_weights"), ("config.json", "model_without_config"), ("", "model_missing")],
)
def test_an_incomplete_model_says_what_is_missing(tmp_path: Path, remove: str, code: str) -> None:
    folder = tmp_path / "m"
    if remove:
        saved(folder, CONFIGS["llama"])
        (folder / remove).unlink()
    with pytest.raises(SaerlError) as caught:
        locate_model(f"path:{folder}", cache=tmp_path, folder=tmp_path)
    assert caught.value.code == code
    assert str(folder) in caught.value.where
    assert caught.value.remedy


@pytest.mark.parametrize("source", ["nowhere:x", "pypi:no-version", "hf:a b"])
def test_a_source_that_names_no_model_says_how_to_write_one(tmp_path: Path, source: str) -> None:
    with pytest.raises(SaerlError, match=r"Write (path|pypi|hf):"):
        locate_model(source, cache=tmp_path, folder=tmp_path)


def test_the_digest_sees_every_byte(tmp_path: Path) -> None:
    first, _ = saved(tmp_path / "m", CONFIGS["llama"])
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-4}))
    second = locate_model(f"path:{tmp_path / 'm'}", cache=tmp_path, folder=tmp_path)
    assert first.digest != second.digest


def test_tokenising_plain_chat_and_responses(tiny_world: TinyWorld) -> None:
    files = locate_model("path:model", cache=tiny_world.folder, folder=tiny_world.folder)
    plain, chat = Tokeniser.load(files, "plain"), Tokeniser.load(files, "chat")
    (alone,) = plain(["ab"], [None])
    (spoken,) = plain(["ab"], ["cd"])
    assert alone.n_prefix_tokens == 0
    assert spoken.token_ids[: spoken.n_prefix_tokens] == alone.token_ids
    assert len(spoken.token_ids) == len(alone.token_ids) + 2
    (rendered,) = chat([[{"role": "user", "content": "ab"}]], [None])
    assert len(rendered.token_ids) == len("<user>ab\n<assistant>")
    (joined,) = plain([[{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]], [None])
    assert len(joined.token_ids) == 3


def test_a_chat_template_that_refuses_says_so(tiny_world: TinyWorld) -> None:
    files = locate_model("path:model", cache=tiny_world.folder, folder=tiny_world.folder)
    chat = Tokeniser.load(files, "chat")
    chat._tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(SaerlError, match="roles must alternate") as caught:
        chat([[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]], [None])
    assert caught.value.code == "template_refused"


def test_a_string_in_a_chat_template_is_one_user_message(tiny_world: TinyWorld) -> None:
    files = locate_model("path:model", cache=tiny_world.folder, folder=tiny_world.folder)
    chat = Tokeniser.load(files, "chat")
    assert chat(["ab"], [None]) == chat([[{"role": "user", "content": "ab"}]], [None])


def test_a_chat_template_that_is_not_there(tiny_world: TinyWorld, tmp_path: Path) -> None:
    files = locate_model("path:model", cache=tiny_world.folder, folder=tiny_world.folder)
    for file in files.folder.iterdir():
        if "chat_template" not in file.name:
            content = file.read_bytes()
            if file.name == "tokenizer_config.json":
                settings = json.loads(content)
                settings.pop("chat_template", None)
                content = json.dumps(settings).encode()
            (tmp_path / file.name).write_bytes(content)
    bare = locate_model(f"path:{tmp_path}", cache=tmp_path, folder=tmp_path)
    with pytest.raises(SaerlError, match="template = 'plain'"):
        Tokeniser.load(bare, "chat")
