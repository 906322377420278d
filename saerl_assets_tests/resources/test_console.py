"""What a run says of a stage that failed."""

from __future__ import annotations

import dagster as dg
import pytest

from saerl_assets.domain.errors import SaerlError
from saerl_assets.resources.console import cause_of

TOLD = SaerlError("disk_full", "There is no room.", where="/home", remedy="Make some.")


def _library_error() -> None:
    raise OSError(28, "No space left on device")


def _explained() -> None:
    try:
        _library_error()
    except OSError as error:
        raise TOLD from error


def _explained_twice() -> None:
    try:
        _explained()
    except SaerlError as error:
        raise SaerlError("hub_failed", "It did not come.", where="hf:x", remedy="Try again.") from error


def _a_bug() -> None:
    try:
        _library_error()
    except OSError as error:
        message = "unexpected"
        raise ValueError(message) from error


CASES = {
    "explained": (_explained, str(TOLD)),
    "explained twice": (_explained_twice, "hf:x: It did not come. Try again. [hub_failed]"),
    "a bug": (_a_bug, "OSError: [Errno 28] No space left on device"),
    "not explained": (_library_error, "OSError: [Errno 28] No space left on device"),
}


@pytest.mark.parametrize("name", CASES)
def test_an_error_that_tells_a_person_what_to_do_goes_before_what_caused_it(name: str) -> None:
    fail, expected = CASES[name]

    @dg.asset
    def broken() -> None:
        fail()

    done = dg.materialize([broken], raise_on_error=False)
    (failure,) = [event for event in done.all_events if event.event_type_value == "STEP_FAILURE"]
    assert cause_of(failure) == expected
