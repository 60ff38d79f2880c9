"""A browser without a screen, and worlds for it, served in this process.

Without a Chromium these tests are skipped, each by name: `make browser` installs one.
"""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.http.harness import Harness, harness_over, listening, with_candidate, with_world

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
WAIT_MS = 8_000


@pytest.fixture(scope="module")  # While it is there, nobody else in this thread may use asyncio.
def chromium() -> Iterator[Any]:
    """The browser; it takes half a second, and every test has a context of its own in it."""
    if CHROMIUM is None:
        pytest.skip("NO BROWSER: there is no chromium on the PATH; `make browser` installs it")
    api = pytest.importorskip(
        "playwright.sync_api", reason="NO BROWSER: playwright is not installed; run `make venv`"
    )
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@dataclass
class Site:
    """A served world, which may be taken away and come back at the same address."""

    harness: Harness
    chromium: Any
    opened: ExitStack
    serving: ExitStack = field(default_factory=ExitStack)
    url: str = ""
    problems: list[str] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    def serve(self) -> None:
        port = int(self.url.rpartition(":")[2] or 0)
        self.harness.services.bell.closing = False
        app, ending = self.harness.client.app, self.harness.services.bell.close
        self.url = self.serving.enter_context(listening(app, ending, port))

    def go_away(self) -> None:
        self.serving.close()

    def context(self, **options: Any) -> Any:
        """A browser of somebody's own; what its pages complain of is kept."""
        made = self.chromium.new_context(viewport={"width": 1280, "height": 900}, **options)
        self.opened.callback(made.close)
        made.set_default_timeout(WAIT_MS)
        made.on("request", lambda request: self.asked.add(request.url))
        made.on("console", self._said)
        made.on("weberror", lambda error: self.problems.append(str(error.error)))
        made.on("dialog", lambda dialog: self.problems.append(f"dialog: {dialog.message}"))
        return made

    def _said(self, message: Any) -> None:
        # A status that is no success, and a connection that ends, are said by every browser, and
        # the latter by htmx, too.
        said = message.text
        if message.type == "error" and "Failed to load" not in said and said != "[object Event]":
            self.problems.append(said)

    def person(self, who: str, **options: Any) -> Any:
        """A page of somebody who has signed in, by hand."""
        page = self.context(**options).new_page()
        page.goto(f"{self.url}/ui")
        page.get_by_label("Token").fill(self.harness.tokens[who])
        page.keyboard.press("Enter")
        page.get_by_role("heading", name="Worlds").wait_for()
        return page

    def open(self, page: Any, path: str) -> Any:
        page.goto(self.url + path)
        return page


@pytest.fixture
def harness(tmp_path: Path) -> Iterator[Harness]:
    with harness_over("memory", tmp_path) as made:
        yield made


@pytest.fixture
def site(chromium: Any, harness: Harness) -> Iterator[Site]:
    """A world with a candidate that waits for two approvals.  No page may complain."""
    with_world(harness)
    with_candidate(harness)
    with ExitStack() as opened:
        made = Site(harness, chromium, opened)
        made.serve()
        yield made
        opened.close()
        made.go_away()
    assert made.problems == []
    assert {url for url in made.asked if not url.startswith(made.url)} == set(), "from elsewhere"
