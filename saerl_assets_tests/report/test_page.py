"""The page: complete, self-contained, the same bytes every time, and deaf to what prompts say."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import polars as pl
import pytest

from saerl_assets.domain.spec import parse_spec, spec_digest
from saerl_assets.report.cluster_map import cluster_map_block
from saerl_assets.report.feature_examples import SETS_APART, examples_table, token_text
from saerl_assets.report.inputs import ReportInputs
from saerl_assets.report.lineage_tables import feedback_block
from saerl_assets.report.order_tables import batch_strip
from saerl_assets.report.page import render_report
from saerl_assets.report.tables import clusters_table, prompts_table
from saerl_assets.report.words import cut
from saerl_assets_tests.report.frames import HOSTILE, a_spec, empty_frames, report_inputs, the_frames

SECTIONS = (
    "summary",
    "data",
    "sae",
    "clusters",
    "evidence",
    "difficulty",
    "quality",
    "batches",
    "exports",
    "feedback",
    "lineage",
    "provenance",
)
VOID = {"meta", "img", "input", "br", "link"}


class Reader(HTMLParser):
    """Takes a page apart as a browser would: elements with their attributes, text, and scripts."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.inside: list[tuple[str, str]] = []
        self.scripts: list[str] = []
        self.depth: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.depth.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.depth.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        inside = self.depth[-1] if self.depth else ""
        self.inside.append((inside, data))
        (self.scripts if inside == "script" else self.words).append(data)

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    def text(self) -> str:
        return " ".join(self.words)


@pytest.fixture(scope="module")
def inputs() -> ReportInputs:
    frames = the_frames(2000)
    long = pl.concat_str("text", pl.lit(" & <b>long</b> text" * 200))
    prompts = frames["prompts"].with_columns(pl.when(pl.col("position") < len(HOSTILE)).then("text").otherwise(long))
    return report_inputs(frames | {"prompts": prompts})


@pytest.fixture(scope="module")
def page(inputs: ReportInputs) -> str:
    return render_report(inputs)


@pytest.fixture(scope="module")
def read(page: str) -> Reader:
    return Reader(page)


def test_every_section_is_there_in_order_and_linked(read: Reader) -> None:
    ids = read.ids()
    assert [name for name in ids if name in SECTIONS] == list(SECTIONS)
    assert len(ids) == len(set(ids))
    links = {attributes["href"] for tag, attributes in read.elements if tag == "a"}
    assert {f"#{name}" for name in SECTIONS} <= links
    assert {link.removeprefix("#") for link in links} <= set(ids)
    assert not read.depth, "every element is closed"


def test_nothing_is_fetched_from_anywhere(read: Reader) -> None:
    for tag, attributes in read.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = attributes.get(name, "")
            assert value.startswith(("data:image/png;base64,", "#")) or not value, (tag, name, value[:40])
    policy = next(item["content"] for tag, item in read.elements if item.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy


def test_the_only_script_is_the_one_that_the_policy_names(read: Reader, page: str) -> None:
    assert [tag for tag, _ in read.elements].count("script") == 1
    (script,) = read.scripts
    wanted = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{wanted}'" in page


def test_hostile_prompts_are_shown_and_do_nothing(read: Reader, page: str) -> None:
    shown = read.text()
    for text in HOSTILE:
        assert cut(text, 300) in shown, "the reader sees what the prompt says"
    assert "<script>document" not in page
    assert 'onerror="' not in page
    for _, attributes in read.elements:
        assert not [name for name in attributes if name.startswith("on")]
    assert "\u202e" not in page
    assert "49" not in [word.strip() for word in read.words if "{{" in word], "no prompt is a template"


@pytest.mark.parametrize("column", ["description", "resolved"])
def test_what_a_spec_says_is_escaped_too(column: str, inputs: ReportInputs) -> None:
    spec = inputs.spec.model_copy(update={"description": HOSTILE[1]})
    versions = inputs.versions.with_columns(
        pl.lit(HOSTILE[1]).alias(column), pl.lit(spec.model_dump_json()).alias("spec")
    )
    bare = report_inputs(empty_frames() | {"versions": versions})
    read = Reader(render_report(bare))
    assert "img" not in {tag for tag, item in read.elements if not item.get("src", "data:").startswith("data:")}
    assert [tag for tag, _ in read.elements].count("script") == 1


def test_the_same_tables_give_the_same_bytes_in_any_row_order(inputs: ReportInputs, page: str) -> None:
    ordered = {"versions", "difficulty_proxy", "quality_probe"}
    shuffled = {
        field.name: getattr(inputs, field.name).sample(fraction=1.0, shuffle=True, seed=1)
        for field in dataclasses.fields(inputs)
        if isinstance(getattr(inputs, field.name), pl.DataFrame) and field.name not in ordered
    }
    assert render_report(dataclasses.replace(inputs, **shuffled)) == page


def test_a_version_without_rows_still_has_its_page(inputs: ReportInputs) -> None:
    read = Reader(render_report(report_inputs(empty_frames() | {"versions": inputs.versions})))
    assert set(SECTIONS) <= set(read.ids())
    assert "No rows have been taken in yet." in read.text()


def test_it_says_how_to_build_the_version_again_and_from_what(inputs: ReportInputs, read: Reader) -> None:
    shown = read.text()
    assert "saerl run demo-v1" in shown
    for digest in (
        inputs.versions["spec_digest"][0],
        inputs.manifest_id,
        inputs.sae_weights["digest"][0],
        inputs.sae_weights["reader_digest"][0],
        inputs.clusters["centroids_digest"][0],
        inputs.quality_probe["digest"][0],
        inputs.trainer_exports["order_digest"][0],
    ):
        assert digest
        assert digest in shown
    assert inputs.generated_with in shown


def test_the_verdicts_and_the_exemplars_are_said(inputs: ReportInputs, read: Reader) -> None:
    shown = read.text()
    assert "The proxy ranks held-out prompts at Spearman 0.83; prompt length alone reaches 0.41." in shown
    texts = dict(inputs.prompts.select("prompt_id", "text").iter_rows())
    for exemplar in inputs.clusters["exemplars"].explode():
        assert cut(texts[exemplar], 240) in shown


def test_prompts_that_are_unknown_are_named_by_their_id(inputs: ReportInputs) -> None:
    lost = inputs.clusters.with_columns(exemplars=pl.lit(["feedbeef" * 4], pl.List(pl.String)))
    table = clusters_table(dataclasses.replace(inputs, clusters=lost))
    assert table.rows[0][-1].text == "prompt feedbeeffeed"


def test_more_prompts_than_the_page_can_hold_are_sampled_evenly(
    inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saerl_assets.report.tables.MAX_PROMPTS", 50)
    table = prompts_table(inputs)
    assert len(table.rows) == 50, "every fortieth"
    assert table.note == "An even sample of 50 out of 2,000 prompts."


def test_two_thousand_long_prompts_stay_under_three_megabytes(inputs: ReportInputs, page: str) -> None:
    assert inputs.prompts.height == 2000
    assert inputs.prompts["text"].str.len_chars().mean() > 3000  # type: ignore[operator]
    assert len(re.findall(r"<tr><td", page)) > 2000
    assert len(page.encode()) < 3_000_000


def test_firing_tokens_are_marked_between_what_surrounds_them(inputs: ReportInputs, read: Reader) -> None:
    marked = [word for tag, word in read.inside if tag == "mark"]
    assert len(marked) == inputs.feature_examples.height
    assert set(marked) == {token_text(token) for token in inputs.feature_examples["token"]}
    table = examples_table(inputs)
    apart = [bool(row[SETS_APART].text) for row in table.rows]
    assert apart == sorted(apart, reverse=True), "what sets a cluster apart is read first"


def test_a_version_without_examples_shows_its_features_by_prompts(inputs: ReportInputs) -> None:
    bare = dataclasses.replace(inputs, feature_examples=inputs.feature_examples.clear())
    read = Reader(render_report(bare))
    assert "features-table" in read.ids()
    assert "mark" not in {tag for tag, _ in read.elements}


@pytest.mark.parametrize(("token", "said"), [(" legs", " legs"), ("\n", "⏎"), (" ", "␣"), ("", "␣"), ("\u202e", "�")])
def test_a_token_that_cannot_be_seen_has_a_sign(token: str, said: str) -> None:
    assert token_text(token) == said


def test_a_point_carries_its_text_only_where_the_table_does_not(
    inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {point.text for point in cluster_map_block(inputs).points} == {""}
    monkeypatch.setattr("saerl_assets.report.tables.MAX_PROMPTS", 50)
    told = [point.text for point in cluster_map_block(inputs).points]
    assert "" in told
    assert len(set(told)) > 100


def test_a_long_order_is_thinned_and_says_so(inputs: ReportInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = batch_strip(inputs)
    assert len(whole.steps) == inputs.ordered.select("epoch", "step").n_unique()
    assert all(0.0 <= step.low <= step.middle <= step.high <= 1.0 for step in whole.steps)
    monkeypatch.setattr("saerl_assets.report.order_tables.MAX_STEPS", 10)
    thinned = batch_strip(inputs)
    assert len(thinned.steps) <= 10
    assert "th batch is drawn." in thinned.note


def test_what_a_trainer_is_told_and_what_trainings_told_is_there(inputs: ReportInputs, read: Reader) -> None:
    shown = read.text()
    for text in inputs.trainer_settings["text"]:
        assert text in shown
    assert "saerl lint YOUR_CONFIG --trainer trl" in shown
    assert "saerl verify YOUR_LOG --manifest demo-v1" in shown
    assert "Difficulty against the mean reward of warmup <b>1</b>" in shown
    assert "saerl labels add" not in shown
    bare = dataclasses.replace(inputs, training_feedback=inputs.training_feedback.clear())
    assert "saerl labels add demo-v1 path/to/saerl_log.jsonl" in Reader(render_report(bare)).text()


def test_what_controls_are_planned_on_is_drawn_where_a_control_needs_it(inputs: ReportInputs, page: str) -> None:
    said = "What control arms are planned on"
    assert page.count(said) == 1
    without = dataclasses.replace(inputs, control_signals=inputs.control_signals.clear())
    assert said not in render_report(without)


def test_a_log_without_a_measure_has_no_points(inputs: ReportInputs) -> None:
    nothing = inputs.training_feedback.with_columns(reward=pl.lit(None, pl.Float64))
    assert feedback_block(dataclasses.replace(inputs, training_feedback=nothing)) is None


def test_the_spec_on_the_page_is_the_spec(read: Reader) -> None:
    (toml,) = [word for tag, word in read.inside if tag == "pre" and word.startswith('key = "demo-v1"')]
    assert spec_digest(parse_spec(toml, "page")) == spec_digest(a_spec())
