"""A world small enough to build the whole graph in seconds: a random model, an SAE that fits it, prompts, and specs.

Belongs here: making these files. Does not belong here: tests, and fixtures, which are in `conftest`.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saerl_assets.automation.jobs import ON_REQUEST
from saerl_assets.automation.runs import add_partition, open_instance
from saerl_assets.domain.spec import parse_spec
from saerl_assets.resources.home import HomeResource
from saerl_assets.storage.catalog import Version
from saerl_assets.storage.schema import tables

D_MODEL = 32
N_BLOCKS = 3
N_LATENTS = 2 * D_MODEL
N_PROMPTS = 120
N_DUPLICATES = 6
N_REJECTED = 3
MAX_TOKENS = 64
BATCH_SIZE = 8
KEY = "tiny-v1"
MADE_BY_A_RUN = frozenset(tables()) - set(ON_REQUEST)
"""What a run of a version makes: every table but those that somebody has to ask for."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@dataclass(frozen=True)
class TinyWorld:
    """A folder with `model/`, `sae/` and `prompts.jsonl`; specs in it name them by relative paths."""

    folder: Path

    def write_spec(self, key: str = KEY, /, **changes: object) -> Path:
        """Writes `<key>.toml` into the folder; see `tiny_spec` for the changes."""
        path = self.folder / f"{key}.toml"
        path.write_text(as_toml(tiny_spec(key, **changes)), encoding="utf-8")
        return path

    def register(self, home: HomeResource, key: str = KEY, /, **changes: object) -> Version:
        """Registers a version as the command line does."""
        path = self.write_spec(key, **changes)
        version = home.catalog().register(parse_spec(path.read_text(), str(path)), self.folder)
        with open_instance(home.open().dagster) as instance:
            add_partition(instance, key)
        return version


def make_world(folder: Path) -> TinyWorld:
    """Writes everything that a tiny version needs."""
    write_model(folder / "model")
    write_sae(folder / "sae")
    write_rows(folder / "prompts.jsonl", source_lines())
    return TinyWorld(folder)


def write_model(
    folder: Path, *, n_blocks: int = N_BLOCKS, d_model: int = D_MODEL, seed: int = 0, has_head: bool = False
) -> None:
    """A Llama with random weights and a tokenizer of single bytes, as safetensors; a bare decoder by default."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel, PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    make: Any = PreTrainedTokenizerFast
    wrapped = make(tokenizer_object=tokenizer, chat_template=CHAT_TEMPLATE)
    wrapped.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(symbols),
        hidden_size=d_model,
        intermediate_size=2 * d_model,
        num_hidden_layers=n_blocks,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    torch.manual_seed(seed)
    model: Any = (LlamaForCausalLM if has_head else LlamaModel)(config)
    model.save_pretrained(folder)


def write_sae(folder: Path, *, d_in: int = D_MODEL, k: int = D_MODEL // 2, seed: int = 0) -> None:
    """A TopK SAE in SAELens's layout that fits any model of its width, without training.

    Its latents are the two directions of every axis of a random orthonormal basis, so the k largest of the d_in
    coordinates of an activation are reconstructed exactly and only the rest is lost.
    """
    import numpy as np

    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(d_in, d_in)))[0].astype(np.float32)
    save_topk(folder, np.concatenate([basis, -basis]), np.zeros(d_in, np.float32), k)


def write_fitted_sae(folder: Path, model: Path, *, layer: int, n_directions: int = 12, shuffled: bool = False) -> None:
    """A TopK SAE that fits one layer of one model: the principal directions of its activations on the tiny prompts.

    Args:
        folder: Where it is put.
        model: Folder of the model, as `write_model` makes it.
        layer: Block whose output it reconstructs.
        n_directions: How many directions it keeps; it has two latents for each.
        shuffled: Puts every weight of the encoder somewhere else in it.
    """
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, reader = AutoTokenizer.from_pretrained(model), AutoModel.from_pretrained(model)
    with torch.inference_mode():
        asked = [tokenizer(row["question"], return_tensors="pt") for row in source_rows()]
        found = [reader(**ids, output_hidden_states=True).hidden_states for ids in asked]
    states = torch.cat([hidden[layer + 1][0] for hidden in found]).double()
    mean = states.mean(dim=0)
    directions = torch.linalg.eigh((states - mean).T @ (states - mean)).eigenvectors.T.flip(0)[:n_directions]
    decoder = torch.cat([directions, -directions]).float().numpy()
    encoder = np.random.default_rng(0).permuted(decoder) if shuffled else decoder
    save_topk(folder, decoder, mean.float().numpy(), n_directions, encoder=encoder)


def save_topk(folder: Path, decoder: Any, bias: Any, k: int, *, encoder: Any = None) -> None:  # noqa: ANN401 - arrays
    """A TopK SAE in SAELens's layout: float32 decoder [n_latents, d_in] and bias [d_in]; the encoder is its like."""
    import numpy as np
    from safetensors.numpy import save_file

    n_latents, d_in = decoder.shape
    folder.mkdir(parents=True, exist_ok=True)  # a module that a worker comes back to sets up again
    save_file(
        {
            "W_enc": np.ascontiguousarray((decoder if encoder is None else encoder).T),
            "W_dec": np.ascontiguousarray(decoder),
            "b_enc": np.zeros(n_latents, np.float32),
            "b_dec": bias,
        },
        folder / "sae_weights.safetensors",
    )
    config = {
        "architecture": "topk",
        "d_in": d_in,
        "d_sae": n_latents,
        "k": k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {"sae_lens_version": "6.0.0"},
    }
    (folder / "cfg.json").write_text(json.dumps(config))


def source_rows(n: int = N_PROMPTS, *, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with distinct prompts of four families and three levels; how often they are solved depends on both."""
    rng = random.Random(seed)  # noqa: S311 - test data
    rows: dict[str, dict[str, Any]] = {}
    while len(rows) < n:
        family = ("sum", "double", "spell", "compare")[len(rows) % 4]
        level = 1 + len(rows) // 4 % 3
        a, b = rng.randrange(10**level), rng.randrange(10**level)
        word = "".join(rng.choice("aeioubdgklmnprst") for _ in range(2 + 3 * level))
        question, answer = {
            "sum": (f"What is {a} + {b}?", str(a + b)),
            "double": (f"Double the number {a}{b}.", str(2 * int(f"{a}{b}"))),
            "spell": (f"Spell backwards: {word}", word[::-1]),
            "compare": (f"Is {a} larger than {b}? yes/no", "yes" if a > b else "no"),
        }[family]
        chance = {"sum": 0.95, "double": 0.8, "spell": 0.1, "compare": 0.5}[family] - 0.1 * level
        rows.setdefault(
            question,
            {
                "question": question,
                "answer": answer,
                "family": family,
                "level": level,
                "correct": rng.random() < chance,
                "reply": f"I think it is {answer}.",
            },
        )
    return list(rows.values())


def source_lines() -> list[str]:
    """The rows as JSONL with duplicates, and with one line each that is broken, blank and too long."""
    rows = source_rows()
    lines = [json.dumps(row) for row in [*rows, *rows[:N_DUPLICATES]]]
    blank = json.dumps({**rows[0], "question": "   "})
    long = json.dumps({**rows[0], "question": "x" * (MAX_TOKENS + 1)})
    return [*lines[:10], '{"question": "no end', *lines[10:], blank, long]


def write_rows(path: Path, lines: list[str]) -> Path:
    """Writes lines; a convenience that returns the path."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def tiny_spec(key: str = KEY, /, **changes: object) -> dict[str, object]:
    """The spec as nested tables.

    Args:
        key: Key of the version.
        changes: By table what differs: `sae={"source": "train"}` changes single keys, `labels=None` leaves a table out.
            A value that is no table is a key of the top level.
    """
    document: dict[str, object] = {
        "key": key,
        "seed": 3,
        "data": {
            "source": "path:prompts.jsonl",
            "prompt": "question",
            "answer": "answer",
            "topic": "family",
            "max_rejected_fraction": 0.1,
        },
        "labels": {"difficulty": {"column": "level"}, "correct": {"column": "correct"}},
        "split": {"evaluation_fraction": 0.1},
        "reader": {"model": "path:model", "layers": [1], "max_tokens": MAX_TOKENS},
        "sae": {"source": ["path:sae"]},
        "clusters": {"k": 5},
        "difficulty": {"min_labels": 20, "with_length": True},
        "quality": {"min_labels": 20},
        "batches": {"batch_size": BATCH_SIZE},
    }
    for name, change in changes.items():
        before = document.get(name)
        if change is None:
            document.pop(name, None)
        elif isinstance(change, Mapping) and isinstance(before, Mapping):
            document[name] = {**before, **change}
        else:
            document[name] = change
    return document


TRAINED_SAE = {"source": "train", "n_latents": 64, "k": 8, "training_tokens": 8_000, "batch_tokens": 256}
"""Changes of `sae` that train one with `sae_lens`, whose import alone takes seconds."""


def as_toml(table: Mapping[str, object], path: str = "") -> str:
    """Nested tables as TOML text. Text, numbers, truth values and lists are written as JSON, which TOML reads alike."""
    plain = [f"{name} = {json.dumps(value)}" for name, value in table.items() if not isinstance(value, Mapping)]
    lines = ([f"[{path}]"] if path and plain else []) + plain
    for name, value in table.items():
        if isinstance(value, Mapping):
            lines += ["", as_toml(value, f"{path}.{name}" if path else name)]
    return "\n".join(lines).strip() + "\n"
