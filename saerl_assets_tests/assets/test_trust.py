"""SAEs that do not belong to the model or the layer that is read: refused before anything is built on them."""

from __future__ import annotations

import json
import shutil

import pytest

from saerl_assets.automation.summary import run_version
from saerl_assets.domain.errors import SaerlError
from saerl_assets.models.sources import ModelFiles
from saerl_assets.models.whole_model import WholeModel
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.tiny import TRAINED_SAE, TinyWorld, source_rows, write_fitted_sae, write_model, write_rows

UP_TO_HEALTH = ("versions", "prompts", "sae_weights", "sae_health")
READER = {"model": "path:headed", "layers": [1]}


@pytest.fixture(scope="module")
def saes(tiny_world: TinyWorld) -> TinyWorld:
    """The tiny world with a model that predicts, and SAEs that do and do not belong to its layer 1."""
    folder = tiny_world.folder
    write_model(folder / "headed", has_head=True)
    write_model(folder / "stranger", seed=1)
    write_fitted_sae(folder / "fitting", folder / "headed", layer=1)
    write_fitted_sae(folder / "other-layer", folder / "headed", layer=0)
    write_fitted_sae(folder / "other-model", folder / "stranger", layer=1)
    write_fitted_sae(folder / "shuffled", folder / "headed", layer=1, shuffled=True)
    return tiny_world


def test_one_that_belongs_passes_with_its_figures(saes: TinyWorld, fresh_home: HomeResource) -> None:
    saes.register(fresh_home, "fitting-v1", reader=READER, sae={"source": ["path:fitting"]})
    assert run_version(fresh_home, "fitting-v1", only=UP_TO_HEALTH).success
    health = fresh_home.warehouse().rows("sae_health", dataset_version="fitting-v1").row(0, named=True)
    assert health["verdict"] != "unfit"
    assert health["explained_variance"] > 0.5
    assert max(range(3), key=health["layer_profile"].__getitem__) == 1
    assert health["loss_clean"] is not None
    assert health["n_tokens_predicted"] > 500


@pytest.mark.parametrize(
    ("sae", "figure"),
    [("other-layer", "it belongs to layer 0"), ("other-model", "of the variance"), ("shuffled", "of the variance")],
)
def test_one_that_does_not_belong_is_refused_before_the_prompts_are_read(
    sae: str, figure: str, saes: TinyWorld, fresh_home: HomeResource
) -> None:
    saes.register(fresh_home, "refused-v1", reader=READER, sae={"source": [f"path:{sae}"]})
    failed = run_version(fresh_home, "refused-v1")
    assert not failed.success
    assert figure in failed.failure.splitlines()[0]
    warehouse = fresh_home.warehouse()
    assert warehouse.rows("sae_health", dataset_version="refused-v1")["verdict"].to_list() == ["unfit"]
    assert warehouse.rows("prompt_features").is_empty()
    assert warehouse.rows("batch_manifest", dataset_version="refused-v1").is_empty()


def test_what_was_measured_is_not_measured_again(
    saes: TinyWorld, fresh_home: HomeResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = WholeModel.load

    def counted(files: ModelFiles, **how: str) -> WholeModel:
        loads.append(files.digest)
        return load(files, **how)

    monkeypatch.setattr(WholeModel, "load", counted)
    for key, size in (("measured-v1", 8), ("measured-v2", 10)):
        saes.register(fresh_home, key, reader=READER, sae={"source": ["path:fitting"]}, batches={"batch_size": size})
        assert run_version(fresh_home, key, only=UP_TO_HEALTH).success
    assert len(loads) == 1
    rows = fresh_home.warehouse().rows("sae_health").drop("dataset_version")
    assert rows[0].equals(rows[1])


def test_the_rest_of_the_model_can_be_left_out(
    saes: TinyWorld, fresh_home: HomeResource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WholeModel, "load", classmethod(lambda *_a, **_k: pytest.fail("the whole model was loaded")))
    saes.register(fresh_home, "spare-v1", reader=READER, sae={"source": ["path:fitting"], "health_tokens": 0})
    assert run_version(fresh_home, "spare-v1", only=UP_TO_HEALTH).success
    health = fresh_home.warehouse().rows("sae_health").row(0, named=True)
    assert (health["layer_profile"], health["loss_recovered"]) == ([], None)


@pytest.mark.slow  # sae_lens alone takes eight seconds to import
def test_an_sae_can_be_trained_on_a_corpus_of_its_own(saes: TinyWorld, fresh_home: HomeResource) -> None:
    texts = [f"{row['question']} {row['reply']} " * 4 for row in source_rows(150, seed=5)]
    write_rows(saes.folder / "corpus.jsonl", [json.dumps({"meta": {"body": text}}) for text in texts])
    own = {**TRAINED_SAE, "min_explained_variance": 0.0, "min_loss_recovered": -9.0}
    corpus = {"corpus": "path:corpus.jsonl", "corpus_field": "meta.body", "max_activation_tokens": 6_000}
    for key, sae in (("own-v1", own), ("corpus-v1", own | corpus)):
        saes.register(fresh_home, key, reader=READER, sae=sae)
        done = run_version(fresh_home, key, only=UP_TO_HEALTH)
        assert done.success, done.failure
    weights = fresh_home.warehouse().rows("sae_weights").sort("dataset_version")
    assert weights["digest"].n_unique() == 2
    facts = json.loads(weights["training"][0])
    assert facts["corpus"] == "path:corpus.jsonl"
    assert 5_000 < facts["distinct_tokens"] < 6_500
    shutil.copy(saes.folder / "prompts.jsonl", saes.folder / "corpus.jsonl")
    with pytest.raises(SaerlError, match=r"sae\.corpus"):
        fresh_home.catalog().verify_sources(fresh_home.version("corpus-v1"))
