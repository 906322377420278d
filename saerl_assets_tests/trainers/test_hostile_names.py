"""Names in somebody's data and on the command line: they stay values, in every export and in its place."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.exports import export_arm
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.manifests import current_manifest
from saerl_assets.resources.planned_orders import find_planned_order
from saerl_assets.storage.artifacts import ArtifactStore
from saerl_assets.trainers.export import check_export, load_order, write_export
from saerl_assets_tests.tiny import KEY
from saerl_assets_tests.trainers.test_export import TRAINER_NAMES, request_of

PACKAGE = Path(__file__).resolve().parents[2] / "saerl_assets"
HOSTILE = [
    "../../up", "/etc/passwd", "..", ".", "", " ", "a/b", "a\\b", "it's", '"', ";", "x'; DROP TABLE prompts; --",
    "a\nb", "a\x00b", "\x1b[2J", "\u202ex", "\ufeff", "e\u0301", "\u00e9", "x" * 5_000, "prompt_id",
    "prompt", "answer",
    "step", "__class__", "${IFS}", "$(id)", "{{ 7 * 7 }}", "%s", "a.b", "0", "-", "--", "NULL",
]  # fmt: skip


@pytest.mark.parametrize("trainer", TRAINER_NAMES)
def test_columns_and_topics_of_any_name_are_exported_as_values(trainer: str, tmp_path: Path) -> None:
    request = request_of()
    extra = json.dumps(
        {name: f"value of {name}"[:50] for name in HOSTILE} | {"nested": {name: [1] for name in HOSTILE}}
    )
    topics = (HOSTILE * 2)[: request.rows.height]
    rows = request.rows.with_columns(extra=pl.lit(extra), topic=pl.Series(topics), answer=pl.Series(topics[::-1]))
    write_export(trainer, replace(request, rows=rows), tmp_path / "out")
    assert check_export(tmp_path / "out").trainer == trainer
    order = load_order(tmp_path / "out")
    assert order["prompt_id"].to_list() == rows["prompt_id"].to_list()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_trainer_or_an_arm_is_one_of_those_that_there_are(tiny_home: HomeResource, name: str, tmp_path: Path) -> None:
    version = tiny_home.version(KEY)
    manifest = current_manifest(tiny_home, version)
    prompts = tiny_home.warehouse().rows("prompts", dataset_version=KEY)
    pairs = tiny_home.warehouse().rows("preference_pairs", dataset_version=KEY)
    before = sorted(tiny_home.open().exports.rglob("*"))
    with pytest.raises(SaerlError, match="unknown_arm"):
        export_arm(tiny_home, version, manifest, prompts, pairs, "trl", name)
    with pytest.raises(SaerlError, match="unknown_trainer"):
        export_arm(tiny_home, version, manifest, prompts, pairs, name, "clustered", tmp_path / "out")
    with pytest.raises(SaerlError, match="unknown_trainer"):
        export_arm(tiny_home, version, manifest, prompts, pairs, name, "clustered")
    assert sorted(tiny_home.open().exports.rglob("*")) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_manifest_is_a_folder_that_proves_itself_or_one_that_is_known(tiny_home: HomeResource, name: str) -> None:
    with pytest.raises(SaerlError):
        find_planned_order(tiny_home, name)
    with pytest.raises(SaerlError):
        find_planned_order(tiny_home, KEY, name or "none")


@pytest.mark.parametrize("name", ["../../up", "/etc", "..", "", "a\x00b", "x" * 300, "0" * 63, "G" * 64, "a/" * 32])
def test_an_artefact_is_found_by_its_digest_alone(fresh_home: HomeResource, name: str) -> None:
    with pytest.raises(SaerlError, match="artifact_missing"):
        ArtifactStore(fresh_home.open()).find("sae", name)


def calls() -> list[tuple[str, ast.Call, str]]:
    """Every call in the package: where, the call, and its name with dots."""
    return [
        (f"{path.relative_to(PACKAGE)}:{node.lineno}", node, ast.unparse(node.func))
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def test_nothing_is_unpickled_or_run_that_comes_from_a_file() -> None:
    """The package's own calls; that a pickle which wants to run code is refused is tested with real ones elsewhere."""
    for place, call, name in calls():
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        last = name.rpartition(".")[2]
        assert name not in {"eval", "exec", "__import__"}, place
        assert not name.startswith(("pickle.", "cPickle.", "dill.", "joblib.", "shelve.", "marshal.")), place
        assert last not in {"extractall", "unpack_archive", "read_pickle"}, place
        assert not name.endswith(("archive.extract", "tar.extract")), place
        assert name not in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}, place
        assert given.get("allow_pickle", "False") == "False", place
        assert given.get("shell", "False") == "False", place
        assert given.get("trust_remote_code", "False") == "False", place
        if name == "torch.load":
            assert given.get("weights_only") == "True", place
