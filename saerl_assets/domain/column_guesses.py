"""What the columns of an unknown source probably mean, from their names and values.

Belongs here: the guess. Does not belong here: counting over columns (columns), telling a person (spec_draft).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from saerl_assets.domain.affixes import AUTO, Affixes, AffixFinder
from saerl_assets.domain.columns import Column, is_messages
from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.fields import Field, RowError
from saerl_assets.domain.messages import asking_message, canonical_messages, canonical_text
from saerl_assets.domain.preference_pairs import PairFields, transcript
from saerl_assets.domain.spec import SplitSpec

# Names in order of preference: those of verl, TRL, GSM8K, MATH, DeepMath-103K, DeepScaleR, UltraFeedback.
_PROMPT_NAMES = (
    "prompt", "question", "problem", "instruction", "query", "input", "messages", "conversation", "text",
)  # fmt: skip
_ANSWER_NAMES = (
    "ground_truth", "final_answer", "answer", "reference_answer", "gold", "target", "expected_answer",
    "solution",
)  # fmt: skip
# Of pairs those of UltraFeedback, hh-rlhf, Orca and their like.
_CHOSEN_NAMES = ("chosen", "chosen_response", "response_chosen", "preferred")
_REJECTED_NAMES = ("rejected", "rejected_response", "response_rejected", "dispreferred")
_RESPONSE_NAMES = ("response", "completion", "output", "generation")
_TOPIC_NAMES = ("topic", "subject", "category", "family", "domain", "type", "task", "ability", "data_source")
_LABEL_NAMES = {
    "difficulty": ("difficulty", "level", "difficulty_score", "fail_rate"),
    "correct": (
        "correct",
        "is_correct",
        "pass_rate",
        "solve_rate",
        "success_rate",
        "accuracy",
        "score",
        "reward",
    ),
}
_MAX_TOPICS = 100


@dataclass(frozen=True)
class Guess:
    """What each column probably is."""

    prompt: str
    response: str | None = None
    answer: str | None = None
    topic: str | None = None
    split: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    affixes: Affixes = field(default_factory=Affixes)
    pair: tuple[str, str] | None = None
    """The better and the worse answer of a pair. The prompt is in them where it has the path of the better one."""


def guess_columns(columns: Sequence[Column], values: Sequence[Mapping[str, object]], source: str) -> Guess:
    """What each column probably is, from its name and its values.

    Raises:
        SaerlError: `no_prompt_column` where none holds text or messages.
    """
    pair = _guess_pair(columns)
    alone = [column for column in columns if pair is None or column.path.split(".0.")[0] not in pair]
    known = [column.path for column in columns]
    prompt = pair[0] if pair and _holds_prompt(alone, columns, pair[0]) else _guess_prompt(alone, source, known)
    left = [column for column in columns if not f"{column.path}.".startswith(f"{prompt.split('.')[0]}.")]
    plain = [column for column in left if column.kind in {"text", "number", "truth"}]
    answer = _first_named(plain, _ANSWER_NAMES)
    return Guess(
        prompt=prompt,
        response=None if pair else _guess_response(columns, prompt),
        answer=answer.path if answer else None,
        topic=_guess_topic([column for column in plain if column is not answer], len(values)),
        split=_guess_split(plain, values),
        labels=_guess_labels([column for column in plain if column is not answer]),
        affixes=_shared_text(prompt, pair, values),
        pair=pair,
    )


def _guess_pair(columns: Sequence[Column]) -> tuple[str, str] | None:
    """Paths of the better and the worse answer, both text or both chat messages."""
    fitting = [column for column in columns if column.kind in {"text", "messages"} and ".0." not in column.path]
    chosen, rejected = _first_named(fitting, _CHOSEN_NAMES), _first_named(fitting, _REJECTED_NAMES)
    return (chosen.path, rejected.path) if chosen and rejected else None


def _holds_prompt(alone: Sequence[Column], columns: Sequence[Column], chosen: str) -> bool:
    """Whether the prompt is only in the answers: no column beside them is named like one."""
    example = next(column.example for column in columns if column.path == chosen)
    is_conversation = (is_messages(example) and isinstance(example, list) and len(example) > 1) or (
        isinstance(example, str) and transcript(canonical_text(example)) is not None
    )
    fitting = [column for column in alone if column.kind in {"text", "messages"}]
    return is_conversation and _first_named(fitting, _PROMPT_NAMES) is None


def _guess_prompt(columns: Sequence[Column], source: str, known: Sequence[str]) -> str:
    candidates = [column for column in columns if column.kind in {"text", "messages"} and ".0." not in column.path]
    named = _first_named(candidates, _PROMPT_NAMES)
    longest = max(
        (column for column in candidates if column.kind == "text"),
        key=lambda c: c.mean_characters,
        default=None,
    )
    found = named or next((column for column in candidates if column.kind == "messages"), None) or longest
    if found is None:
        raise SaerlError(
            "no_prompt_column",
            f"No column holds a prompt, as text or chat messages: {', '.join(known)}.",
            where=source,
            remedy="Write a spec by hand; data.prompt can be a dotted path into nested values.",
        )
    holds_answer = is_messages(found.example) and _last_role(found.example) == "assistant"
    return f"{found.path}.0.content" if holds_answer else found.path


def _guess_response(columns: Sequence[Column], prompt: str) -> str | None:
    column = _first_named([c for c in columns if c.kind in {"text", "messages"} and c.path != prompt], _RESPONSE_NAMES)
    if column is None or prompt.startswith(f"{column.path}."):
        return None
    if column.kind == "messages" and isinstance(column.example, list):
        return f"{column.path}.{len(column.example) - 1}.content"
    return column.path


def _guess_topic(columns: Sequence[Column], n_rows: int) -> str | None:
    fitting = [
        column
        for column in columns
        if 2 <= column.n_distinct <= min(_MAX_TOPICS, max(n_rows // 4, 2)) and column.kind == "text"
    ]
    found = _first_named(fitting, _TOPIC_NAMES)
    return found.path if found else None


def _guess_split(columns: Sequence[Column], values: Sequence[Mapping[str, object]]) -> str | None:
    evaluation = set(SplitSpec().evaluation_values)
    for column in columns:
        if column.name == "split" and column.kind == "text":
            found = {Field(column.path).of(row) for row in values}
            if found & evaluation and found - evaluation:
                return column.path
    return None


def _guess_labels(columns: Sequence[Column]) -> dict[str, str]:
    numeric = [column for column in columns if column.smallest is not None]
    labels = {}
    for label, names in _LABEL_NAMES.items():
        fitting = [column for column in numeric if label != "correct" or _is_share(column)]
        if found := _first_named(fitting, names):
            labels[label] = found.path
    return labels


def _is_share(column: Column) -> bool:
    return column.smallest is not None and column.largest is not None and 0 <= column.smallest <= column.largest <= 1


def _shared_text(path: str, pair: tuple[str, str] | None, values: Sequence[Mapping[str, object]]) -> Affixes:
    finder, seen, prompt = AffixFinder(AUTO, AUTO), set(), Field(path)
    pairs = PairFields(Field(pair[0]), Field(pair[1])) if pair and pair[0] == path else None
    for row in values:
        try:
            messages = pairs.with_prompt(row)[0] if pairs else canonical_messages(prompt.of(row), path)[0]
        except RowError:
            continue
        text = messages[asking_message(messages)]["content"]
        if text not in seen:
            seen.add(text)
            finder.add(text)
    return finder.found()


def _first_named(columns: Sequence[Column], names: Sequence[str]) -> Column | None:
    """The column whose name comes first among the names; columns at the top go before nested ones."""
    found = [column for column in columns if column.name in names and column.n_values]
    return min(found, key=lambda column: (names.index(column.name), column.path.count(".")), default=None)


def _last_role(messages: object) -> str:
    return str(messages[-1]["role"]) if isinstance(messages, list) and messages else ""
