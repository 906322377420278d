"""Examples of features: which are chosen, and the text around the token at which each is strongest."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.domain.feature_examples import (
    MAX_FEATURES,
    N_AROUND,
    N_MOST_ACTIVE,
    around,
    cut_examples,
    features_to_read,
)
from saerl_assets_tests.domain.table_shapes import assert_is_table

BYTES = "zwölf Beine — 数".encode()


def as_bytes(token_ids: Sequence[int]) -> str:
    """A tokenizer of single bytes, as a byte-level one decodes: pieces of a letter are signs of what is missing."""
    return bytes(token_ids).decode(errors="replace")


def density(n: int) -> pl.DataFrame:
    """Feature i fires in i prompts, most in prompt `p<i>`."""
    return pl.DataFrame(
        {
            "feature_id": range(n),
            "n_prompts": range(n),
            "top_prompts": [[f"p{i}", f"p{i + 1}"] if i else [] for i in range(n)],
        },
        schema_overrides={"feature_id": pl.UInt32, "top_prompts": pl.List(pl.String)},
    )


def clusters(*top_features: list[int]) -> pl.DataFrame:
    """Clusters of falling size."""
    return pl.DataFrame(
        {
            "cluster_id": range(len(top_features)),
            "n_prompts": [100 - place for place in range(len(top_features))],
            "top_features": top_features,
        },
        schema_overrides={"top_features": pl.List(pl.UInt32)},
    )


def test_the_most_active_and_those_that_set_clusters_apart_are_read() -> None:
    wanted = features_to_read(density(100), clusters([3, 5, 7, 9, 11], [3, 2]))
    most_active = set(range(100 - N_MOST_ACTIVE, 100))
    assert set(wanted["feature_id"]) == most_active | {3, 5, 7, 9, 2}
    assert wanted.filter(feature_id=3).sort("place").rows() == [(3, "p3", 0), (3, "p4", 1)]


def test_dead_features_are_not_read_and_many_are_cut_off() -> None:
    assert features_to_read(density(1), clusters([0])).is_empty()
    many = [list(range(start, start + 4)) for start in range(0, 4000, 4)]
    assert features_to_read(density(4000), clusters(*many))["feature_id"].n_unique() <= MAX_FEATURES


def test_a_version_without_clusters_or_features_has_none() -> None:
    assert features_to_read(density(0), clusters()).is_empty()
    read = {"feature_id": pl.UInt32, "prompt_id": pl.String, "activation": pl.Float32, "token_index": pl.UInt16}
    none = pl.DataFrame(schema=read | {"token_ids": pl.List(pl.UInt32)})
    assert_is_table(cut_examples(features_to_read(density(0), clusters()), none, as_bytes), "feature_examples")


def test_the_token_stands_between_what_is_before_and_after_it() -> None:
    wanted = features_to_read(density(2), clusters())
    read = pl.DataFrame(
        {
            "feature_id": [1, 1],
            "prompt_id": ["p2", "p1"],
            "activation": [1.0, 2.0],
            "token_index": [0, 4],
            "token_ids": [list(b"legs"), list(b"how many legs")],
        },
        schema_overrides={"feature_id": pl.UInt32},
    )
    shown = cut_examples(wanted, read, as_bytes)
    assert_is_table(shown, "feature_examples")
    assert shown.select("place", "prompt_id", "before", "token", "after").rows() == [
        (0, "p1", "how ", "m", "any legs"),
        (1, "p2", "", "l", "egs"),
    ]


@given(st.integers(0, len(BYTES) - 1))
def test_the_pieces_are_the_text_wherever_letters_are_whole(index: int) -> None:
    before, token, after = around(list(BYTES), index, as_bytes)
    first, last = max(index - N_AROUND, 0), index + 1 + N_AROUND
    if "�" not in before + token + after:
        assert before + token + after == BYTES[first:last].decode(errors="replace")
    assert token, "a token is never lost, also where it is a part of a letter"


def test_a_leading_space_stays_with_its_token() -> None:
    words = ["▁how", "▁many", "▁legs"]

    def sentencepiece(token_ids: Sequence[int]) -> str:
        """Drops the space of what comes first, as SentencePiece's decoder does."""
        return "".join(words[token] for token in token_ids).replace("▁", " ").removeprefix(" ")

    assert around([0, 1, 2], 1, sentencepiece) == ("how", " many", " legs")
    assert around([0, 1, 2], 0, sentencepiece) == ("", "how", " many legs")
