"""What a person sees and does in the Dagster UI after `make ui`, in a real browser; see `walking` for screenshots.

Both versions are built by clicks, once: one that is well, and one whose SAE is of no use for its model.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from saerl_assets.assets.rooms import OWNERS
from saerl_assets.automation.summary import describe_version
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.conftest import isolate
from saerl_assets_tests.tiny import KEY, N_PROMPTS, TinyWorld, write_fitted_sae
from saerl_assets_tests.ui.serving import served
from saerl_assets_tests.ui.walking import LONGEST_WAIT_SECONDS, Tab, Theme, Walk, browser, walk

pytestmark = pytest.mark.slow

MISFIT = "misfit-v1"
expect.set_options(timeout=LONGEST_WAIT_SECONDS * 1000)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def home(tiny_world: TinyWorld, tmp_path_factory: pytest.TempPathFactory) -> HomeResource:
    found = HomeResource(root=str(tmp_path_factory.mktemp("ui") / "home"))
    tiny_world.register(found)
    write_fitted_sae(tiny_world.folder / "misfit", tiny_world.folder / "model", layer=1, shuffled=True)
    tiny_world.register(found, MISFIT, sae={"source": ["path:misfit"]})
    return found


@pytest.fixture(scope="module")
def address(chromium: Browser, home: HomeResource, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:  # noqa: ARG001 - skips before anything is started
    folder = tmp_path_factory.mktemp("serving")
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, folder / "environment")
        with served(home.open().root, folder / "log") as found:
            yield found


@pytest.fixture
def person(chromium: Browser, address: str) -> Iterator[Walk]:
    with walk(chromium, address) as found:
        yield found


@pytest.fixture(scope="module")
def misfit(chromium: Browser, address: str) -> str:
    """What became of the run of the version that does not fit."""
    with walk(chromium, address) as found:
        return found.materialise(MISFIT)


@pytest.fixture(scope="module")
def built(chromium: Browser, address: str, misfit: str) -> str:  # noqa: ARG001 - one after the other
    """What became of the run of the version that is well."""
    with walk(chromium, address) as found:
        return found.materialise(KEY)


def test_the_lineage_shows_the_groups(person: Walk) -> None:
    graph = person.see_lineage()
    for group in OWNERS:
        expect(graph.get_by_text(group, exact=True)).to_be_visible()
    person.photograph("lineage")
    graph.get_by_text("batches", exact=True).click()
    expect(graph.get_by_text("batch_manifest", exact=True)).to_be_visible()
    person.photograph("lineage-batches")


def test_a_version_is_materialised_by_clicks(person: Walk, built: str, home: HomeResource) -> None:
    assert built == "Success"
    person.see_asset("prompts")
    expect(person.page.get_by_text("One row per prompt")).to_be_visible()
    state = describe_version(home, KEY)
    assert [stage.asset for stage in state.stages if stage.is_due] == []
    assert {result for _, result, _ in state.checks} == {"passed"}
    assert home.warehouse().rows("prompts", dataset_version=KEY).height == N_PROMPTS
    manifest = home.version(KEY).current_manifest_id
    assert manifest is not None
    assert not home.warehouse().rows("batch_manifest", manifest_id=manifest).is_empty()


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("tab", ["Overview", "Events"])
def test_an_asset_page_shows_its_figure(chromium: Browser, address: str, tab: Tab, theme: Theme) -> None:
    with walk(chromium, address, theme) as person:
        person.see_asset("clusters", tab)
        figure = person.open_figure()
        assert figure.evaluate("(one) => one.src.startsWith('data:image/png;base64,')")
        assert figure.evaluate("(one) => one.naturalWidth") == 800
        assert figure.evaluate("(one) => one.clientWidth") == 800, "it is shown at the size for which it is drawn"
        person.photograph(f"figure-{tab.lower()}")


@pytest.mark.usefixtures("built")
def test_a_failed_check_is_seen_and_explained_also_after_another_version_has_passed(
    person: Walk, misfit: str, home: HomeResource
) -> None:
    assert misfit == "Failure"
    person.see_asset("sae_health", "Checks")
    expect(person.page.get_by_text("This is a blocking asset check")).to_be_visible()
    expect(person.page.get_by_text("The SAE explains this model's activations at this layer")).to_be_visible()
    person.photograph("check")
    person.see_answers()
    failed, passed = person.answer(MISFIT), person.answer(KEY)
    expect(passed).to_contain_text("Passed")
    expect(failed).to_contain_text("Failed")
    expect(failed).to_contain_text("of the variance")
    for remedy in ("name the SAE of this one as sae.source", "raise sae.training_tokens"):
        expect(failed).to_contain_text(remedy)
    person.photograph("check-answers")
    assert home.warehouse().rows("batch_manifest", dataset_version=MISFIT).is_empty()
