"""A person in the Dagster UI, with Playwright: where they click, what they wait for, what they photograph.

Belongs here: finding one's way by what is written on the page. Does not belong here: what is expected there.

Screenshots go to the folder that SAERL_SCREENSHOTS names, else to `.saerl-screenshots/` in the checkout.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from saerl_assets_tests.report.browser import NO_BROWSER, find_browser
from saerl_assets_tests.ui.serving import CHECKOUT

ARGUMENTS = (
    "--no-sandbox",  # pages of ours, and containers have no user namespaces
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
)
LONGEST_WAIT_SECONDS = 120.0
"""For a page or a dialog, on a machine that has much else to do."""
LONGEST_RUN_SECONDS = 900.0
SIZE = (1400, 880)
"""Pixels of the window."""

Theme = Literal["light", "dark"]
Tab = Literal["Overview", "Events", "Checks", "Lineage"]


def screenshots() -> Path:
    """The folder of screenshots."""
    folder = Path(os.environ.get("SAERL_SCREENSHOTS") or CHECKOUT / ".saerl-screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """The machine's own Chromium; skips the test where none is installed. None is ever downloaded."""
    program = find_browser()
    if program is None:
        pytest.skip(NO_BROWSER)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            yield opened
        finally:
            opened.close()


class Walk:
    """One window on the UI."""

    def __init__(self, page: Page, theme: Theme = "light") -> None:
        self.page = page
        self._theme = theme

    def photograph(self, name: str) -> Path:
        """Keeps what is seen, once pictures and fonts are there and nothing moves."""
        file = screenshots() / f"{name}{'-dark' if self._theme == 'dark' else ''}.png"
        self.page.screenshot(path=file, animations="disabled")
        return file

    def see_lineage(self) -> Locator:
        """Goes to the graph of all assets, its groups folded."""
        self.page.goto("/")
        self._go_to("Lineage")
        graph = self.page.locator("svg").filter(has=self.page.locator("foreignObject.group"))
        graph.locator("foreignObject.group").first.wait_for()
        return graph

    def materialise(self, key: str) -> str:
        """Materialises every asset of a version by clicks in the graph, and waits until its run has ended.

        Args:
            key: The version, which is registered.

        Returns:
            What the run's page says of it: Success or Failure.
        """
        self.see_lineage()
        self.page.get_by_role("button", name="Materialize all").click()
        dialog = self.page.get_by_role("dialog").filter(has_text="Launch runs to materialize").first
        dialog.get_by_text("Select a partition or create one").click()
        self.page.get_by_role("menuitem").filter(has_text=re.compile(rf"^{re.escape(key)}")).click()
        self.photograph(f"choosing-{key}")
        dialog.get_by_text(re.compile("^Launch runs to materialize")).first.click()  # anywhere else closes the list
        dialog.get_by_role("button", name="Launch 1 run").click()
        dialog.wait_for(state="hidden")
        self.see_run(key)
        ended = self.page.get_by_text(re.compile(r"^(Success|Failure|Canceled)$")).first
        ended.wait_for(timeout=LONGEST_RUN_SECONDS * 1000)
        self.photograph(f"run-{key}")
        return ended.inner_text()

    def fold_navigation(self) -> None:
        """Leaves only icons at the left, for this window."""
        self.page.goto("/assets")
        self.page.get_by_text("Hide navigation").click()

    def see_run(self, key: str) -> None:
        """Goes to the newest run, which is one of a version."""
        self._go_to("Runs")
        self.page.locator("a[href^='/runs/']").first.click()
        self.page.get_by_text("Re-execute all").wait_for()
        self.page.get_by_text(f"partition: {key}").first.wait_for()

    def see_asset(self, name: str, tab: Tab = "Overview") -> None:
        """Goes to a tab of an asset's page."""
        self.page.goto(f"/assets/{name}")
        self.page.get_by_role("tab", name=tab, exact=True).click()

    def see_answers(self) -> None:
        """Goes to all answers of the check that is shown."""
        self.page.get_by_role("tab", name="Execution history").click()

    def answer(self, key: str) -> Locator:
        """What a check has answered about a version: the row of the table."""
        return self.page.locator("tr").filter(has=self.page.get_by_text(key, exact=True))

    def open_figure(self) -> Locator:
        """Opens the figure of the materialisation that is shown, and waits until its picture has come."""
        row = self.page.get_by_role("row").filter(has=self.page.get_by_text("figure", exact=True))
        row.get_by_text("Show Markdown").click()
        figure = self.page.get_by_role("dialog").locator("img")
        figure.wait_for()
        self.page.wait_for_function("[...document.images].every((one) => one.complete)")
        return figure

    def _go_to(self, name: str) -> None:
        """Clicks on a name at the left."""
        self.page.get_by_role("link").filter(has_text=re.compile(f"^{name}$")).click()


@contextlib.contextmanager
def walk(opened: Browser, address: str, theme: Theme = "light") -> Iterator[Walk]:
    """A window of its own on the UI at an address."""
    width, height = SIZE
    page = opened.new_page(viewport={"width": width, "height": height}, base_url=address, color_scheme=theme)
    page.set_default_timeout(LONGEST_WAIT_SECONDS * 1000)
    try:
        yield Walk(page, theme)
    finally:
        page.close()
