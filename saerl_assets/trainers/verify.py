"""Did a training follow the manifest? Holds what a log says was trained on against the planned order.

Belongs here: comparing, batch by batch, and saying in words how they differ. Does not belong here: reading logs
(run_logs). Pure: no file, no clock.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SHOWN = 10
"""Prompts and batches that are named; all are counted."""


class Taken(NamedTuple):
    """One line of a log."""

    prompt_id: str
    step: int | None = None
    """As the log counts; None where it does not."""
    epoch: int | None = None


@dataclass(frozen=True)
class Deviation:
    """One batch that was not trained on as planned."""

    step: int
    """The batch, counted from 0 over all epochs."""
    epoch: int | None
    """The planned epoch of that batch; None behind the manifest's end."""
    missing: list[str]
    extra: list[str]
    n_missing: int
    n_extra: int
    is_batch: int | None
    """The planned batch whose prompts these are, if they are exactly those of one."""


@dataclass(frozen=True)
class Verdict:
    """What a log says about a manifest."""

    followed: bool
    is_complete: bool
    """Every planned batch was seen."""
    n_planned: int
    """Batches of the manifest."""
    n_seen: int
    """Of these, batches with at least one prompt in the log."""
    first_deviation: int | None
    """The first batch that is not as planned."""
    summary: str
    deviations: list[Deviation]
    """The first ones."""
    n_deviations: int
    missing: list[str]
    """Prompts of the batches that the log covers, but that it never names; the first ones."""
    n_missing: int
    extra: list[str]
    """Prompts that the manifest does not have; the first ones."""
    n_extra: int
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, object]:
        """For scripts."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person."""
        lines = [self.summary]
        for deviation in self.deviations[:3]:
            of = "" if deviation.is_batch is None else f" (these are the prompts of batch {deviation.is_batch})"
            lines.append(f"  batch {deviation.step}: {deviation.n_missing} missing, {deviation.n_extra} extra{of}")
            lines += [f"    missing: {_listed(deviation.missing, deviation.n_missing)}"] if deviation.missing else []
            lines += [f"    extra:   {_listed(deviation.extra, deviation.n_extra)}"] if deviation.extra else []
        if self.n_deviations > 3:
            lines.append(f"  and {self.n_deviations - 3:,} more batches")
        if self.n_missing:
            lines.append(f"never trained on: {_listed(self.missing, self.n_missing)}")
        if self.n_extra:
            lines.append(f"not in the manifest: {_listed(self.extra, self.n_extra)}")
        return [*lines, *(f"note: {note}" for note in self.notes)]


class _Plan:
    """The planned batches."""

    def __init__(self, order: pl.DataFrame) -> None:
        batches = (
            order.sort("epoch", "step", "slot").group_by("epoch", "step", maintain_order=True).agg(pl.col("prompt_id"))
        )
        self.places: list[tuple[int, int]] = list(batches.select("epoch", "step").iter_rows())
        slots: list[list[str]] = batches["prompt_id"].to_list()
        self.slots = [Counter(batch) for batch in slots]
        """How many slots of a batch a prompt has: more than one where it pads."""
        self.batches = [list(batch) for batch in self.slots]
        self.sets = [frozenset(batch) for batch in self.batches]
        self.at = {batch: number for number, batch in reversed(list(enumerate(self.sets)))}
        self.prompts = frozenset().union(*self.sets)
        self.number = {place: number for number, place in enumerate(self.places)}


Seen = dict[int, Counter[str]]
"""Of each batch number the prompts in the order in which they came, with how often each did."""


def verify_order(
    order: pl.DataFrame,
    log: Sequence[Taken],
    *,
    first_step: int | None = None,
    may_skip: bool = False,
) -> Verdict:
    """Holds a log against a planned order.

    Prompts may come in any order within their batch and any number of times; a batch may come again, as it does when
    a training resumes from a checkpoint; and the log may end anywhere. A log without steps is cut into batches by
    counting distinct prompts.

    Args:
        order: One row per slot: epoch, step, slot, prompt_id.
        log: What was trained on, in the order in which it was written.
        first_step: The number that the log gives the first batch. None: whichever of 0, 1 and 'per epoch' fits best.
        may_skip: The log leaves out steps by design, such as one that is written every tenth step.
    """
    plan = _Plan(order)
    notes: list[str] = []
    if not log:
        return _verdict(plan, {}, {}, "The log names no prompt.", ["nothing was compared"], followed=False)
    has_steps = all(taken.step is not None for taken in log)
    seen = _by_step(plan, log, first_step, notes) if has_steps else _by_count(plan, log, notes)
    completions = _completions(plan, seen)
    usual = Counter(completions.values()).most_common(1)[0][0]
    again = sorted(number for number, n in completions.items() if n >= 2 * usual)
    twice = _say_repeats(again, log, notes, has_steps=has_steps)
    cut = _cut_off(plan, seen, _last(seen, log, has_steps=has_steps), usual)
    wrong = _wrong_batches(plan, seen, notes, may_skip=may_skip, cut=cut)
    wrong |= {number: "twice" for number in twice if number not in wrong}
    _say_permuted(plan, seen, wrong, notes)
    return _verdict(plan, seen, wrong, _told(plan, seen, wrong), notes, followed=not wrong)


def _by_step(plan: _Plan, log: Sequence[Taken], first_step: int | None, notes: list[str]) -> Seen:
    """Gathers a log by its own steps."""
    if first_step is not None:
        return _gathered((taken.prompt_id, int(taken.step or 0) - first_step) for taken in log)
    candidates = [_gathered((taken.prompt_id, int(taken.step or 0) - first) for taken in log) for first in (0, 1)]
    if any(taken.epoch for taken in log):
        places = ((taken.prompt_id, plan.number.get((taken.epoch or 0, taken.step or 0), -1)) for taken in log)
        candidates.append(_gathered(places))
    fits = [sum(_is_right(plan, number, prompts) for number, prompts in seen.items()) for seen in candidates]
    starts_at_one = min(int(taken.step or 0) for taken in log) == 1
    best = max(range(len(candidates)), key=lambda at: (fits[at], at == int(starts_at_one)))
    notes += [[], ["the log counts steps from 1"], ["the log counts steps anew in every epoch"]][best]
    return candidates[best]


def _gathered(rows: Iterable[tuple[str, int]]) -> Seen:
    seen: Seen = {}
    for prompt_id, number in rows:
        batch = seen.get(number)
        if batch is None:
            batch = seen[number] = Counter()
        batch[prompt_id] += 1
    return seen


def _by_count(plan: _Plan, log: Sequence[Taken], notes: list[str]) -> Seen:
    """Cuts a log into batches: one is full when it has as many distinct prompts as the planned one.

    Prompts of a batch that was just full are further completions of it.
    """
    notes.append("the log has no steps; it was cut into batches by counting prompts")
    size = max(len(batch) for batch in plan.batches)
    seen: Seen = {0: Counter()}
    number = 0
    for prompt_id, *_ in log:
        current = seen[number]
        wanted = len(plan.batches[number]) if number < len(plan.batches) else size
        if prompt_id not in current and len(current) >= wanted:
            number += 1
            current = seen[number] = Counter()
        current[prompt_id] += 1
    return seen


def _is_right(plan: _Plan, number: int, prompts: Counter[str]) -> bool:
    return 0 <= number < len(plan.sets) and prompts.keys() == plan.sets[number]


def _last(seen: Seen, log: Sequence[Taken], *, has_steps: bool) -> set[int]:
    """Batches at which the log may break off: the last one, and the one that was written last."""
    if not has_steps:
        return {max(seen)}
    last = log[-1]
    return {
        max(seen),
        *(number for number, batch in seen.items() if last.prompt_id in batch and number >= max(seen) - 1),
    }


def _completions(plan: _Plan, seen: Seen) -> dict[int, int]:
    """Of each batch how many completions every slot has at least."""
    slots = {number: plan.slots[number] if 0 <= number < len(plan.slots) else Counter() for number in seen}
    return {
        number: min(n // max(1, slots[number][prompt_id]) for prompt_id, n in batch.items())
        for number, batch in seen.items()
    }


def _cut_off(plan: _Plan, seen: Seen, last: set[int], usual: int) -> set[int]:
    """Batches at the log's end that are the beginning of what was planned: fewer prompts, and not others twice."""
    return {
        number
        for number in last
        if 0 <= number < len(plan.sets)
        and seen[number].keys() < plan.sets[number]
        and seen[number].total() < usual * plan.slots[number].total()
    }


def _say_repeats(again: list[int], log: Sequence[Taken], notes: list[str], *, has_steps: bool) -> set[int]:
    """Notes batches that were trained on again; without steps these are returned, for they may be no resumption."""
    if not again:
        return set()
    if not has_steps:
        notes.append(f"{_numbers(again)}: twice in a row")
        return set(again)
    steps = [taken.step or 0 for taken in log]
    backwards = next((at for at in range(1, len(steps)) if steps[at] < steps[at - 1]), None)
    how = "" if backwards is None else f"; the log goes back from step {steps[backwards - 1]} to {steps[backwards]}"
    notes.append(f"{_numbers(again)}: trained on again, as by a training that resumes{how}")
    return set()


def _wrong_batches(plan: _Plan, seen: Seen, notes: list[str], *, may_skip: bool, cut: set[int]) -> dict[int, str]:
    """Numbers of batches that are not as planned, with what they are."""
    wrong: dict[int, str] = {}
    for number in sorted(seen):
        prompts = seen[number].keys()
        if not 0 <= number < len(plan.sets):
            wrong[number] = "beyond"
        elif prompts == plan.sets[number]:
            continue
        elif number in cut:
            notes.append(f"batch {number} breaks off after {len(prompts)} of {len(plan.sets[number])} prompts")
        else:
            wrong[number] = "differs"
    first, end = min(seen), min(max(seen) + 1, len(plan.sets))
    if 0 < first < len(plan.sets):
        notes.append(f"the log begins with batch {first}; whether those before were followed it does not say")
    gaps = [number for number in range(max(first, 0), end) if number not in seen]
    if gaps and may_skip:
        notes.append(f"the log is written every so many steps: {len(gaps):,} batches in between are not in it")
    elif gaps:
        wrong |= dict.fromkeys(gaps, "absent")
    return wrong


def _say_permuted(plan: _Plan, seen: Seen, wrong: dict[int, str], notes: list[str]) -> None:
    right = [number for number in seen if number not in wrong and seen[number].keys() == plan.sets[number]]
    moved = sum(list(seen[number]) != plan.batches[number] for number in right)
    if moved:
        notes.append(f"in {moved:,} batches the prompts come in another order within the batch, which does no harm")


def _told(plan: _Plan, seen: Seen, wrong: dict[int, str]) -> str:
    """The verdict in a sentence or two."""
    n_seen = sum(number in seen for number in range(len(plan.sets)))
    if not wrong:
        so_far = "" if n_seen == len(plan.sets) else " so far"
        return f"The log follows the manifest{so_far}: {n_seen:,} of {len(plan.sets):,} batches."
    if not any(prompt_id in plan.prompts for batch in seen.values() for prompt_id in batch):
        return "None of the log's prompts is in this manifest: it is the log of another one."
    return f"The log leaves the manifest at batch {min(wrong):,}. {_diagnosis(plan, seen, wrong)}"


def _diagnosis(plan: _Plan, seen: Seen, wrong: dict[int, str]) -> str:
    """How what was trained on differs, as far as one can tell from the batches."""
    numbers = sorted(wrong)
    kinds = set(wrong.values())
    only = kinds.pop() if len(kinds) == 1 else None
    if only == "absent":
        return f"The log has no line of {_numbers(numbers)}."
    if only == "beyond":
        return f"It goes on for {len(numbers):,} batches where the manifest has ended."
    if only == "twice":
        return f"It has {_numbers(numbers)} twice."
    differing = [number for number in numbers if wrong[number] in {"differs", "beyond"}]
    return _as_moved_batches(plan, seen, differing) or _as_mixed_prompts(plan, seen, differing)


def _as_moved_batches(plan: _Plan, seen: Seen, differing: list[int]) -> str:
    """In words, if what came is whole planned batches; the last one may be cut off by the end of the log."""
    found = {number: plan.at.get(frozenset(seen[number])) for number in differing}
    whole = {number: is_batch for number, is_batch in found.items() if is_batch is not None}
    shifts = {is_batch - number for number, is_batch in whole.items()}
    if len(whole) >= max(1, len(differing) - 1) and len(shifts) == 1:
        shift = shifts.pop()
        if shift > 0:
            left_out = _numbers(list(range(differing[0], differing[0] + shift)))
            return f"From there on every batch comes {shift} early: {left_out} was left out."
        return f"From there on every batch comes {-shift} late: something else came in between."
    if len(whole) == len(differing):
        return f"Whole batches come in another order: batch {differing[0]} is the planned {found[differing[0]]}."
    return ""


def _as_mixed_prompts(plan: _Plan, seen: Seen, differing: list[int]) -> str:
    """In words, if batches are made of other prompts than planned."""
    size = Counter(len(seen[number]) for number in differing).most_common(1)[0][0]
    planned = Counter(len(batch) for batch in plan.sets).most_common(1)[0][0]
    if size != planned and len(differing) > 1:
        return f"Its batches have {size} prompts, the manifest's have {planned}."
    came = {prompt for number in differing for prompt in seen[number]}
    wanted = {prompt for number in differing if 0 <= number < len(plan.sets) for prompt in plan.sets[number]}
    if came == wanted:
        return f"The same prompts are permuted across {len(differing):,} batches."
    if came <= plan.prompts:
        return f"{len(differing):,} batches have prompts that the manifest has elsewhere."
    return f"{len(differing):,} batches have other prompts."


def _verdict(
    plan: _Plan, seen: Seen, wrong: dict[int, str], summary: str, notes: list[str], *, followed: bool
) -> Verdict:
    named = set().union(*(batch.keys() for batch in seen.values())) if seen else set()
    covered = [number for number in range(len(plan.sets)) if number in seen or number in wrong]
    broken_off = {number for number in covered if number in seen and number not in wrong}
    due = dict.fromkeys(prompt for number in covered if number not in broken_off for prompt in plan.batches[number])
    missing = [prompt for prompt in due if prompt not in named]
    extra = [
        prompt for prompt in dict.fromkeys(p for batch in seen.values() for p in batch) if prompt not in plan.prompts
    ]
    n_seen = sum(number in seen for number in range(len(plan.sets)))
    return Verdict(
        followed=followed,
        is_complete=all(
            number in seen and plan.sets[number] <= seen[number].keys() for number in range(len(plan.sets))
        ),
        n_planned=len(plan.sets),
        n_seen=n_seen,
        first_deviation=min(wrong) if wrong else None,
        summary=summary,
        deviations=[_deviation(plan, seen, number) for number in sorted(wrong)[:SHOWN]],
        n_deviations=len(wrong),
        missing=missing[:SHOWN],
        n_missing=len(missing),
        extra=extra[:SHOWN],
        n_extra=len(extra),
        notes=notes,
    )


def _deviation(plan: _Plan, seen: Seen, number: int) -> Deviation:
    is_planned = 0 <= number < len(plan.sets)
    planned = plan.batches[number] if is_planned else []
    came = seen.get(number, Counter())
    missing = [prompt for prompt in planned if prompt not in came]
    extra = [prompt for prompt in came if not is_planned or prompt not in plan.sets[number]]
    is_batch = plan.at.get(frozenset(came)) if came else None
    return Deviation(
        step=number,
        epoch=plan.places[number][0] if is_planned else None,
        missing=missing[:SHOWN],
        extra=extra[:SHOWN],
        n_missing=len(missing),
        n_extra=len(extra),
        is_batch=None if is_batch == number else is_batch,
    )


def _numbers(numbers: list[int]) -> str:
    """Batch numbers in words, runs of them as one."""
    if not numbers:
        return "none"
    runs, start = [], numbers[0]
    for before, after in zip(numbers, [*numbers[1:], None], strict=True):
        if after != before + 1:
            runs.append(f"{start}" if start == before else f"{start}-{before}")
            start = after if after is not None else before
    shown = ", ".join(runs[:SHOWN])
    noun = "batch" if len(numbers) == 1 else "batches"
    return f"{noun} {shown}{', ...' if len(runs) > SHOWN else ''}"


def _listed(prompts: list[str], n: int) -> str:
    shown = ", ".join(prompts[:3])
    return shown if n <= 3 else f"{shown} and {n - 3:,} more"
