"""The process of a run, as tags of the run."""

from __future__ import annotations

import os
import socket

import dagster as dg
import pytest
from dagster._core.storage.tags import HIDDEN_TAG_PREFIX

from saerl_assets.resources.run_process import HOST_TAG, PROCESS_TAG, STARTED_TAG, process_tags, tag_run

GONE = {HOST_TAG: socket.gethostname(), PROCESS_TAG: str(2**22 + 1), STARTED_TAG: "1.00"}
ELSEWHERE = {**process_tags(), HOST_TAG: "another-host"}
REUSED = {**process_tags(), STARTED_TAG: "1.00"}


def tagged(tags: dict[str, str]) -> dict[str, str]:
    """The tags of a run with these tags, after a resource was set up for it here."""
    with dg.DagsterInstance.ephemeral() as instance:
        run = instance.add_run(dg.DagsterRun(job_name="a", tags=tags))
        context = dg.build_init_resource_context(instance=instance)
        context._dagster_run = run
        tag_run(context)
        kept = instance.get_run_by_id(run.run_id)
        assert kept is not None
        return dict(kept.tags)


def test_the_tags_are_kept_and_never_shown() -> None:
    """Dagster leaves hidden tags out of every list; what people search for stays in view."""
    assert all(name.startswith(HIDDEN_TAG_PREFIX) for name in process_tags())
    assert tagged({"team": "rl"}) == {"team": "rl", **process_tags()}


@pytest.mark.parametrize("before", [{}, GONE, ELSEWHERE, REUSED, {PROCESS_TAG: "no number"}])
def test_a_run_that_is_started_again_gets_its_own_process(before: dict[str, str]) -> None:
    assert tagged(before)[PROCESS_TAG] == str(os.getpid())
    assert tagged(before) == process_tags()


def test_who_started_a_run_has_named_its_process() -> None:
    parent = process_tags(os.getppid())
    assert tagged(parent) == parent
