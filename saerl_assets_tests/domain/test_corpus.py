"""A corpus: which rows give texts, where it stops, how long texts are cut."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from saerl_assets.domain.corpus import Corpus, take_corpus
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import SourceRow
from saerl_assets.domain.messages import Messages
from saerl_assets.domain.readings import TokenisedText


def letters(prompts: Sequence[Messages | str], responses: Sequence[str | None]) -> list[TokenisedText]:
    """A token for every character."""
    assert set(responses) == {None}
    return [TokenisedText([ord(letter) for letter in str(prompt)], 0) for prompt in prompts]


def rows(*values: object) -> list[SourceRow]:
    made = [value if isinstance(value, dict) or value is None else {"text": value} for value in values]
    return [SourceRow(place, place + 1, value, None, "") for place, value in enumerate(made)]


def take(*values: object, field: str = "text", max_tokens: int = 4, enough_tokens: int = 1_000) -> Corpus:
    return take_corpus(
        rows(*values), letters, field=field, file="c.jsonl", max_tokens=max_tokens, enough_tokens=enough_tokens
    )


def words(corpus: Corpus) -> list[str]:
    return ["".join(map(chr, piece)) for piece in corpus.pieces.values()]


def test_long_texts_are_cut_and_nothing_of_them_is_lost() -> None:
    corpus = take("abcdefghij", "xyz", "abcd")
    assert words(corpus) == ["abcd", "efgh", "ij", "xyz"]
    assert (corpus.n_tokens, corpus.n_rows, corpus.n_unusable) == (13, 3, 1)


def test_rows_without_a_text_are_counted() -> None:
    corpus = take("abc", 7, "  ", None, {"other": "abc"}, "abc")
    assert words(corpus) == ["abc"]
    assert (corpus.n_rows, corpus.n_unusable) == (6, 5)


def test_it_stops_when_there_is_enough() -> None:
    corpus = take(*[f"{number:04}" for number in range(5_000)], enough_tokens=10)
    assert words(corpus) == ["0000", "0001", "0002"]
    assert corpus.n_rows < 5_000


def test_nested_fields_are_found() -> None:
    assert words(take({"meta": {"body": "abc"}}, field="meta.body")) == ["abc"]


def test_a_field_that_no_row_has_is_named_with_those_that_there_are() -> None:
    with pytest.raises(SaerlError, match="body") as caught:
        take({"body": "abc"}, field="text")
    assert caught.value.code == "unknown_field"


@pytest.mark.parametrize("values", [(), ("", "  "), (None,)])
def test_a_corpus_without_a_text_is_refused(values: tuple[object, ...]) -> None:
    with pytest.raises(SaerlError) as caught:
        take(*values)
    assert caught.value.code == "corpus_empty"
