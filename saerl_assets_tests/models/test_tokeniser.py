"""Where a text starts: the beginning-of-sequence token, whatever the tokenizer does by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.sources import ModelFiles, locate_model
from saerl_assets.models.tokeniser import Bos, Template, Tokeniser
from saerl_assets_tests.tiny import write_model

BOS, EOS = 256, 257


@pytest.fixture(params=[False, True], ids=["adds no bos", "adds a bos"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> ModelFiles:
    """A model whose tokenizer has the token, and adds it by itself or not."""
    from tokenizers import processors
    from transformers import AutoTokenizer

    write_model(tmp_path / "model")
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path / "model")
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    if request.param:
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", BOS)]
        )
    tokenizer.chat_template = "<s>{% for message in messages %}{{ message['content'] }}{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "model")
    return locate_model("path:model", cache=tmp_path, folder=tmp_path)


@pytest.mark.parametrize("template", ["plain", "chat"])
@pytest.mark.parametrize(("bos", "n_bos"), [("always", 1), ("never", 0)])
def test_it_is_there_once_or_not_at_all(files: ModelFiles, template: Template, bos: Bos, n_bos: int) -> None:
    tokeniser = Tokeniser.load(files, template, bos)
    messages: list[dict[str, str]] = [{"role": "user", "content": "ab"}]
    read = tokeniser([messages if template == "chat" else "ab"], ["c"])[0]
    assert len(read.token_ids) == n_bos + 3
    assert read.token_ids[:n_bos] == [BOS] * n_bos
    assert BOS not in read.token_ids[n_bos:]
    assert read.n_prefix_tokens == n_bos + 2
    assert tokeniser.bos_token_id == BOS


def test_by_default_the_tokenizer_decides(files: ModelFiles, request: pytest.FixtureRequest) -> None:
    adds = "adds a bos" in request.node.name
    assert (Tokeniser.load(files, "plain")(["ab"], [None])[0].token_ids[0] == BOS) is adds


def test_a_tokenizer_without_the_token_says_so(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    found = locate_model("path:model", cache=tmp_path, folder=tmp_path)
    with pytest.raises(SaerlError, match=r"reader\.bos") as caught:
        Tokeniser.load(found, "plain", "always")
    assert caught.value.code == "no_bos"
    assert Tokeniser.load(found, "plain", "never").bos_token_id is None
