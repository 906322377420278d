"""Hygiene from the source to the order: copies are folded, evaluation rows are left out, each with its evidence."""

from __future__ import annotations

import json

import polars as pl
import pytest

from saerl_assets.assets.hygiene import evaluation_rows_of
from saerl_assets.automation.runs import add_partition, open_instance
from saerl_assets.automation.summary import RunSummary, run_version
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.spec import VersionSpec
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.tiny import KEY, MAX_TOKENS, TinyWorld, source_lines, source_rows, tiny_spec, write_rows

FOLDED = "hygiene-v1"
N_COPIES = 12


def copies() -> list[dict[str, object]]:
    """The first prompts with another case and end, which are other prompts but the same problems."""
    return [row | {"question": f" {row['question'].upper()} !"} for row in source_rows()[:N_COPIES]]


def evaluation_rows() -> list[str]:
    """Two of the prompts, and one that is nobody's."""
    asked = [source_rows()[place]["question"] for place in (40, 41)]
    return [json.dumps({"ask": question}) for question in [*asked, "Who wrote the book that everybody reads?"]]


def register(world: TinyWorld, home: HomeResource, key: str, **hygiene: object) -> None:
    spec = tiny_spec(key, data={"source": "path:hygiene.jsonl"}, sae={"source": ["path:sae"]}, hygiene=hygiene)
    home.catalog().register(VersionSpec.model_validate(spec), world.folder)
    with open_instance(home.open().dagster) as instance:
        add_partition(instance, key)


@pytest.fixture(scope="module")
def world(tiny_world: TinyWorld) -> TinyWorld:
    write_rows(tiny_world.folder / "hygiene.jsonl", [*source_lines(), *map(json.dumps, copies())])
    write_rows(tiny_world.folder / "bench.jsonl", evaluation_rows())
    return tiny_world


@pytest.fixture(scope="module")
def built(world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> tuple[HomeResource, RunSummary]:
    home = HomeResource(root=str(tmp_path_factory.mktemp("hygiene") / "home"))
    evaluation = [{"source": "path:bench.jsonl", "field": "ask"}]
    register(world, home, FOLDED, near_duplicates="fold", evaluation=evaluation)
    summary = run_version(home, FOLDED)
    assert summary.success, summary.failure
    return home, summary


def rows(home: HomeResource, table: str, key: str = FOLDED) -> pl.DataFrame:
    return home.warehouse().rows(table, dataset_version=key)


def test_copies_are_folded_and_their_representatives_planned(built: tuple[HomeResource, RunSummary]) -> None:
    home, _ = built
    near, deferred = rows(home, "near_duplicates"), rows(home, "deferred_prompts")
    prompts = rows(home, "prompts").select("prompt_id", "text", "split")
    planted = prompts.filter(pl.col("text").str.ends_with(" !"))
    assert planted.height == N_COPIES
    assert set(planted["prompt_id"]) <= set(near["prompt_id"])
    copied = near.filter(pl.col("role") == "copy")
    left_out = deferred.filter(pl.col("reason_code") == "near_duplicate")
    assert left_out.filter(pl.col("arm") == "shuffle").height >= N_COPIES - 4, "some are of the evaluation split"
    contaminated = set(rows(home, "contamination")["prompt_id"])
    assert set(copied["prompt_id"]) - contaminated == set(left_out["prompt_id"])
    assert left_out["reason"].str.contains("It nearly repeats prompt").all()
    assert not set(rows(home, "batch_manifest")["prompt_id"]) & (set(copied["prompt_id"]) | contaminated)


def test_evaluation_rows_are_left_out_with_file_and_line(built: tuple[HomeResource, RunSummary]) -> None:
    home, _ = built
    hits = rows(home, "contamination").filter(pl.col("evaluation") == "path:bench.jsonl")
    asked = {source_rows()[place]["question"] for place in (40, 41)}
    texts = rows(home, "prompts").filter(pl.col("text").is_in(list(asked)), pl.col("split") == "train")
    assert texts.height, "none of the two is a training prompt"
    assert set(texts["prompt_id"]) <= set(hits["prompt_id"])
    assert hits["evaluation_row"].str.contains(r"bench\.jsonl:[12]$").all()
    deferred = rows(home, "deferred_prompts").filter(pl.col("reason_code") == "contaminated")
    assert set(texts["prompt_id"]) <= set(deferred["prompt_id"])
    assert deferred["reason"].str.len_chars().min() > 30  # type: ignore[operator]
    arms = deferred.group_by("prompt_id").agg(pl.col("arm").n_unique())["arm"].unique().to_list()
    assert arms == [7]


def test_checks_pass_and_views_show_groups_and_clusters(built: tuple[HomeResource, RunSummary]) -> None:
    home, summary = built
    results = {name.rpartition(".")[2]: result for name, result, _ in summary.state.checks}
    for check in ("every_group_has_one_representative", "what_hygiene_defers_has_its_evidence", "manifest_invariants"):
        assert results[check] == "passed"
    with home.warehouse().reading("views") as connection:
        groups = connection.execute("FROM near_duplicate_groups WHERE dataset_version = ?", [FOLDED]).pl()
        clusters = connection.execute("FROM cluster_near_duplicates WHERE dataset_version = ?", [FOLDED]).pl()
    near = rows(home, "near_duplicates")
    assert groups.height == near.height
    assert groups["representative_text"].null_count() == 0
    assert clusters["n_near_duplicates"].sum() == near.height
    assert clusters["n_prompts"].sum() == rows(home, "prompts").height
    assert clusters["n_copies"].sum() == (near["role"] == "copy").sum()


def test_a_missing_evaluation_file_is_refused_at_registration(world: TinyWorld, fresh_home: HomeResource) -> None:
    with pytest.raises(SaerlError, match=r"bnch\.jsonl: There is no such file\. Did you mean 'bench\.jsonl'"):
        register(world, fresh_home, KEY, evaluation=[{"source": "path:bnch.jsonl"}])


@pytest.mark.parametrize(
    ("content", "says"),
    [('{"asks": "Who?"}', "No row has the field 'ask', which hygiene.evaluation.0.field names"), ("\n\n", "no rows")],
)
def test_an_evaluation_file_without_its_field_or_rows_is_refused(
    content: str, says: str, world: TinyWorld, fresh_home: HomeResource
) -> None:
    write_rows(world.folder / "bad-bench.jsonl", [content])
    register(world, fresh_home, KEY, evaluation=[{"source": "path:bad-bench.jsonl", "field": "ask"}])
    with pytest.raises(SaerlError, match=says) as caught:
        evaluation_rows_of(fresh_home.version(KEY))
    assert caught.value.where.endswith("bad-bench.jsonl")


def test_the_questions_are_read_from_the_data_s_field_by_default(world: TinyWorld, fresh_home: HomeResource) -> None:
    register(world, fresh_home, KEY, evaluation=[{"source": "path:prompts.jsonl"}])
    (found,) = evaluation_rows_of(fresh_home.version(KEY))
    assert set(found.texts) == {row["question"] for row in source_rows()} | {"x" * (MAX_TOKENS + 1)}
    assert found.counts["rows_unusable"] == 2


def test_a_changed_evaluation_file_is_found(world: TinyWorld, fresh_home: HomeResource) -> None:
    path = write_rows(world.folder / "later.jsonl", evaluation_rows())
    register(world, fresh_home, KEY, evaluation=[{"source": "path:later.jsonl", "field": "ask"}])
    path.write_text(json.dumps({"ask": "Another question?"}) + "\n")
    with pytest.raises(SaerlError, match=r"The hygiene\.evaluation\.0 of 'tiny-v1' has changed"):
        fresh_home.catalog().verify_sources(fresh_home.version(KEY))
