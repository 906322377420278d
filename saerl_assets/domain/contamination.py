"""Contamination: training prompts that repeat what a model will be evaluated on.

Belongs here: reading evaluation rows, words in a row that prompts share with them, and leaks between the version's own
splits, each with its evidence. Does not belong here: what is done about it (batches), and where files are (storage).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from saerl_assets.domain.alignment import agreeing
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import MISSING, Field, RowError, SourceRow, field_names, shown, unknown_field
from saerl_assets.domain.frames import FrameBuilder
from saerl_assets.domain.messages import canonical_messages
from saerl_assets.domain.near_duplicates import read_texts
from saerl_assets.domain.ngrams import NgramIndex, evidence_of
from saerl_assets.domain.pairs import problem_keys
from saerl_assets.domain.progress import Progress, silent
from saerl_assets.domain.quantities import quantities
from saerl_assets.domain.text_pairs import text_pairs
from saerl_assets.domain.wording import tokens

if TYPE_CHECKING:
    from saerl_assets.domain.spec import HygieneSpec

HITS_SCHEMA = pl.Schema(
    {
        "prompt_id": pl.String(),
        "evaluation": pl.String(),
        "evaluation_row": pl.String(),
        "found_by": pl.String(),
        "n_words": pl.UInt32(),
        "overlap_fraction": pl.Float64(),
        "shared_text": pl.String(),
        "explanation": pl.String(),
    }
)
OWN_SPLIT = "evaluation split"
"""What `evaluation` says of a leak between the version's own splits."""

_N_SAMPLED_ROWS = 100
_MAX_EVIDENCE_CHARACTERS = 300


@dataclass(frozen=True)
class EvaluationRows:
    """What was taken from one evaluation file."""

    evaluation: str
    """The source, as the spec names it."""
    places: list[str]
    """File and line of each row."""
    texts: list[str]
    """What each row asks."""
    counts: dict[str, int]
    """`rows` = `rows_taken` + `rows_unusable`."""
    notes: dict[str, str] = field(default_factory=dict)
    """`first_rows_unusable`: the first row that was not taken, with its reason."""


def take_evaluation(
    rows: Iterable[SourceRow], *, evaluation: str, field_path: str, key: str, file: str
) -> EvaluationRows:
    """Reads the questions of an evaluation file. Rows without one are left out and counted.

    Args:
        rows: The file's rows.
        evaluation: The source, as the spec names it.
        field_path: The field with the question.
        key: The spec's key that names the field.
        file: The file's name, for places and messages.

    Raises:
        SaerlError: `source_empty` for a file without rows, `unknown_field` where no row has the field,
            `evaluation_unusable` where none has a question in it.
    """
    question = Field(field_path)
    taken: dict[str, str] = {}
    sample: list[dict[str, object]] = []
    n_rows, has_field, first_unusable = 0, False, ""
    for row in rows:
        n_rows += 1
        try:
            if row.value is None:
                raise RowError(*(row.problem or ("broken_row", "The row cannot be read.")))  # noqa: TRY301
            if len(sample) < _N_SAMPLED_ROWS:
                sample.append(row.value)
            has_field |= question.of(row.value) is not MISSING
            messages, _ = canonical_messages(question.of(row.value), field_path)
            asked = [message["content"] for message in messages if message["role"] != "system"]
            taken[f"{file}:{row.line}"] = "\n".join(asked)
        except RowError as error:
            first_unusable = first_unusable or f"{file}:{row.line}: {error.reason}"
    if n_rows == 0:
        remedy = "Fill it, or take it out of hygiene.evaluation."
        raise SaerlError("source_empty", "The evaluation file has no rows.", where=file, remedy=remedy)
    if sample and not has_field:
        raise unknown_field(field_path, key, field_names(sample), file)
    if not taken:
        remedy = f"Let {key} name the field that holds the question, as text or chat messages."
        problem = f"None of its {n_rows:,} rows holds a question. First: {first_unusable}"
        raise SaerlError("evaluation_unusable", problem, where=file, remedy=remedy)
    counts = {"rows": n_rows, "rows_taken": len(taken), "rows_unusable": n_rows - len(taken)}
    notes = {"first_rows_unusable": first_unusable} if first_unusable else {}
    return EvaluationRows(evaluation, list(taken), list(taken.values()), counts, notes)


def find_contamination(
    prompts: pl.DataFrame,
    evaluations: Sequence[EvaluationRows],
    pairs: pl.DataFrame,
    spec: HygieneSpec,
    progress: Progress = silent,
) -> pl.DataFrame:
    """Training prompts that repeat an evaluation row, or a prompt of the version's own evaluation split.

    A prompt repeats a row if they share `ngram_words` words in a row, or it holds the whole row, or it nearly repeats
    it: the same quantities between the same words, and `min_jaccard` of the text. See `ngrams.NgramIndex` for what
    counts as shared words. It repeats a prompt of the evaluation split if the two are a pair of near-duplicates.

    Args:
        prompts: Table `prompts`.
        evaluations: The evaluation files; of rows with the same words the first is named.
        pairs: Pairs of near-duplicates, `near_duplicates.PAIRS_SCHEMA`.
        spec: What counts.
        progress: Told while prompts are gone through.

    Returns:
        Table `contamination`, by prompt, file and row.
    """
    train = prompts.filter(pl.col("split") == "train").sort("prompt_id")
    hits = FrameBuilder(HITS_SCHEMA)
    if evaluations and train.height:
        _against_files(train, evaluations, spec, hits, progress)
    known = prompts.select("prompt_id", "split", "text")
    leaks = (
        pairs.join(train.select("prompt_id"), on="prompt_id", how="semi")
        .join(known.rename({"prompt_id": "other_id"}), on="other_id")
        .filter(pl.col("split") != "train")
    )
    for leak in leaks.iter_rows(named=True):
        alike = f"text overlap {leak['jaccard']:.2f}, feature cosine {leak['similarity']:.2f}"
        said = f"It nearly repeats prompt {leak['other_id']} of the evaluation split ({alike})."
        text = leak["text"][:_MAX_EVIDENCE_CHARACTERS]
        hits.add(leak["prompt_id"], OWN_SPLIT, leak["other_id"], "near_duplicate", None, leak["jaccard"], text, said)
    key = ["prompt_id", "evaluation", "evaluation_row"]
    return hits.frame().unique(key, keep="first", maintain_order=True).sort(key)


def contaminated_reasons(contamination: pl.DataFrame, spec: HygieneSpec) -> pl.DataFrame:
    """The contaminated prompts that the spec defers, each with the evidence of its closest hit: prompt_id, reason."""
    hits = contamination.filter(pl.lit(spec.contaminated == "defer")).sort(
        ["prompt_id", "overlap_fraction", "evaluation", "evaluation_row"], descending=[False, True, False, False]
    )
    return hits.group_by("prompt_id", maintain_order=True).agg(
        reason=pl.col("explanation").first()
        + pl.when(pl.len() > 1).then(pl.format(" And {} more.", pl.len() - 1)).otherwise(pl.lit(""))
    )


def _against_files(
    train: pl.DataFrame,
    evaluations: Sequence[EvaluationRows],
    spec: HygieneSpec,
    hits: FrameBuilder,
    progress: Progress,
) -> None:
    """Adds what training prompts share with evaluation rows."""
    names = [rows.evaluation for rows in evaluations for _ in rows.texts]
    places = [place for rows in evaluations for place in rows.places]
    asked = [text for rows in evaluations for text in rows.texts]
    texts, identities = read_texts(train), train["prompt_id"].to_list()
    index = NgramIndex(asked, spec.ngram_words)
    for number, text in enumerate(texts, start=1):
        index.add(text)
        if number % 10_000 == 0:
            progress(number, len(texts), unit="prompts", note="contamination")
    found = set()
    for prompt, row in index.pairs():
        shared = evidence_of(texts[prompt], asked[row], spec.ngram_words)
        if shared.overlap_fraction < spec.min_overlap:
            continue
        found.add((prompt, row))
        said = (
            f"It holds the whole of {places[row]}: {shown(shared.text)}."
            if shared.is_whole
            else f"It shares {shared.n_words} words in a row with {places[row]}: {shown(shared.text)}, and "
            f"{shared.overlap_fraction:.0%} of that row's runs of {spec.ngram_words} words."
        )
        by = "whole_text" if shared.is_whole else "ngrams"
        hits.add(
            identities[prompt],
            names[row],
            places[row],
            by,
            shared.n_words,
            shared.overlap_fraction,
            shared.text[:_MAX_EVIDENCE_CHARACTERS],
            said,
        )
    for prompt, row, jaccard in _near_copies(texts, asked, spec):
        if (prompt, row) not in found:
            said = f"It nearly repeats {places[row]} (text overlap {jaccard:.2f}): {shown(asked[row])}."
            text = asked[row][:_MAX_EVIDENCE_CHARACTERS]
            hits.add(identities[prompt], names[row], places[row], "near_duplicate", None, jaccard, text, said)


def _near_copies(texts: Sequence[str], asked: Sequence[str], spec: HygieneSpec) -> list[tuple[int, int, float]]:
    """Prompts that nearly repeat a row: prompt, row, overlap. Of rows with the same words the first counts."""
    first_rows = list({" ".join(tokens(text)): row for row, text in reversed(list(enumerate(asked)))}.values())[::-1]
    compared = [*texts, *(asked[row] for row in first_rows)]
    keys = problem_keys((quantities(text) for text in compared), (None for _ in compared))
    is_asked = np.isin(keys, keys[len(texts) :])
    keys = np.where(is_asked, keys, -1 - np.arange(len(keys)))  # a prompt that no row could repeat stands alone
    pairs = text_pairs(compared, keys, min_jaccard=spec.min_jaccard)
    crossing = pairs.filter((pl.col("first") < len(texts)) & (pl.col("second") >= len(texts)))
    crossing = crossing.filter(agreeing(compared, crossing))
    return [(prompt, first_rows[row - len(texts)], jaccard) for prompt, row, jaccard in crossing.iter_rows()]
