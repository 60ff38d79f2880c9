"""Every page for everybody: names for who hears it, contrast for who sees it, room on a phone."""

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Site
from tests.http.harness import Harness, W, with_live

BASE = f"/ui/worlds/{W}"
AXE = (Path(__file__).parent / "axe-4.14.1.min.js").read_text()
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
GRAVE = {"moderate", "serious", "critical"}


def paths(harness: Harness) -> list[str]:
    view = harness.store.load(W)  # type: ignore[arg-type]  # A WorldId.
    (candidate,) = view.candidates
    run = next(iter(view.runs.values()))
    return [
        *(
            "/ui",
            "/ui/system",
            "/ui/words",
            "/ui/nothing",
            BASE,
            f"{BASE}/policy",
            f"{BASE}/journal",
        ),
        *(f"{BASE}/journal/1", f"{BASE}/journal/verified", f"{BASE}/hub", "/ui/sign-in"),
        *(f"{BASE}/strategies/s1", f"{BASE}/strategies/s1/runs/{run.run_id}"),
        *(f"{BASE}/candidates/{candidate}", f"{BASE}/candidates/{candidate}/dossier"),
        f"{BASE}/day",
    ]


def complaints(page: Any) -> list[str]:
    """What axe finds that is more than minor, with the element."""
    page.evaluate(AXE)
    found = page.evaluate(
        "rules => axe.run(document, {runOnly: {type: 'tag', values: rules}})", RULES
    )
    return [
        f"{each['id']}: {node['html'][:120]} {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in GRAVE
        for node in each["nodes"]
    ]


def test_axe_finds_what_it_is_there_to_find(site: Site) -> None:
    page = site.open(site.person("admin"), BASE)
    assert complaints(page) == []
    page.evaluate("document.querySelector('label[for=q]').remove()")
    page.evaluate("document.querySelector('h1').style.color = '#ddd'")
    assert {said.partition(":")[0] for said in complaints(page)} == {"label", "color-contrast"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_is_more_than_minor(site: Site, scheme: str) -> None:
    page = site.person("admin", color_scheme=scheme)
    for path in paths(site.harness):
        site.open(page, path)
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert complaints(page) == [], path


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_wider_than_the_screen(site: Site, width: int) -> None:
    page = site.person("admin")
    page.set_viewport_size({"width": width, "height": 740})
    for path in paths(site.harness):
        site.open(page, path)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{path} is {wide} wide"


def test_the_keyboard_reaches_everything_that_can_be_done(site: Site) -> None:
    page = site.open(site.person("admin"), BASE)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    count = page.locator("a, button, input:not([type=hidden]), textarea, select, summary").count()
    reached = set()
    for _ in range(count + 20):
        name = page.evaluate(
            "(() => { const e = document.activeElement; const s = getComputedStyle(e);"
            " return e === document.body ? null : [e.outerHTML, s.outlineStyle] })()"
        )
        if name is not None:
            assert name[1] != "none", f"nobody sees where they are: {name[0][:100]}"
            reached.add(name[0])
        page.keyboard.press("Tab")
    for button in page.locator("main button").all():
        assert button.evaluate("e => e.outerHTML") in reached


def test_a_live_world_is_drawn(site: Site) -> None:
    """The chart of a strategy that has been in three stages, with its legend."""
    run_id = with_live(site.harness)
    assert run_id
    site.harness.feed("live", {"s1": 0.001})
    page = site.open(site.person("rea"), f"{BASE}/strategies/s1")
    page.locator(".uplot canvas").first.wait_for()
    assert page.locator(".u-legend .u-label").all_inner_texts()[:4] == [
        *("day", "backtest", "paper", "live"),
    ]
    drawn = page.evaluate(
        "(() => { const c = document.querySelector('.uplot canvas');"
        " const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;"
        " return d.some((v, n) => n % 4 === 3 && v > 0) })()"
    )
    assert drawn
