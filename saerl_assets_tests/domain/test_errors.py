from __future__ import annotations

import pickle

from saerl_assets.domain.errors import SaerlError


def test_an_error_arrives_whole_from_another_process() -> None:
    error = SaerlError("order_lost", "It is lost.", where="here", remedy="Find it.")
    found = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert (type(found), str(found), vars(found)) == (SaerlError, str(error), vars(error))
