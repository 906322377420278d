"""What the conformance tests with OpenRLHF share: an export as users get it, OpenRLHF's own arguments, its strategy.

Belongs here: fixtures. Does not belong here: anything that stands in for OpenRLHF. vLLM and flash-attn, which need a
GPU, are stood in for by `stubs/`, as far as OpenRLHF imports them.
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openrlhf
import polars as pl
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, PreTrainedTokenizerFast

from saerl_assets.trainers.export import ExportRequest, write_export
from saerl_assets.trainers.openrlhf_launcher import openrlhf_arguments

BATCH_SIZE = 4
N_PROMPTS = 24  # two epochs of three batches
PACKAGE = Path(openrlhf.__file__).parent
STUBS = Path(__file__).parent / "stubs"


@dataclass(frozen=True)
class Export:
    """An export and the order that it stands for."""

    folder: Path
    batches: list[list[str]]
    """Prompt ids of every batch."""

    @property
    def order(self) -> list[str]:
        """Prompt ids of all batches, one after the other."""
        return [prompt_id for batch in self.batches for prompt_id in batch]


def make_export(folder: Path, *, turn: int = 7, is_chat: bool = False) -> Export:
    """Two epochs; the second has the prompts of the first in another order."""
    half = N_PROMPTS // 2
    order = [at * turn % half for at in range(half)] + [(at * 5 + 1) % half for at in range(half)]
    turns = [{"role": "system", "content": "Be brief."}] if is_chat else []
    place = range(N_PROMPTS)
    rows = pl.DataFrame(
        {
            "epoch": [at // half for at in place],
            "step": [at % half // BATCH_SIZE for at in place],
            "slot": [at % BATCH_SIZE for at in place],
            "prompt_id": [f"prompt{at:02d}" for at in order],
            "messages": [json.dumps([*turns, {"role": "user", "content": f"What is {at}?"}]) for at in order],
            "is_chat": [is_chat] * N_PROMPTS,
            "answer": [str(at) if at else None for at in order],
            "topic": ["sums" if at % 2 else None for at in order],
            "cluster_id": [at % 3 for at in order],
            "difficulty": [at / 7 for at in order],
            "extra": ["{}"] * N_PROMPTS,
            "is_padding": [False] * N_PROMPTS,
        }
    )
    write_export(
        "openrlhf", ExportRequest(rows, f"{turn}" * 64, "some-v1", "clustered", BATCH_SIZE, "s" * 64, {}), folder
    )
    ids = rows["prompt_id"].to_list()
    return Export(folder, [ids[start : start + BATCH_SIZE] for start in range(0, N_PROMPTS, BATCH_SIZE)])


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    return make_export(tmp_path_factory.mktemp("export") / "a")


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a model: a configuration and a tokenizer of words with a chat template, no weights."""
    folder = tmp_path_factory.mktemp("policy")
    words = ["[UNK]", "[EOS]", "What", "is", "?", *map(str, range(N_PROMPTS))]
    tokens = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token="[UNK]"))
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="[UNK]", eos_token="[EOS]")
    tokenizer.chat_template = "{% for turn in messages %}<{{ turn.role }}>{{ turn.content }}{% endfor %}<assistant>"
    tokenizer.save_pretrained(folder)
    GPT2Config(n_layer=1, n_head=1, n_embd=4, vocab_size=len(words)).save_pretrained(folder)
    return folder


def arguments_of(*given: str) -> Any:
    """OpenRLHF's own arguments, parsed by its own parser, which stands below `if __name__` of its script."""
    path = PACKAGE / "cli" / "train_ppo_ray.py"
    main = next(node for node in ast.parse(path.read_text()).body if isinstance(node, ast.If))
    until = next(at for at, node in enumerate(main.body) if "parse_args" in ast.unparse(node))
    names: dict[str, Any] = {}
    header = "import argparse\nfrom datetime import datetime\n"
    exec(header + "\n".join(map(ast.unparse, main.body[:until])), names)
    from openrlhf.utils.config import hierarchize

    return hierarchize(names["parser"].parse_args(given))


def started_with(export: Export, checkpoints: Path, *given: str) -> Any:
    """Arguments as the launcher gives them to OpenRLHF."""
    return arguments_of(*openrlhf_arguments(export.folder, ["--ckpt.path", str(checkpoints), *given]))
