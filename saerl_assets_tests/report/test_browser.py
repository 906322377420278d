"""The page in a real browser: a silent console, every section, and pointing, filtering and sorting that work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from saerl_assets.report.page import render_report
from saerl_assets.resources.home import HomeResource
from saerl_assets_tests.report.browser import Page, open_page
from saerl_assets_tests.report.frames import report_inputs, the_frames
from saerl_assets_tests.report.test_page import SECTIONS
from saerl_assets_tests.tiny import KEY

N_PROMPTS = 200
SHOWN = """[...document.querySelectorAll("#prompts-table tbody tr")].filter((row) => !row.hidden)"""


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(report_inputs(the_frames(N_PROMPTS, n_clusters=14)))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_page(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(browser: Page, html: str, tmp_path: Path) -> Page:
    file = tmp_path / "page.html"
    file.write_text(html, encoding="utf-8")
    browser.open(file)
    return browser


def test_every_section_is_seen_the_console_is_silent_and_nothing_is_fetched(page: Page) -> None:
    heights = page.value(f"{list(SECTIONS)!r}.map((name) => document.getElementById(name)?.offsetHeight ?? 0)")
    assert [name for name, height in zip(SECTIONS, heights, strict=True) if height < 40] == []
    broken = page.value("[...document.images].filter((image) => !image.naturalWidth).map((image) => image.alt)")
    assert broken == []
    assert page.value("document.title") == "demo-v1: what is in it", "no prompt has renamed it"
    assert page.value("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out at the side"
    assert page.complaints() == []
    assert [url for url in page.requests() if not url.startswith(("file:", "data:"))] == []


def test_an_error_of_the_script_a_missing_section_and_a_foreign_address_would_be_noticed(
    browser: Page, html: str, tmp_path: Path
) -> None:
    file = tmp_path / "broken.html"
    file.write_text(html.replace('<section id="quality">', '<section id="gone">'), encoding="utf-8")
    browser.open(file)
    assert browser.value("document.getElementById('quality')") is None
    browser.value("setTimeout(() => nothing.at.all)")
    browser.value("(async () => { try { await fetch('https://example.org/') } catch {} })()")
    browser.value("new Promise((done) => setTimeout(done, 50))")
    said = " ".join(browser.complaints())
    assert "nothing is not defined" in said
    assert "Content Security Policy" in said


def test_pointing_at_a_prompt_reads_it_and_a_click_shows_its_cluster(page: Page) -> None:
    page.point_at("#cluster-map circle:nth-of-type(3)")
    assert page.value("document.querySelector('#told').hidden") is False
    pointed = page.value("({...document.querySelector('#cluster-map circle.told').dataset})")
    told = page.value("[...document.querySelector('#told').children].map((one) => one.textContent)")
    assert told[0] == f"cluster {pointed['group']}"
    rows = page.value(f"{SHOWN}.map((row) => [...row.cells].slice(0, 2).map((cell) => cell.textContent.trim()))")
    assert told[1] == dict(rows)[pointed["id"]]
    page.point_at(f'#cluster-map circle[data-id="{pointed["id"]}"]', click=True)
    clusters = page.value(f"[...new Set({SHOWN}.map((row) => row.cells[5].textContent.trim()))]")
    assert clusters == [pointed["group"]]
    assert page.complaints() == []


def test_points_are_marked_by_words_and_coloured_by_a_score(page: Page) -> None:
    page.value(
        "(() => { const input = document.querySelector('#cluster-map input'); input.value = 'level 3';"
        "input.dispatchEvent(new Event('input')); })()"
    )
    marked = page.value("document.querySelectorAll('#cluster-map circle.marked').length")
    assert 0 < marked < N_PROMPTS
    assert page.value("document.querySelector('#cluster-map output').textContent").startswith(f"{marked} of ")
    fill = "getComputedStyle(document.querySelector('#cluster-map circle')).fill"
    before = page.value(fill)
    page.value(
        "(() => { const select = document.querySelector('#cluster-map select'); select.value = '0';"
        "select.dispatchEvent(new Event('change')); })()"
    )
    assert page.value(fill) != before
    assert page.complaints() == []


def test_a_batch_is_read_by_pointing_and_a_click_shows_its_prompts_alone(page: Page) -> None:
    page.point_at("#batch-strip g:nth-of-type(2) .hit", click=True)
    pointed = page.value("({...document.querySelectorAll('#batch-strip g')[1].dataset})")
    shown = page.value(f"{SHOWN}.map((row) => row.cells[0].textContent.trim()).sort()")
    assert shown == sorted(pointed["prompts"].split())
    page.point_at("#prompts-table .filters button", click=True)
    assert page.value(f"{SHOWN}.length") == N_PROMPTS


def test_a_table_is_sorted_by_its_numbers_and_filtered_by_words(page: Page) -> None:
    button = "document.querySelectorAll('#prompts-table th button')[4]"
    page.value(f"{button}.click()")
    tokens = page.value(f"{SHOWN}.map((row) => Number(row.cells[4].dataset.order))")
    assert tokens == sorted(tokens)
    page.value(f"{button}.click()")
    assert page.value(f"{SHOWN}.map((row) => Number(row.cells[4].dataset.order))") == sorted(tokens, reverse=True)
    page.value(
        "(() => { const input = document.querySelector('#prompts-table input'); input.value = 'no such words';"
        "input.dispatchEvent(new Event('input')); })()"
    )
    assert page.value(f"{SHOWN}.length") == 0


def test_the_report_of_a_version_that_was_built_is_whole(tiny_home: HomeResource, browser: Page) -> None:
    found = tiny_home.warehouse().rows("version_report", dataset_version=KEY)
    browser.open(tiny_home.open().root / found["path"][0])
    heights = browser.value(f"{list(SECTIONS)!r}.map((name) => document.getElementById(name)?.offsetHeight ?? 0)")
    assert [name for name, height in zip(SECTIONS, heights, strict=True) if height < 40] == []
    assert browser.complaints() == []
    examples = tiny_home.warehouse().rows("feature_examples", dataset_version=KEY)
    assert browser.value("document.querySelectorAll('#features-table mark').length") == examples.height > 0
    texts = dict(tiny_home.warehouse().rows("prompts", ["prompt_id", "text"], dataset_version=KEY).iter_rows())
    for row in examples.iter_rows(named=True):
        assert row["before"] + row["token"] + row["after"] in texts[row["prompt_id"]]
    places = tiny_home.warehouse().rows("cluster_map", dataset_version=KEY)
    assert browser.value("document.querySelectorAll('#cluster-map circle').length") == places.height == len(texts)
    settings = browser.value("[...document.querySelectorAll('#exports pre')].map((one) => one.textContent).join('\\n')")
    assert "shuffle_dataset" in settings


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_told_from_their_ground_in_light_and_dark(page: Page, scheme: str) -> None:
    page.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    pairs = page.value(
        """["h1", ".lead", ".note", "td.long", "thead th", "mark", "nav a"].map((name) => {
             const one = document.querySelector(name);
             let ground = one;
             while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)" && ground.parentElement) {
               ground = ground.parentElement;
             }
             return [name, getComputedStyle(one).color, getComputedStyle(ground).backgroundColor];
           })"""
    )
    faint = [(name, ratio) for name, ink, ground in pairs if (ratio := contrast(ink, ground)) < 4.5]
    page.ask("Emulation.setEmulatedMedia", features=[])
    assert faint == [], "WCAG 2.2, 1.4.3"


def contrast(ink: str, ground: str) -> float:
    """The contrast of two colours as WCAG 2.2 defines it: 1 to 21."""
    lights = sorted((_light(ink), _light(ground)), reverse=True)
    return (lights[0] + 0.05) / (lights[1] + 0.05)


def _light(colour: str) -> float:
    parts = [float(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
