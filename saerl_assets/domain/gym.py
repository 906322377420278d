r"""Tasks from reasoning-gym: what a mix asks for, the rows it becomes, how an answer to one is scored.

Belongs here: the mix as a value, its rows, taking an answer from a completion and scoring it. Does not belong
here: reading the mix's file or storing rows (the source does), asking a model (the callers do), and the task
families themselves. Those are reasoning-gym's (https://github.com/open-thought/reasoning-gym, Apache-2.0), an
optional dependency, `saerl_assets[demo]`, which is imported only where a row is drawn or an answer scored.
"""

from __future__ import annotations

import difflib
import functools
import hashlib
import itertools
import json
import re
import warnings
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from saerl_assets.domain.errors import SaerlError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Value: TypeAlias = bool | int | float | str | list[bool | int | float | str]
"""What a setting may give to a field of a family's configuration."""

MAX_REPEATS = 200
"""Repeated prompts in a row after which a setting counts as run out."""

N_DRAWS_MAX = 1_000_000
"""Instances in a setting's dataset. They are made when asked for, each from the seed plus its index."""

RESERVED_KEYS = ("seed", "size")
"""Fields of every reasoning-gym configuration that the mix sets itself."""

CORRECT_SCORE = 0.999
"""Score from which an answer is correct. Scorers give 1 for that; several give less for a near miss."""

_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?")
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_ANNOUNCEMENT = re.compile(r"answer(?:\s+is\b|:)[\s:]*([^\n]*\S)", re.IGNORECASE)
_LIST_MARK = re.compile(r"^(?:[-*•]|\d+[.)])\s+")
_VERDICTS = (("yes", "no"), ("true", "false"))
_ORNAMENT = " \t*_`\"'.,:;$"


class TaskFamily(BaseModel):
    """One reasoning-gym task family, at rising difficulty."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(min_length=1)
    """The family's name in reasoning-gym, such as `gcd`."""

    settings: tuple[dict[str, Value], ...] = Field(min_length=1)
    """One table per difficulty setting, easiest first; its place in the list is the row's `level`. Its keys
    are fields of the family's configuration in reasoning-gym; fields left out keep their default there."""

    suffix: str | None = None
    """Instruction at the end of this family's prompts, in place of the mix's own; empty adds nothing."""

    @field_validator("settings")
    @classmethod
    def _settings_say_something(cls, settings: tuple[dict[str, Value], ...]) -> tuple[dict[str, Value], ...]:
        for level, setting in enumerate(settings):
            if not setting:
                raise ValueError(f"setting {level} is empty")
            reserved = [key for key in RESERVED_KEYS if key in setting]
            if reserved:
                raise ValueError(f"setting {level} gives {', '.join(reserved)}, which the mix sets itself")
        return settings


class TaskMix(BaseModel):
    """A dataset made of reasoning-gym tasks: the families, their settings, and how many rows."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    seed: int = Field(ge=0)
    """Where every draw comes from: same mix, same reasoning-gym, same rows."""

    n_rows: int = Field(ge=1)
    """Rows asked for. There are fewer only where every setting has run out of new instances."""

    suffix: str = ""
    """Instruction at the end of every prompt, on a line of its own; empty adds nothing."""

    families: tuple[TaskFamily, ...] = Field(min_length=1)
    """The task families, in the order in which they take turns."""

    @field_validator("families")
    @classmethod
    def _families_differ(cls, families: tuple[TaskFamily, ...]) -> tuple[TaskFamily, ...]:
        names = [family.name for family in families]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"listed twice: {', '.join(twice)}")
        return families


class _Dataset(Protocol):
    """What is used of a reasoning-gym dataset: the `question`, `answer` and `metadata` of instance i."""

    def __getitem__(self, index: int) -> dict[str, Any]: ...


def parse_tasks(document: Mapping[str, object]) -> TaskMix:
    """Turn a parsed TOML document into a mix.

    Whether reasoning-gym knows the families and the keys of their settings shows in `generate_rows`.

    Raises:
        SaerlError: `tasks_invalid` where a key is unknown or missing, or a value is wrong.
    """
    try:
        return TaskMix.model_validate(document)
    except ValidationError as error:
        # A misspelt key is also a missing one; say the former.
        first = min(error.errors(include_url=False), key=lambda finding: finding["type"] != "extra_forbidden")
        problem = first["msg"].removeprefix("Value error, ").rstrip(".")
        where = ".".join(str(part) for part in first["loc"])
        raise SaerlError(
            "tasks_invalid",
            f"The task mix is not valid: {problem}.",
            where=where,
            remedy=_remedy(first["type"]),
        ) from error


def generate_rows(mix: TaskMix) -> Iterator[dict[str, object]]:
    """Draw the mix's rows.

    The settings take turns, all families at level 0 first, then all at level 1 and so on, so that in every
    prefix no two settings differ by more than one row. No prompt comes twice. A setting without new
    instances drops out.

    Returns:
        The rows, made as they are asked for, each with `prompt`, `answer` (the reference), `family`, `level`
        (0 is the easiest), `task_id` (`family/level/index`, the index counting the setting's instances with
        the repeats that were passed over) and `metadata` (JSON, for `score_answer`).

    Raises:
        SaerlError: At once: `gym_missing` where reasoning-gym is not installed, `family_unknown` and
            `setting_invalid` where it does not know a family or refuses a setting. While drawing:
            `answer_missing` where a family states no reference answer.
    """
    n_levels = max(len(family.settings) for family in mix.families)
    seen: set[str] = set()
    streams = [
        _draw(family, level, _dataset(mix.seed, family, level), _suffix(mix, family), seen)
        for level in range(n_levels)
        for family in mix.families
        if level < len(family.settings)
    ]
    return itertools.islice(_take_turns(streams), mix.n_rows)


def extract_answer(completion: str, *, like: str) -> str | None:
    r"""Take the bare answer from what a model wrote.

    Looked at is the first of these that there is, as common graders do it: the inside of the last
    `\boxed{}`; the rest of the line after the last 'answer is' or 'answer:'; the whole completion. Taken
    from there is, where the reference is a number, the last number; where it is a yes or no, or a true or
    false, the first such word; else the last line, from its last colon on, without the list mark, quotes,
    emphasis and full stop around it.

    Args:
        completion: What the model wrote.
        like: The reference answer. Only its kind is looked at, never its value.

    Returns:
        The answer, or None where the completion holds nothing of that kind.
    """
    text = _announced(completion)
    if _NUMBER.fullmatch(like):
        numbers = _NUMBER.findall(text)
        return numbers[-1].replace(",", "") if numbers else None
    for words in _VERDICTS:
        if like.lower() in words:
            verdict = re.search(rf"\b(?:{'|'.join(words)})\b", text, re.IGNORECASE)
            return verdict.group().capitalize() if verdict else None
    lines = [bare for line in text.splitlines() if (bare := _bare(line))]
    return lines[-1] if lines else None


def score_answer(row: Mapping[str, object], answer: str | None) -> float:
    """Score an answer to a row of `generate_rows` by reasoning-gym's scorer for its family.

    Args:
        row: Needs `prompt`, `answer`, `family` and `metadata`.
        answer: The bare answer, see `extract_answer`. None, or one that the scorer cannot parse, scores 0.

    Returns:
        0 to 1; correct from `CORRECT_SCORE` on.

    Raises:
        SaerlError: `gym_missing`, `family_unknown`.
    """
    score = _scorer(str(row["family"]))
    if answer is None:
        return 0.0
    metadata = json.loads(str(row["metadata"]))
    try:
        return float(score(answer, {"question": row["prompt"], "answer": row["answer"], "metadata": metadata}))
    except (ValueError, TypeError, ArithmeticError, LookupError, SyntaxError):
        # Some scorers take for granted that the text parses: prime_factorization's calls int() on each part.
        return 0.0


def _take_turns(streams: list[Iterator[dict[str, object]]]) -> Iterator[dict[str, object]]:
    while streams:
        going_on = []
        for stream in streams:
            row = next(stream, None)
            if row is not None:
                going_on.append(stream)
                yield row
        streams = going_on


def _draw(
    family: TaskFamily, level: int, dataset: _Dataset, suffix: str, seen: set[str]
) -> Iterator[dict[str, object]]:
    n_repeats = 0
    for index in range(N_DRAWS_MAX):
        entry = dataset[index]
        prompt = str(entry["question"]).strip() + suffix
        if prompt in seen:
            n_repeats += 1
            if n_repeats == MAX_REPEATS:
                return
            continue
        n_repeats = 0
        seen.add(prompt)
        if not isinstance(entry["answer"], str):
            raise SaerlError(
                "answer_missing",
                f"reasoning-gym states no reference answer for {family.name!r}.",
                where=f"families.{family.name}",
                remedy="Take another family.",
            )
        yield {
            "prompt": prompt,
            "answer": entry["answer"],
            "family": family.name,
            "level": level,
            "task_id": f"{family.name}/{level}/{index}",
            "metadata": json.dumps(entry["metadata"], default=str, ensure_ascii=False, sort_keys=True),
        }


def _suffix(mix: TaskMix, family: TaskFamily) -> str:
    suffix = mix.suffix if family.suffix is None else family.suffix
    return f"\n{suffix}" if suffix else ""


def _dataset(seed: int, family: TaskFamily, level: int) -> _Dataset:
    reasoning_gym = _reasoning_gym()
    config_class = _config_class(family.name)
    try:
        dataset: _Dataset = reasoning_gym.create_dataset(
            family.name,
            seed=_stream_seed(seed, family.name, level),
            size=N_DRAWS_MAX,
            **family.settings[level],
        )
    except (TypeError, ValueError, AssertionError) as error:
        fields = [field for field in config_class.__dataclass_fields__ if field not in RESERVED_KEYS]
        raise SaerlError(
            "setting_invalid",
            f"reasoning-gym refuses this setting: {error}.",
            where=f"families.{family.name}.settings.{level}",
            remedy=f"Give values that it takes to fields that it has: {', '.join(fields)}.",
        ) from error
    return dataset


def _stream_seed(seed: int, family: str, level: int) -> int:
    """A setting's own seed, far from the others': instance i is made from seed + i, so near seeds overlap."""
    digest = hashlib.blake2b(f"{seed}/{family}/{level}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big")


@functools.cache
def _scorer(family: str) -> Callable[[str, dict[str, object]], float]:
    reasoning_gym = _reasoning_gym()
    _config_class(family)
    scorer: Callable[[str, dict[str, object]], float] = reasoning_gym.get_score_answer_fn(family)
    return scorer


def _config_class(family: str) -> Any:  # noqa: ANN401 (a class of an untyped library)
    datasets = _reasoning_gym().factory.DATASETS
    if family not in datasets:
        near = difflib.get_close_matches(family, datasets, n=3)
        raise SaerlError(
            "family_unknown",
            f"reasoning-gym has no task family {family!r}.",
            where=f"families.{family}",
            remedy=f"Use {' or '.join(near)}." if near else f"Use one of {', '.join(sorted(datasets))}.",
        )
    return datasets[family][1]


def _reasoning_gym() -> Any:  # noqa: ANN401 (an untyped library)
    try:
        with warnings.catch_warnings():
            # cellpylib, which it imports, compares to a literal by `is`; compiling that gives a warning.
            warnings.simplefilter("ignore", SyntaxWarning)
            import reasoning_gym
    except ImportError as error:
        raise SaerlError(
            "gym_missing",
            f"reasoning-gym, which makes and scores the tasks, cannot be imported: {error}.",
            remedy="pip install 'saerl_assets[demo]'",
        ) from error
    return reasoning_gym


def _announced(completion: str) -> str:
    boxed = _BOXED.findall(completion)
    if boxed:
        return str(boxed[-1])
    announced = _ANNOUNCEMENT.findall(completion)
    return str(announced[-1]) if announced else completion


def _bare(line: str) -> str:
    _, _, said = line.strip(_ORNAMENT).rpartition(": ")
    return _LIST_MARK.sub("", said).strip(_ORNAMENT)


def _remedy(kind: str) -> str:
    if kind == "extra_forbidden":
        mix, family = (", ".join(model.model_fields) for model in (TaskMix, TaskFamily))
        return f"Remove it or correct its spelling: a mix has the keys {mix}; a family has {family}."
    if kind == "missing":
        return "Add it."
    return "Correct it; examples/demo/tasks.toml is a valid mix."
