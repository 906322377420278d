from __future__ import annotations

import pickle

import pytest

from saerl_assets.domain.errors import SaerlError


def test_an_error_arrives_whole_from_another_process() -> None:
    error = SaerlError("order_lost", "It is lost.", where="here", remedy="Find it.")
    found = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(found), str(found), vars(found)) == (SaerlError, str(error), vars(error))


@pytest.mark.parametrize("name", ["\x1b[2Jred", "a\x00b", "half \ud800 pair", "\u202egnp.exe", "\x9b0m", "bell\x07"])
def test_a_name_in_somebodys_data_cannot_drive_a_terminal(name: str) -> None:
    error = SaerlError("a_b", f"No column {name}.", where=name, remedy=f"Rename {name}.")
    for text in (str(error), error.problem, error.where, error.remedy):
        assert text.isprintable(), "nothing in it is obeyed, and it can be written as UTF-8"
        text.encode()
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301 - our own
    assert "Größe 5\n" in str(SaerlError("a_b", "Größe 5\n", remedy="")), "what is readable stays"
