"""Names of the graph in a project, and what a step does when it fails: say what to do, or try again."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import polars as pl
import pytest

from saerl_assets.automation.runs import open_instance
from saerl_assets.automation.summary import run_version
from saerl_assets.domain.errors import SaerlError, is_passing, sounds_passing
from saerl_assets.placement import Placement, Retries, place
from saerl_assets.resources.home import HomeResource
from saerl_assets.resources.tables import WarehouseTables
from saerl_assets_tests.tiny import KEY, TinyWorld

QUICK = Retries(times=2, seconds=0.01)
BAD_SPEC = SaerlError("spec_invalid", "k is\n-1.", where="spec.toml: clusters.k", remedy="Give\nat least 1.")
TIME_OUT = SaerlError("hub_offline", "The hub is out of reach.", remedy="Connect.", passing=True)
PLAINLY = "spec.toml: clusters.k: k is -1. Give at least 1. [spec_invalid]"


# ---------------------------------------------------------------- names


def test_without_a_prefix_names_are_plain_and_resources_are_not() -> None:
    plain = Placement()
    assert plain.key("labels") == dg.AssetKey("labels")
    assert (plain.name("build_version"), plain.group("data"), plain.resource("home")) == (
        "build_version",
        "data",
        "saerl_home",
    )


@pytest.mark.parametrize("prefix", ["team/rl", ["team", "rl"], ("team", "rl")])
def test_a_prefix_is_before_every_name(prefix: Any) -> None:  # noqa: ANN401 - all that is taken
    placed = Placement.parse(prefix)
    assert placed.key("labels") == dg.AssetKey(["team", "rl", "labels"])
    assert {placed.name("x"), placed.group("x"), placed.resource("x")} == {"team_rl_x"}
    assert Placement.parse(prefix, group_name="one").group("data") == "one"


@pytest.mark.parametrize("none", ["", None, []])
def test_no_prefix_is_written_in_several_ways(none: Any) -> None:  # noqa: ANN401 - all that is taken
    assert Placement.parse(none) == Placement()


@pytest.mark.parametrize(
    ("setting", "given"),
    [
        ("key_prefix", {"key_prefix": "team//rl"}),
        ("key_prefix", {"key_prefix": "../etc"}),
        ("key_prefix", {"key_prefix": ["a b"]}),
        ("group_name", {"key_prefix": None, "group_name": "r&d"}),
        ("pool", {"key_prefix": None, "pool": "a pool"}),
    ],
)
def test_names_that_dagster_cannot_take_are_refused(setting: str, given: dict[str, Any]) -> None:
    with pytest.raises(SaerlError, match=rf"^{setting}: .*\[setting_invalid\]$"):
        Placement.parse(**given)


# ---------------------------------------------------------------- failures


def run(function: Any, *, retries: Retries = QUICK) -> tuple[list[dg.DagsterEvent], dg.DagsterInstance]:  # noqa: ANN401 - an asset's body
    """Materialises an asset with this body; its events and the instance that has them."""

    def labels(context: dg.AssetExecutionContext) -> int:
        return int(function(context.retry_number))

    asset = dg.asset(name="labels")(labels)
    instance = dg.DagsterInstance.ephemeral()
    dg.materialize(
        [place(asset, Placement(retries=retries))],
        instance=instance,
        resources={"saerl_tables": dg.mem_io_manager},
        raise_on_error=False,
    )
    run_id = instance.get_runs()[0].run_id
    return [entry.dagster_event for entry in instance.all_logs(run_id) if entry.dagster_event], instance


def of_type(events: list[dg.DagsterEvent], name: str) -> list[dg.DagsterEvent]:
    return [event for event in events if event.event_type_value == name]


def raises(error: Exception) -> Any:  # noqa: ANN401 - a function that never returns
    def raise_it(_attempt: int) -> int:
        raise error

    return raise_it


def test_what_cannot_pass_is_not_tried_again_and_its_first_line_says_what_to_do() -> None:
    events, _ = run(raises(BAD_SPEC))
    assert of_type(events, "STEP_UP_FOR_RETRY") == []
    (failure,) = of_type(events, "STEP_FAILURE")
    told = failure.step_failure_data.user_failure_data
    assert told is not None
    assert told.description == PLAINLY
    assert {name: value.value for name, value in told.metadata.items()} == {
        "problem": BAD_SPEC.problem,
        "what to do": BAD_SPEC.remedy,
        "where": BAD_SPEC.where,
        "code": BAD_SPEC.code,
    }
    error = failure.step_failure_data.error
    assert error is not None
    assert PLAINLY in error.message.splitlines()[0]
    assert error.cause is not None
    assert error.cause.cls_name == "SaerlError", "the traceback is still there for whoever wants it"


def test_what_may_pass_is_tried_again_after_twice_the_time() -> None:
    def passes_at_last(attempt: int) -> int:
        if attempt < 2:
            raise TIME_OUT
        return attempt

    events, _ = run(passes_at_last)
    waited = [event.step_retry_data.seconds_to_wait for event in of_type(events, "STEP_UP_FOR_RETRY")]
    assert waited == [pytest.approx(0.01), pytest.approx(0.02)]
    assert len(of_type(events, "STEP_SUCCESS")) == 1


def test_what_does_not_pass_fails_with_its_remedy_in_the_end() -> None:
    events, _ = run(raises(TIME_OUT))
    assert len(of_type(events, "STEP_UP_FOR_RETRY")) == QUICK.times
    (failure,) = of_type(events, "STEP_FAILURE")
    assert failure.step_failure_data.user_failure_data is not None
    assert failure.step_failure_data.user_failure_data.description == str(TIME_OUT)


def test_a_defect_keeps_its_traceback_and_is_not_tried_again() -> None:
    events, _ = run(raises(ZeroDivisionError("by nothing")))
    assert of_type(events, "STEP_UP_FOR_RETRY") == []
    (failure,) = of_type(events, "STEP_FAILURE")
    assert failure.step_failure_data.user_failure_data is None
    error = failure.step_failure_data.error
    assert error is not None
    assert error.cause is not None
    assert error.cause.cls_name == "ZeroDivisionError"


def test_a_step_of_several_assets_is_tried_again_too() -> None:
    tries = []

    @dg.multi_asset(outs={"prompts": dg.AssetOut(), "labels": dg.AssetOut()}, name="both")
    def both() -> Iterator[dg.MaterializeResult[int]]:
        tries.append(1)
        yield dg.MaterializeResult(asset_key="prompts", value=1)
        if len(tries) < 2:
            raise TIME_OUT
        yield dg.MaterializeResult(asset_key="labels", value=2)

    placement = Placement.parse("rl", retries=QUICK)
    done = dg.materialize([place(both, placement)], resources={"rl_tables": dg.mem_io_manager})
    assert done.success
    assert len(tries) == 2
    assert done.asset_value(["rl", "labels"]) == 2


def test_rows_that_cannot_be_stored_say_so_in_the_first_line(fresh_home: HomeResource) -> None:
    @dg.asset(name="labels", partitions_def=dg.StaticPartitionsDefinition([KEY]))
    def labels() -> pl.DataFrame:
        return pl.DataFrame({"nonsense": [1]})

    instance = dg.DagsterInstance.ephemeral()
    dg.materialize(
        [place(labels, Placement())],
        instance=instance,
        partition_key=KEY,
        resources={"saerl_tables": WarehouseTables(home=fresh_home)},
        raise_on_error=False,
    )
    events = [entry.dagster_event for entry in instance.all_logs(instance.get_runs()[0].run_id) if entry.dagster_event]
    (failure,) = of_type(events, "STEP_FAILURE")
    assert failure.step_failure_data.user_failure_data is not None
    assert "[invalid_rows]" in str(failure.step_failure_data.user_failure_data.description)


def test_a_version_whose_source_has_changed_names_the_remedy_in_the_event_log(
    tiny_world: TinyWorld, fresh_home: HomeResource
) -> None:
    source = tiny_world.folder / "moved.jsonl"
    source.write_text('{"question": "1"}\n')
    tiny_world.register(fresh_home, "moved-v1", data={"source": "path:moved.jsonl"})
    source.write_text('{"question": "2 and more"}\n')
    failed = run_version(fresh_home, "moved-v1", only=["versions"])
    assert "Put the old file back" in failed.failure
    with open_instance(fresh_home.open().dagster) as instance:
        (run_of_it,) = instance.get_runs()
        events = [entry.dagster_event for entry in instance.all_logs(run_of_it.run_id) if entry.dagster_event]
    (failure,) = of_type(events, "STEP_FAILURE")
    error = failure.step_failure_data.error
    assert error is not None
    first_line = error.message.splitlines()[0]
    assert "has changed since it was registered" in first_line
    assert "Put the old file back" in first_line
    assert of_type(events, "STEP_UP_FOR_RETRY") == []


# ---------------------------------------------------------------- which failures may pass


class HubError(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(f"{status} from the hub")
        self.response = type("Response", (), {"status_code": status})()


@pytest.mark.parametrize(
    ("failure", "passing"),
    [
        (TimeoutError("the read operation timed out"), True),
        (ConnectionResetError("reset"), True),
        (OSError("[Errno -3] Temporary failure in name resolution"), True),
        (HubError(503), True),
        (HubError(429), True),
        (HubError(404), False),
        (HubError(401), False),
        (ValueError("unknown architecture"), False),
        (OSError("no such file"), False),
        (TIME_OUT, True),
        (BAD_SPEC, False),
    ],
)
def test_a_network_in_trouble_is_told_from_a_wrong_question(failure: Exception, *, passing: bool) -> None:
    assert is_passing(failure) is passing
    wrapped = RuntimeError("what the library made of it")
    wrapped.__cause__ = failure
    assert is_passing(wrapped) is passing


@pytest.mark.parametrize(
    ("words", "passing"),
    [
        ("ReadTimeoutError: HTTPSConnectionPool: Read timed out.", True),
        ("ERROR: Could not find a version that satisfies the requirement", False),
        ("HTTP error 502: Bad Gateway", True),
    ],
)
def test_words_of_pip(words: str, *, passing: bool) -> None:
    assert sounds_passing(words) is passing
