"""What the conformance tests with ms-swift share: an export as users get it, and a tiny policy of random weights."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pytest
import torch
from swift.cli.main import parse_yaml_args
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from saerl_assets.trainers.export import ExportRequest, write_export

os.environ |= {"USE_HF": "1", "HF_HUB_OFFLINE": "1"}  # else it asks a hub about the policy

BATCH_SIZE = 4
N_PROMPTS = 24  # two epochs of three batches


@dataclass(frozen=True)
class Export:
    """An export and the order that it stands for."""

    folder: Path
    batches: list[list[str]]
    """Prompt ids of every batch."""

    def arguments(self, **further: object) -> list[str]:
        """What `swift rlhf FOLDER/grpo.yaml --dataset FOLDER/train.parquet ...` makes of its command line."""
        argv = [str(self.folder / "grpo.yaml"), "--dataset", str(self.folder / "train.parquet")]
        argv += [word for name, value in further.items() for word in (f"--{name}", str(value))]
        parse_yaml_args(argv)
        return argv


def make_export(folder: Path) -> Export:
    """Two epochs; the second has the prompts of the first in another order."""
    half = N_PROMPTS // 2
    order = [at * 7 % half for at in range(half)] + [(at * 5 + 1) % half for at in range(half)]
    place = range(N_PROMPTS)
    rows = pl.DataFrame(
        {
            "epoch": [at // half for at in place],
            "step": [at % half // BATCH_SIZE for at in place],
            "slot": [at % BATCH_SIZE for at in place],
            "prompt_id": [f"prompt{at:02d}" for at in order],
            "messages": [json.dumps([{"role": "user", "content": f"What is {at} ?"}]) for at in order],
            "is_chat": [False] * N_PROMPTS,
            "answer": [str(at) if at else None for at in order],
            "topic": ["sums" if at % 2 else None for at in order],
            "cluster_id": [at % 3 for at in order],
            "difficulty": [at / 7 for at in order],
            "extra": ["{}"] * N_PROMPTS,
            "is_padding": [False] * N_PROMPTS,
        }
    )
    write_export("ms_swift", ExportRequest(rows, "m" * 64, "some-v1", "clustered", BATCH_SIZE, "s" * 64, {}), folder)
    ids = rows["prompt_id"].to_list()
    return Export(folder, [ids[start : start + BATCH_SIZE] for start in range(0, N_PROMPTS, BATCH_SIZE)])


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    return make_export(tmp_path_factory.mktemp("export") / "a")


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers with random weights, and its tokenizer of bytes."""
    folder = tmp_path_factory.mktemp("policy")
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [*marks, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens = Tokenizer(models.BPE({word: at for at, word in enumerate(words)}, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    tokens.add_special_tokens(marks)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen2Config(vocab_size=len(words), num_key_value_heads=2, max_position_embeddings=256, **sizes)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder
