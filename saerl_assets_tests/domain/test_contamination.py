# ruff: noqa: RUF001 - letters of other scripts are what is tested
from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saerl_assets.domain.contamination import (
    OWN_SPLIT,
    EvaluationRows,
    contaminated_reasons,
    find_contamination,
    take_evaluation,
)
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import SourceRow
from saerl_assets.domain.near_duplicates import PAIRS_SCHEMA
from saerl_assets.domain.ngrams import MAX_PROMPTS, NgramIndex, evidence_of
from saerl_assets.domain.spec import HygieneSpec
from saerl_assets_tests.domain.table_shapes import assert_is_table
from saerl_assets_tests.domain.test_near_duplicates import LONG, prompts_of

NO_PAIRS = pl.DataFrame(schema=PAIRS_SCHEMA)
STORY = "the quick brown fox jumps over the lazy dog while nine grey geese fly south across the frozen lake at dawn"


def rows_of(*values: object, field: str = "question") -> list[SourceRow]:
    return [SourceRow(place, place + 1, {field: value}) for place, value in enumerate(values)]


def taken(*values: object) -> EvaluationRows:
    return take_evaluation(
        rows_of(*values), evaluation="path:bench.jsonl", field_path="question", key="k", file="/data/bench.jsonl"
    )


def find(prompts: pl.DataFrame, *rows: str, **settings: object) -> pl.DataFrame:
    found = find_contamination(prompts, [taken(*rows)] if rows else [], NO_PAIRS, HygieneSpec.model_validate(settings))
    assert_is_table(found, "contamination")
    return found


def test_words_in_a_row_are_found_with_their_evidence() -> None:
    prompt = f"Once more: {STORY.upper()}! And what then?"
    row = f"Read this. {STORY}, and count all of the birds that you can see in the story above, please."
    hit = find(prompts_of("Nothing of the kind.", prompt), "Another question?", row).row(0, named=True)
    assert hit["prompt_id"] == "b"
    assert hit["evaluation"] == "path:bench.jsonl"
    assert hit["evaluation_row"] == "/data/bench.jsonl:2"
    assert hit["found_by"] == "ngrams"
    assert hit["shared_text"] == STORY + " and"
    assert hit["n_words"] == 22
    assert 0.2 < hit["overlap_fraction"] < 0.5
    assert "22 words in a row with /data/bench.jsonl:2" in hit["explanation"]
    assert "the quick brown fox" in hit["explanation"]


@pytest.mark.parametrize(("n_words", "is_hit"), [(12, False), (13, True)])
def test_thirteen_words_and_no_fewer(n_words: int, is_hit: bool) -> None:
    shared = " ".join(STORY.split()[:n_words])
    prompt, row = f"alpha beta {shared} gamma delta", f"one two three {shared} four five six"
    assert find(prompts_of(prompt), row).height == int(is_hit)
    assert find(prompts_of(prompt), row, ngram_words=12).height == 1
    assert find(prompts_of(prompt), row, ngram_words=12, min_overlap=0.9).is_empty()


def test_a_short_row_must_be_in_the_prompt_whole() -> None:
    row = "How many legs do nine grey geese have together?"
    whole = find(prompts_of(f"Please tell me: {row.lower()} Thanks."), row)
    assert whole["found_by"].to_list() == ["whole_text"]
    assert whole["overlap_fraction"].to_list() == [1.0]
    assert find(prompts_of("Please tell me: how many legs do nine grey geese have?"), row).is_empty()


def test_a_very_short_row_must_be_all_of_the_prompt() -> None:
    assert find(prompts_of("calculate 7 + 4"), "Calculate 7 + 4.")["found_by"].to_list() == ["whole_text"]
    assert find(prompts_of("Calculate 7 - 4."), "Calculate 7 + 4.").is_empty()
    assert find(prompts_of("Now calculate 7 + 4, then double it twice."), "Calculate 7 + 4.").is_empty()


def test_near_copies_of_rows_are_found_and_other_numbers_are_not() -> None:
    typed = LONG.replace("farmer", "famrer").replace("many", "mny")
    hits = find(prompts_of(typed, LONG.replace("12", "13")), LONG, ngram_words=21)
    assert hits.select("prompt_id", "found_by").rows() == [("a", "near_duplicate")]
    assert hits["shared_text"].to_list() == [LONG]
    assert "text overlap 0.8" in hits["explanation"][0]


def test_a_row_with_its_numbers_swapped_is_no_copy() -> None:
    swapped = LONG.replace("12", "@").replace("3", "12").replace("@", "3")
    assert find(prompts_of(swapped), LONG, ngram_words=21).is_empty()
    assert find(prompts_of(LONG.replace("farmer", "miller")), LONG, ngram_words=21).height == 1


def test_common_phrases_prove_nothing_but_whole_rows_do() -> None:
    many = [f"{STORY} and then number {word}" for word in "abcdefghijklmnopqrst"]
    row = f"{STORY} which nobody has ever seen before in all of the land"
    assert len(many) > MAX_PROMPTS
    assert find(prompts_of(*many), row).is_empty()
    assert find(prompts_of(*many[:MAX_PROMPTS]), row).height == MAX_PROMPTS
    assert find(prompts_of(*many), STORY).height == len(many)
    template = [f"{STORY} so say the word {word}" for word in "abcdefghijklmnop"]
    assert find(prompts_of(f"well {STORY} indeed"), *template).is_empty()


def test_only_training_prompts_count_and_rows_with_the_same_words_are_one() -> None:
    hits = find(prompts_of(STORY, STORY + " x", splits="e."), STORY, STORY.upper())
    assert hits.select("prompt_id", "evaluation_row").rows() == [("b", "/data/bench.jsonl:1")]


def test_without_files_and_without_prompts_there_is_nothing() -> None:
    assert find(prompts_of(LONG)).is_empty()
    assert find(prompts_of()[:0], LONG).is_empty()
    assert find(prompts_of("", "?!"), LONG, "...").is_empty()


@pytest.mark.parametrize(
    "text",
    [
        "小明有三个苹果又买了两个现在一共有几个苹果请写出你的计算过程",
        "если у каждой из трёх кошек по четыре лапы то сколько всего лап у этих кошек вместе",
    ],
)
def test_other_scripts(text: str) -> None:
    assert find(prompts_of(f"{text} ok", "An English prompt."), f"xx {text} yy")["prompt_id"].to_list() == ["a"]


def test_a_near_copy_of_an_evaluation_prompt_is_a_leak() -> None:
    prompts = prompts_of(LONG, LONG.upper(), "else", splits="e..")
    pairs = pl.DataFrame(
        [("a", "b", 1.0, 0.9, "text"), ("b", "a", 1.0, 0.9, "text")], schema=PAIRS_SCHEMA, orient="row"
    )
    found = find_contamination(prompts, [], pairs, HygieneSpec())
    assert_is_table(found, "contamination")
    assert found.select("prompt_id", "evaluation", "evaluation_row", "found_by").rows() == [
        ("b", OWN_SPLIT, "a", "near_duplicate")
    ]
    assert "prompt a of the evaluation split (text overlap 1.00" in found["explanation"][0]
    within = find_contamination(prompts.with_columns(split=pl.lit("train")), [], pairs, HygieneSpec())
    assert within.is_empty()


def test_reasons_are_those_of_the_closest_hit_and_only_where_the_spec_defers() -> None:
    found = find(prompts_of(f"{STORY} {LONG}"), f"{STORY} but not the rest of it at all", LONG)
    assert found.height == 2
    reasons = contaminated_reasons(found, HygieneSpec())
    assert reasons["prompt_id"].to_list() == ["a"]
    assert reasons["reason"][0].startswith("It holds the whole of /data/bench.jsonl:2")
    assert reasons["reason"][0].endswith(" And 1 more.")
    assert contaminated_reasons(found, HygieneSpec(contaminated="keep")).is_empty()
    assert contaminated_reasons(found[:0], HygieneSpec()).is_empty()


def test_evaluation_rows_are_texts_or_chats_and_the_others_are_counted() -> None:
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How many?"}]
    found = taken("Who?", None, chat, 7, "  ")
    assert found.texts == ["Who?", "How many?"]
    assert found.places == ["/data/bench.jsonl:1", "/data/bench.jsonl:3"]
    assert found.counts == {"rows": 5, "rows_taken": 2, "rows_unusable": 3}
    assert found.notes["first_rows_unusable"].startswith("/data/bench.jsonl:2: question is null")


def test_a_file_without_rows_field_or_questions_is_refused() -> None:
    with pytest.raises(SaerlError, match="has no rows") as caught:
        taken()
    assert caught.value.code == "source_empty"
    assert caught.value.where == "/data/bench.jsonl"
    with pytest.raises(
        SaerlError, match=r"No row has the field 'question', which k names.*Did you mean 'questions'"
    ) as caught:
        take_evaluation(rows_of("x", field="questions"), evaluation="e", field_path="question", key="k", file="f")
    assert caught.value.code == "unknown_field"
    with pytest.raises(
        SaerlError, match=r"None of its 2 rows holds a question. First: /data/bench.jsonl:1: question"
    ) as caught:
        taken(None, " ")
    assert caught.value.code == "evaluation_unusable"
    broken = SourceRow(0, 4, None, ("broken_json", "Line 4 is not JSON."))
    with pytest.raises(SaerlError, match="First: f:4: Line 4 is not JSON"):
        take_evaluation([broken], evaluation="e", field_path="q", key="k", file="f")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abc"), max_size=12).map(" ".join), max_size=5),
    st.lists(st.lists(st.sampled_from("abc"), max_size=12).map(" ".join), max_size=5),
)
def test_the_index_agrees_with_looking_at_every_pair(prompts: list[str], rows: list[str]) -> None:
    index = NgramIndex(rows, 5)
    for prompt in prompts:
        index.add(prompt)
    first = {text: number for number, text in reversed(list(enumerate(rows)))}
    expected = set()
    for number, prompt in enumerate(prompts):
        for row, place in first.items():
            own, theirs = prompt.split(), row.split()
            grams = {tuple(own[start : start + 5]) for start in range(len(own) - 4)}
            wanted = {tuple(theirs[start : start + 5]) for start in range(len(theirs) - 4)}
            if (wanted & grams) or (0 < len(theirs) < 5 and own == theirs):
                expected.add((number, place))
    assert index.pairs() == sorted(expected)
    for number, place in index.pairs():
        prompt, text = prompts[number], rows[place]
        shared = evidence_of(prompt, text, 5)
        assert shared.n_words >= min(5, len(text.split()))
        assert f" {shared.text} " in f" {prompt} "
        assert 0 < shared.overlap_fraction <= 1
        assert shared.is_whole == (f" {text} " in f" {prompt} ")
