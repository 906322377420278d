"""Health as it is measured for a version: what a model without predictions means, or a text without its first token."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from saerl_assets.automation.summary import run_version
from saerl_assets.domain.progress import silent
from saerl_assets.resources.compute import ComputeResource
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.reading import Reading
from saerl_assets.resources.sae_health import measure_health
from saerl_assets_tests.models.random_saes import with_config
from saerl_assets_tests.tiny import TinyWorld, write_fitted_sae, write_model

TABLES = ("prompts", "sae_weights")
UNUSED_SYMBOL = "Ā"  # the byte 0, which no prompt holds


@pytest.fixture(scope="module")
def inputs(tiny_world: TinyWorld) -> TinyWorld:
    """A model with a head, one whose tokenizer has a first token, and an SAE that was trained on texts with one."""
    from transformers import AutoTokenizer

    write_model(tiny_world.folder / "whole", has_head=True)
    write_model(tiny_world.folder / "with-bos")
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_world.folder / "with-bos")
    tokenizer.add_special_tokens({"bos_token": UNUSED_SYMBOL})
    tokenizer.save_pretrained(tiny_world.folder / "with-bos")
    sae = tiny_world.folder / "sae-with-bos"
    write_fitted_sae(sae, tiny_world.folder / "with-bos", layer=1)
    with_config(sae, metadata={"sae_lens_version": "6.0.0", "prepend_bos": True})
    return tiny_world


def measured(world: TinyWorld, home: HomeResource, **changes: object) -> tuple[dict[str, Any], list[str]]:
    """The row of `sae_health`, and what was said while it was measured."""
    world.register(home, "measured-v1", **changes)
    done = run_version(home, "measured-v1", only=["versions", "prompts", "sae_weights"])
    assert done.success, done.failure
    said: list[str] = []
    reading = Reading(home, ComputeResource(), "measured-v1", said.append)
    prompts, weights = (home.warehouse().rows(name, dataset_version="measured-v1") for name in TABLES)
    (row,) = measure_health(reading, prompts, weights, silent).to_dicts()
    return row, said


def test_a_bare_decoder_has_no_loss_and_it_is_said_how_to_get_one(inputs: TinyWorld, fresh_home: HomeResource) -> None:
    row, said = measured(inputs, fresh_home)
    assert (row["loss_clean"], row["loss_spliced"], row["loss_ablated"], row["loss_recovered"]) == (None,) * 4
    assert row["n_tokens_predicted"] == 0
    assert len(row["layer_profile"]) == 3, "the rest is measured all the same"
    assert row["explained_variance"] > 0
    (told,) = [line for line in said if "loss" in line]
    assert "next-token loss is not measured" in told
    assert "without a language-model head" in told
    assert "reader.model" in told


def test_a_whole_model_has_one_and_nothing_is_said_of_it(inputs: TinyWorld, fresh_home: HomeResource) -> None:
    row, said = measured(inputs, fresh_home, reader={"model": "path:whole"}, sae={"min_loss_recovered": -99.0})
    assert row["loss_clean"] > 0
    assert row["n_tokens_predicted"] > 500
    assert not [line for line in said if "loss" in line]


def test_positions_that_an_sae_was_not_trained_on_are_left_out(inputs: TinyWorld, fresh_home: HomeResource) -> None:
    whole, _ = measured(inputs, fresh_home)
    sae = Path(shutil.copytree(inputs.folder / "sae", inputs.folder / "sae-from-3", dirs_exist_ok=True))
    with_config(sae, metadata={"sae_lens_version": "6.0.0", "seqpos_slice": [3, None]})
    inputs.register(fresh_home, "later-v1", sae={"source": ["path:sae-from-3"]})
    assert run_version(fresh_home, "later-v1", only=["versions", "prompts", "sae_weights"]).success
    reading = Reading(fresh_home, ComputeResource(), "later-v1", lambda _words: None)
    prompts, weights = (fresh_home.warehouse().rows(name, dataset_version="later-v1") for name in TABLES)
    (later,) = measure_health(reading, prompts, weights, silent).to_dicts()
    n_texts = sum(len(shard.texts) for shard in reading.sample(prompts))
    assert later["n_tokens"] + later["n_sink_tokens"] == whole["n_tokens"] + whole["n_sink_tokens"] - 3 * n_texts
    assert fresh_home.warehouse().rows("sae_weights")["reading_id"].n_unique() == 2, "the rows are not the same"


@pytest.mark.parametrize(
    ("reader", "is_told"),
    [
        ({"model": "path:with-bos"}, True),
        ({"model": "path:with-bos", "bos": "always"}, False),
        ({"model": "path:model"}, False),  # there is no such token to add: 'set reader.bos' would lead nowhere
    ],
)
def test_the_first_token_that_an_sae_expects_is_asked_for_where_there_is_one(
    inputs: TinyWorld, fresh_home: HomeResource, reader: dict[str, str], *, is_told: bool
) -> None:
    # the two models have the same weights
    row, _ = measured(inputs, fresh_home, reader=reader, sae={"source": ["path:sae-with-bos"]})
    assert ("reader.bos = 'always'" in row["explanation"]) is is_told
