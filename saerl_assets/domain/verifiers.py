r"""Verifiers: whether a completion answers its prompt, as a score from 0 to 1.

Belongs here: finding a verifier by name, taking a final answer from a completion, comparing it. Does not belong here:
making completions (models.rollouts), pass rates (outcomes), and reasoning-gym's families and their scorers (gym).

| name | what it does |
| --- | --- |
| `exact` | the final answer is the reference, to the letter |
| `final_answer` | the last number of the final answer is that of the reference |
| `math` | math-verify finds them equal: fractions, roots, sets, LaTeX; needs `saerl_assets[math]` |
| `reasoning_gym` | reasoning-gym's own scorer of the row's task family; needs `saerl_assets[demo]` |
| `module:function` | a function of yours, called with completion, reference answer and the row's further fields |

The final answer is the first of these that a completion holds, each where it occurs last: what is inside `\boxed{}`,
the rest of the line after `####`, the rest of the line after 'answer is' or 'answer:', the whole completion.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import math
import re
import sys
import threading
import unicodedata
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from saerl_assets.domain.errors import SaerlError
from saerl_assets.domain.gym import extract_answer, score_answer
from saerl_assets.domain.spec import VERIFIERS_OF_ANSWERS

Verifier: TypeAlias = Callable[[str, str | None, Mapping[str, Any]], float]
"""Completion, reference answer or None, further fields of the prompt's row (`verifier_fields`) -> score in [0, 1]."""

BuiltIn = Literal["exact", "final_answer", "math", "reasoning_gym"]
IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*", re.ASCII)
"""How a function of the user's own is named: `package.module:function`."""

MATH_SECONDS = 5
"""After so many seconds math-verify gives up on an expression, which then is not equal."""

_BRACES = re.compile(r"\\boxed\s*\{|\\[{}]|[{}]")
_ANNOUNCEMENT = re.compile(r"answer(?:\s+is\b|\s*:)", re.IGNORECASE)
_FRACTION = re.compile(r"\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_NUMBER = re.compile(
    r"(?<![\w.])[-+\u2212]?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{1,3}(?!\d))?(?:/\d+)?"
)
_ORNAMENT = " \t*_`\"'.,:;$"
_FAMILY_FIELDS = ("family", "source_dataset")


def load_verifier(name: str) -> Verifier:
    """Finds a verifier by its name, and sees that what it needs is installed.

    Args:
        name: `exact`, `final_answer`, `math`, `reasoning_gym`, or `module:function`. The latter imports the module,
            which runs its code.

    Raises:
        SaerlError: `unknown_verifier` for a name that is none, or a module or function that cannot be found;
            `verifier_refused` for a function of Python's own library, or one that does not take three arguments;
            `math_missing`. What is returned raises `answer_missing` where it needs a reference answer and there is
            none, `verifier_failed` where a function of the user's own fails or returns anything but a number from 0 to
            1, or a row lacks what reasoning-gym's scorer needs; and `gym_missing`, `family_unknown`.
    """
    if name == "math":
        _math_verify()
        return math_equal
    known: dict[str, Verifier] = {"exact": exact, "final_answer": final_answer, "reasoning_gym": reasoning_gym}
    return known[name] if name in known else _own(name)


def verifier_digest(name: str) -> str:
    """What tells one verifier from another: its name, and of a function of the user's own the source of its module.

    Raises:
        SaerlError: As `load_verifier`, of which this is the check.
    """
    load_verifier(name)
    if name in get_args(BuiltIn):
        return name
    file = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    source = Path(file).read_bytes() if file and Path(file).is_file() else b""
    return f"{name} {hashlib.sha256(source).hexdigest()}"


def needs_answer(name: str) -> bool:
    """Whether a verifier can say nothing of a prompt without a reference answer."""
    return name in VERIFIERS_OF_ANSWERS


def verifier_fields(extra: str | Mapping[str, Any], *, prompt: str, topic: str | None = None) -> dict[str, Any]:
    """What a verifier is given of a prompt's row.

    Args:
        extra: The further fields of the source row, or the JSON object of them that the table `prompts` and the exports
            keep.
        prompt: What is asked: the text of the last message of the user.
        topic: The row's topic or family, where the version names one.

    Returns:
        The further fields, and `prompt` and `topic` where the row has no fields of these names.
    """
    fields = json.loads(extra) if isinstance(extra, str) else extra
    return {"prompt": prompt, **({} if topic is None else {"topic": topic}), **fields}


def asked(messages: str | list[dict[str, Any]]) -> str:
    """The text of the last message of the user, or of the last message where the user says nothing."""
    parsed = json.loads(messages) if isinstance(messages, str) else messages
    of_user = [message for message in parsed if message["role"] == "user"]
    return str((of_user or parsed)[-1]["content"])


def exact(completion: str, answer: str | None, fields: Mapping[str, Any]) -> float:  # noqa: ARG001 - one signature
    """1 where the final answer is the reference: white space around it, quotes and a full stop aside.

    Raises:
        SaerlError: `answer_missing`.
    """
    said, meant = final_part(completion), _normal(_given(answer, "exact"))
    return float(meant in {_normal(said), _normal(said.strip(_ORNAMENT))})


def final_answer(completion: str, answer: str | None, fields: Mapping[str, Any]) -> float:  # noqa: ARG001
    r"""1 where the last numbers of the final answer and of the reference are equal, as `0.50` and `\frac{1}{2}` are.

    A sign of percent, a unit or a currency is not looked at. A reference without a number is compared as `exact` does,
    in any case of letters.

    Raises:
        SaerlError: `answer_missing`.
    """
    reference = final_part(_given(answer, "final_answer"))
    wanted = last_number(reference)
    if wanted is not None:
        return float(last_number(final_part(completion)) == wanted)
    said = final_part(completion).strip(_ORNAMENT)
    return float(_normal(said).casefold() == _normal(reference.strip(_ORNAMENT)).casefold())


def math_equal(completion: str, answer: str | None, fields: Mapping[str, Any]) -> float:  # noqa: ARG001
    """1 where math-verify (https://github.com/huggingface/Math-Verify) finds answer and reference equal.

    An expression that it cannot parse, or not in `MATH_SECONDS`, is not equal. The limit of time needs the main thread;
    elsewhere there is none.

    Raises:
        SaerlError: `answer_missing`, `math_missing`.
    """
    reference = _given(answer, "math")
    library = _math_verify()
    # Its limits of time are alarms, which Python takes in the main thread alone; 0 is no limit.
    seconds = MATH_SECONDS if threading.current_thread() is threading.main_thread() else 0
    anchored = reference if "$" in reference or "\\boxed" in reference else f"\\boxed{{{reference}}}"
    gold = library.parse(anchored, parsing_timeout=seconds)
    found = library.parse(completion, parsing_timeout=seconds)
    return float(bool(gold and found and library.verify(gold, found, timeout_seconds=seconds)))


def reasoning_gym(completion: str, answer: str | None, fields: Mapping[str, Any]) -> float:
    """The score that reasoning-gym's scorer of the row's task family gives to the answer in the completion.

    The family is the row's field `family` or `source_dataset`, also inside `metadata`, or its topic. `metadata` is an
    object or JSON. Rows of a `gym:` source have all of it.

    Raises:
        SaerlError: `gym_missing`, `family_unknown`, `verifier_failed`.
    """
    metadata = _metadata(fields)
    places = [*(fields.get(field) for field in _FAMILY_FIELDS), metadata.get("source_dataset"), fields.get("topic")]
    family = next((str(place) for place in places if place), "")
    row = {
        "prompt": fields.get("prompt", ""),
        "answer": answer,
        "family": family,
        "metadata": json.dumps(metadata, default=str),
    }
    return min(1.0, max(0.0, score_answer(row, extract_answer(completion, like=answer or ""))))


def final_part(completion: str) -> str:
    r"""The part of a completion that holds its final answer, white space around it stripped; see the module."""
    boxed = _last_boxed(completion)
    if boxed is not None:
        return boxed.strip()
    _, mark, rest = completion.rpartition("####")
    if mark:
        return rest.strip().partition("\n")[0].strip()
    announcements = list(_ANNOUNCEMENT.finditer(completion))
    if announcements:
        return completion[announcements[-1].end() :].lstrip(" \t\n:*").partition("\n")[0].strip()
    return completion.strip()


def last_number(text: str) -> Fraction | None:
    """The last number in a text, exactly; None where there is none, or only a division by zero."""
    found = _NUMBER.findall(_FRACTION.sub(r"\1/\2", text))
    if not found:
        return None
    upper, _, lower = found[-1].replace(",", "").replace("\u2212", "-").partition("/")
    try:
        return Fraction(upper) / Fraction(lower or 1)
    except (ValueError, ZeroDivisionError):  # more digits than Python reads, or n/0
        return None


def _last_boxed(text: str) -> str | None:
    r"""The inside of the `\boxed{}` that closes last, braces in it balanced. One pass, however many stay open."""
    found: str | None = None
    opened: list[int | None] = []
    for mark in _BRACES.finditer(text):
        if mark[0] == "}" and opened:
            start = opened.pop()
            found = text[start : mark.start()] if start is not None else found
        elif mark[0] == "{":
            opened.append(None)
        elif mark[0].startswith("\\boxed"):
            opened.append(mark.end())
    return found


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n")).strip()


def _given(answer: str | None, name: str) -> str:
    if answer is None:
        raise SaerlError(
            "answer_missing",
            f"The verifier {name!r} compares with a reference answer, and there is none.",
            where="data.answer",
            remedy="Let data.answer name its field, or use a verifier of your own that needs none.",
        )
    return answer


def _metadata(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The instance that the scorer asks about."""
    value = fields.get("metadata")
    try:
        metadata = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        metadata = None
    if not isinstance(metadata, Mapping):
        raise SaerlError(
            "verifier_failed",
            "A row has no readable field metadata, which reasoning-gym's scorers need.",
            where="verifier reasoning_gym",
            remedy="Take rows of a gym: source, or keep their field metadata (data.keep).",
        )
    return dict(metadata)


def _own(name: str) -> Verifier:
    """A function by its import path, with its scores checked."""
    if not IMPORT_PATH.fullmatch(name):
        raise _unknown(name, "This is no verifier")
    module_name, _, path = name.partition(":")
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        # Nothing in it scores an answer, and some of it runs what it is given.
        raise _refused(name, "It is of Python's own library.")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # its own code runs, which can fail in any way
        raise _unknown(name, f"The module cannot be imported ({type(error).__name__}: {error})") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise _unknown(name, f"The module {module_name} has no {path}")
        found = getattr(found, part)
    if not callable(found):
        raise _refused(name, "It is not a function.")
    _check_arguments(found, name)
    return _checked(found, name)


def _check_arguments(function: Callable[..., Any], name: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some that are written in C do not say
        return
    try:
        signature.bind("completion", "answer", {})
    except TypeError as error:
        raise _refused(name, f"It does not take three arguments: {error}.") from error


def _checked(function: Callable[..., Any], name: str) -> Verifier:
    """The function, with whatever it raises or returns told in words."""

    def verify(completion: str, answer: str | None, fields: Mapping[str, Any]) -> float:
        try:
            score = function(completion, answer, fields)
        except SaerlError:
            raise
        except Exception as error:
            message = f"It raised {type(error).__name__}: {error}."
            raise _failed(name, message) from error
        try:
            number = float(score)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if isinstance(score, str) or not 0.0 <= number <= 1.0:
            raise _failed(name, f"It returned {score!r:.80}, which is no number from 0 to 1.")
        return number

    return verify


def _unknown(name: str, problem: str) -> SaerlError:
    names = ", ".join(get_args(BuiltIn))
    remedy = f"Use one of {names}, or module:function of an installed module or one on PYTHONPATH."
    return SaerlError("unknown_verifier", f"{problem}.", where=f"verifier {name!r:.120}", remedy=remedy)


def _refused(name: str, problem: str) -> SaerlError:
    remedy = "Name a function of your own that takes completion, reference answer and a mapping, and returns a score."
    return SaerlError("verifier_refused", problem, where=f"verifier {name!r:.120}", remedy=remedy)


def _failed(name: str, problem: str) -> SaerlError:
    return SaerlError("verifier_failed", problem, where=f"verifier {name!r:.120}", remedy="Correct the function.")


def _math_verify() -> Any:  # noqa: ANN401 - an untyped library
    try:
        import math_verify
    except ImportError as error:
        raise SaerlError(
            "math_missing",
            f"math-verify, which the verifier 'math' compares with, cannot be imported: {error}.",
            remedy="pip install 'saerl_assets[math]'",
        ) from error
    return math_verify
