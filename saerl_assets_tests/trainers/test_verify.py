"""What a log says about a manifest, with every deviation planted."""

from __future__ import annotations

import random
import time
from itertools import chain

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from saerl_assets.trainers.verify import Taken, Verdict, verify_order

N_EPOCHS, N_STEPS, SIZE, GENERATIONS = 2, 5, 4, 3
Batches = list[list[str]]


def planned(n_epochs: int = N_EPOCHS, n_steps: int = N_STEPS, size: int = SIZE) -> tuple[pl.DataFrame, Batches]:
    rows, batches = [], []
    for epoch in range(n_epochs):
        names = [f"p{at}" for at in range(n_steps * size)]
        random.Random(epoch).shuffle(names)  # noqa: S311
        for step in range(n_steps):
            batch = names[step * size : (step + 1) * size]
            batches.append(batch)
            rows += [(epoch, step, slot, name) for slot, name in enumerate(batch)]
    order = pl.DataFrame(rows, schema=["epoch", "step", "slot", "prompt_id"], orient="row")
    return order, batches


ORDER, BATCHES = planned()


def log_of(batches: Batches, *, first: int = 0, steps: bool = True, generations: int = GENERATIONS) -> list[Taken]:
    return [
        Taken(name, step if steps else None)
        for step, batch in enumerate(batches, first)
        for name in batch
        for _ in range(generations)
    ]


def verdict(log: list[Taken], **options: object) -> Verdict:
    return verify_order(ORDER, log, **options)  # type: ignore[arg-type]


def copied() -> Batches:
    return [list(batch) for batch in BATCHES]


# ---------------------------------------------------------------- followed


@pytest.mark.parametrize("steps", [True, False])
@pytest.mark.parametrize("generations", [1, 3])
def test_a_log_of_the_plan_follows_it(generations: int, steps: bool) -> None:
    found = verdict(log_of(BATCHES, steps=steps, generations=generations))
    assert (found.followed, found.is_complete, found.n_seen, found.n_planned) == (True, True, 10, 10)
    assert (found.first_deviation, found.n_deviations, found.n_missing, found.n_extra) == (None, 0, 0, 0)
    assert found.lines()[0] == "The log follows the manifest: 10 of 10 batches."


@given(st.integers(0, 10_000), st.booleans())
def test_any_order_within_batches_follows_and_is_said(seed: int, by_turns: bool) -> None:
    shuffled, draw = copied(), random.Random(seed)  # noqa: S311
    for batch in shuffled:
        draw.shuffle(batch)
    log = log_of(shuffled)
    if by_turns:  # all prompts of a batch, three times over
        log = [Taken(name, step) for step, batch in enumerate(shuffled) for _ in range(3) for name in batch]
    found = verdict(log)
    assert found.followed
    moved = sum(batch != plan for batch, plan in zip(shuffled, BATCHES, strict=True))
    said = [note for note in found.notes if "within the batch" in note]
    assert said == (
        [f"in {moved} batches the prompts come in another order within the batch, which does no harm"] * bool(moved)
    )


@pytest.mark.parametrize("n", range(1, 10))
def test_a_run_that_was_killed_followed_so_far(n: int) -> None:
    for steps in (True, False):
        found = verdict(log_of(BATCHES[:n], steps=steps))
        assert (found.followed, found.is_complete, found.n_seen) == (True, False, n)
        assert "so far" in found.summary
    cut = log_of(BATCHES[: n + 1])[: -2 * GENERATIONS]
    found = verdict(cut)
    assert (found.followed, found.is_complete) == (True, False)
    assert f"batch {n} breaks off after 2 of 4 prompts" in found.notes
    assert found.n_missing == 0


def test_a_run_that_resumed_followed() -> None:
    log = log_of(BATCHES[:7])[:-5] + log_of(BATCHES[4:], first=4)
    found = verdict(log)
    assert (found.followed, found.is_complete) == (True, True)
    assert any("goes back from step 6 to 4" in note for note in found.notes)


def test_lines_of_several_processes_may_be_interleaved() -> None:
    halves = [[Taken(name, step) for name in batch[rank::2]] for step, batch in enumerate(BATCHES) for rank in (0, 1)]
    halves[3], halves[4] = halves[4], halves[3]
    assert verdict(list(chain(*halves))).followed


def test_a_log_that_begins_later_says_so() -> None:
    found = verdict(log_of(BATCHES[6:], first=6), first_step=0)
    assert found.followed
    assert not found.is_complete
    assert any("begins with batch 6" in note for note in found.notes)


def test_steps_may_be_counted_from_one_or_anew_in_every_epoch() -> None:
    found = verdict(log_of(BATCHES, first=1))
    assert found.followed
    assert "the log counts steps from 1" in found.notes
    anew = [Taken(name, at % N_STEPS, at // N_STEPS) for at, batch in enumerate(BATCHES) for name in batch]
    found = verdict(anew)
    assert found.followed
    assert "the log counts steps anew in every epoch" in found.notes
    assert not verdict(log_of(BATCHES, first=1), first_step=0).followed


def test_steps_may_be_left_out_by_design_only() -> None:
    log = [taken for taken in log_of(BATCHES) if (taken.step or 0) % 3 == 0]
    found = verdict(log, may_skip=True)
    assert found.followed
    assert any("6 batches in between" in note for note in found.notes)
    found = verdict(log)
    assert (found.followed, found.first_deviation, found.n_deviations) == (False, 1, 6)
    assert "no line of batches 1-2, 4-5, 7-8" in found.summary


def test_padding_and_batches_of_one_prompt() -> None:
    order = pl.DataFrame(
        {"epoch": [0] * 4, "step": [0, 0, 1, 1], "slot": [0, 1, 0, 1], "prompt_id": ["a", "b", "c", "c"]}
    )
    for steps in (0, None):
        log = [Taken("a", steps), Taken("b", steps)] + [Taken("c", None if steps is None else 1)] * 2
        assert verify_order(order, log).followed


# ---------------------------------------------------------------- not followed


@pytest.mark.parametrize("steps", [True, False])
def test_two_prompts_swapped_across_batches(steps: bool) -> None:
    swapped = copied()
    swapped[3][1], swapped[6][2] = swapped[6][2], swapped[3][1]
    if steps is False and swapped[3][1] in swapped[2]:
        pytest.skip("it would look like one more completion of the batch before")
    found = verdict(log_of(swapped, steps=steps))
    assert (found.followed, found.first_deviation, found.n_deviations) == (False, 3, 2)
    assert "permuted across 2 batches" in found.summary
    assert found.deviations[0].missing == [BATCHES[3][1]]
    assert found.deviations[0].extra == [BATCHES[6][2]]
    assert (found.n_missing, found.n_extra) == (0, 0)


def test_a_shuffled_epoch() -> None:
    names = [name for batch in BATCHES[5:] for name in batch]
    random.Random(9).shuffle(names)  # noqa: S311
    shuffled = BATCHES[:5] + [names[at : at + SIZE] for at in range(0, len(names), SIZE)]
    found = verdict(log_of(shuffled))
    assert (found.followed, found.first_deviation) == (False, 5)
    assert "permuted across 5 batches" in found.summary
    assert found.n_missing == found.n_extra == 0


def test_whole_batches_in_another_order() -> None:
    moved = [BATCHES[at] for at in (0, 3, 2, 1, 4, 5, 6, 8, 7, 9)]
    found = verdict(log_of(moved))
    assert (found.followed, found.first_deviation, found.n_deviations) == (False, 1, 4)
    assert "Whole batches come in another order: batch 1 is the planned 3" in found.summary
    assert [each.is_batch for each in found.deviations] == [3, 1, 8, 7]


@pytest.mark.parametrize("steps", [True, False])
def test_a_batch_left_out_shifts_what_follows(steps: bool) -> None:
    found = verdict(log_of(BATCHES[:4] + BATCHES[5:], steps=steps), **({"first_step": 0} if steps else {}))
    assert (found.followed, found.first_deviation) == (False, 4)
    assert "every batch comes 1 early: batch 4 was left out" in found.summary
    assert found.n_missing == 0 if set(BATCHES[4]) <= {name for b in BATCHES[5:] for name in b} else found.n_missing > 0


def test_a_batch_that_is_not_there() -> None:
    found = verdict([taken for taken in log_of(BATCHES) if taken.step != 4])
    assert (found.followed, found.first_deviation, found.n_deviations) == (False, 4, 1)
    assert "no line of batch 4" in found.summary
    assert found.deviations[0].missing == BATCHES[4]


def test_a_batch_twice() -> None:
    twice = BATCHES[:4] + BATCHES[3:]
    found = verdict(log_of(twice), first_step=0)
    assert (found.followed, found.first_deviation) == (False, 4)
    assert "every batch comes 1 late" in found.summary
    found = verdict(log_of(twice, steps=False))
    assert (found.followed, found.first_deviation) == (False, 3)
    assert "batch 3 twice" in found.summary


def test_the_log_of_another_manifest() -> None:
    found = verdict([Taken(f"other{at}", at // 4) for at in range(40)])
    assert (found.followed, found.first_deviation, found.n_extra) == (False, 0, 40)
    assert "another one" in found.summary
    assert found.extra == [f"other{at}" for at in range(10)]
    assert found.n_missing == 20


def test_the_log_of_another_seed_has_the_same_prompts() -> None:
    _, others = planned(n_epochs=4)
    found = verdict(log_of(others[10:]))
    assert (found.followed, found.first_deviation, found.n_extra) == (False, 0, 0)


def test_a_prompt_that_is_missing_and_one_that_is_foreign() -> None:
    other = copied()
    other[2][0] = "foreign"
    found = verdict(log_of(other))
    assert (found.first_deviation, found.n_deviations, found.extra) == (2, 1, ["foreign"])
    assert "1 batches have other prompts" in found.summary
    single = [taken for taken in log_of(BATCHES) if taken.prompt_id != BATCHES[2][0]]
    found = verdict(single)
    assert found.missing == [BATCHES[2][0]]
    assert "never trained on" in "\n".join(found.lines())


def test_batches_of_another_size() -> None:
    names = [name for batch in BATCHES for name in batch]
    halves = [names[at : at + 2] for at in range(0, len(names), 2)]
    found = verdict(log_of(halves))
    assert (found.followed, found.first_deviation) == (False, 0)
    assert "Its batches have 2 prompts, the manifest's have 4" in found.summary


def test_a_training_that_goes_on_behind_the_end() -> None:
    found = verdict(log_of(BATCHES + BATCHES[:3]))
    assert (found.followed, found.first_deviation, found.n_deviations) == (False, 10, 3)
    assert "goes on for 3 batches where the manifest has ended" in found.summary
    assert found.is_complete


def test_an_empty_log_followed_nothing() -> None:
    assert not verdict([]).followed


@given(st.integers(0, 8), st.integers(1, 8), st.integers(0, 3), st.integers(0, 3))
def test_any_swap_is_found_at_its_first_batch(first: int, distance: int, slot: int, other: int) -> None:
    second = min(first + distance, 9)
    swapped = copied()
    swapped[first][slot], swapped[second][other] = swapped[second][other], swapped[first][slot]
    changed = [at for at in (first, second) if set(swapped[at]) != set(BATCHES[at])]
    found = verdict(log_of(swapped))
    assert found.followed is (not changed)
    assert found.first_deviation == (min(changed) if changed else None)
    assert found.n_deviations == len(set(changed))


# ---------------------------------------------------------------- size


def test_the_time_is_that_of_reading_each_line_once() -> None:
    order, batches = planned(n_epochs=1, n_steps=200, size=125)
    log = log_of(batches, generations=8)
    started = time.process_time()
    assert verify_order(order, log).followed
    assert time.process_time() - started < 10
    assert len(log) == 200_000
