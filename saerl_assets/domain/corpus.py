"""A corpus: texts to train an SAE on that are no prompts.

Belongs here: which rows give texts, and how long texts are cut. Does not belong here: reading files, tokenizers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import Field, SourceRow, field_names, unknown_field
from saerl_assets.domain.messages import ID_HEX_DIGITS
from saerl_assets.domain.progress import Progress, silent
from saerl_assets.domain.readings import Tokenise

_BLOCK_ROWS = 256


@dataclass(frozen=True)
class Corpus:
    """Pieces of text, as token ids by the hash that names them."""

    pieces: Mapping[str, NDArray[np.int32]]
    n_tokens: int
    n_rows: int
    """Rows that were read; what follows them was not needed."""
    n_unusable: int
    """Those of them without a text, with an error, or read before."""


def take_corpus(
    rows: Iterable[SourceRow],
    tokenise: Tokenise,
    *,
    field: str,
    file: str,
    max_tokens: int,
    enough_tokens: int,
    progress: Progress = silent,
) -> Corpus:
    """Takes texts from the start of a source until there are enough tokens.

    Args:
        rows: The source's rows.
        tokenise: The reader's tokenizer with the plain template.
        field: The field that holds a text.
        file: The source's name, for messages.
        max_tokens: A longer text is cut into pieces of so many tokens.
        enough_tokens: Where to stop; the last text is taken whole.
        progress: Told after every block of rows.

    Raises:
        SaerlError: `unknown_field` if no row has the field, `corpus_empty` if none of them holds a text.
    """
    pieces: dict[str, NDArray[np.int32]] = {}
    n_tokens = n_rows = n_texts = 0
    seen: list[Mapping[str, object]] = []
    for block in _blocks(rows):
        n_rows += len(block)
        values: list[Mapping[str, object]] = [row.value for row in block if row.value is not None]
        seen = seen or values
        texts = [text for value in values if isinstance(text := Field(field).of(value), str) and text.strip()]
        for tokenised in tokenise(texts, [None] * len(texts)) if texts else []:
            if n_tokens >= enough_tokens:
                break
            ids = np.asarray(tokenised.token_ids, dtype=np.int32)
            fresh = {_name(piece): piece for piece in np.split(ids, range(max_tokens, len(ids), max_tokens))}
            fresh = {name: piece for name, piece in fresh.items() if len(piece) and name not in pieces}
            pieces |= fresh
            n_texts += bool(fresh)
            n_tokens += sum(map(len, fresh.values()))
        progress(min(n_tokens, enough_tokens), enough_tokens, unit="tokens")
        if n_tokens >= enough_tokens:
            break
    if not pieces:
        known = field_names(seen)
        if known and field not in known:
            raise unknown_field(field, "sae.corpus_field", known, file)
        remedy = "Name a source with texts, or leave sae.corpus out to train on the version's own prompts."
        raise SaerlError("corpus_empty", "It holds no text.", where=file, remedy=remedy)
    return Corpus(pieces, n_tokens, n_rows, n_rows - n_texts)


def _blocks(rows: Iterable[SourceRow]) -> Iterator[list[SourceRow]]:
    left = iter(rows)
    while block := list(islice(left, _BLOCK_ROWS)):
        yield block


def _name(ids: NDArray[np.int32]) -> str:
    return hashlib.sha256(ids.astype("<u4").tobytes()).hexdigest()[:ID_HEX_DIGITS]
