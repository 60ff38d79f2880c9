"""What people do in a browser: follow, approve, refuse, stop; and what others try."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from qmtl.entry.authfile import CALLBACK
from qmtl.entry.dashboard import story
from tests import oidc
from tests.browser.conftest import Site
from tests.browser.test_pages import complaints
from tests.dashboard.test_oidc import placed
from tests.dashboard.test_pages import EVIL
from tests.http.harness import DAY, Harness, W, submission

BASE = f"/ui/worlds/{W}"


def feed(harness: Harness, r: float = 0.002) -> None:
    harness.advance(DAY)
    harness.feed("paper", {"s1": r})


def candidate(harness: Harness) -> dict[str, Any]:
    (found,) = harness.ok("rea", "GET", f"/worlds/{W}/promotions/live/candidates")["candidates"]
    return dict(found)


def candidate_path(harness: Harness) -> str:
    return f"{BASE}/candidates/{candidate(harness)['candidate_id']}"


def until_shown(page: Any, harness: Harness) -> None:
    """Until the page shows all that has happened, without having been loaded again."""
    seq = harness.store.load(W).seq  # type: ignore[arg-type]  # A WorldId.
    page.wait_for_selector(f"#content[data-seq='{seq}']", state="attached")


def test_a_campaign_is_followed_live(site: Site) -> None:
    page = site.open(site.person("rea"), f"{BASE}/strategies/s1")
    page.evaluate("window.here = 'the same page'")
    assert page.get_by_text("14 of 8").count() == 1
    feed(site.harness)
    until_shown(page, site.harness)
    page.get_by_text("15 of 8").wait_for()
    assert page.evaluate("window.here") == "the same page", "nobody loaded it"
    page.wait_for_function("document.querySelectorAll('.chart .uplot').length === 2")


def test_a_page_says_when_it_is_out_of_date_and_catches_up(site: Site) -> None:
    page = site.open(site.person("rea"), BASE)
    feed(site.harness)
    until_shown(page, site.harness)
    site.go_away()
    page.get_by_text("Not connected: this is of").wait_for()
    feed(site.harness)
    feed(site.harness)
    site.serve()
    until_shown(page, site.harness)
    page.locator("#link").wait_for(state="hidden")


@pytest.mark.parametrize("page_of", ["hub", "journal", "policy", "run"])
def test_every_page_of_a_world_follows_it(site: Site, page_of: str) -> None:
    run = next(iter(site.harness.store.load(W).runs.values())).run_id  # type: ignore[arg-type]  # A WorldId.
    path = f"strategies/s1/runs/{run}" if page_of == "run" else page_of
    page = site.open(site.person("rea"), f"{BASE}/{path}")
    site.harness.advance(DAY)
    shown = page.locator("#as-of").inner_text()
    site.harness.feed("paper", {"s1": 0.001})
    page.get_by_text(f"As of {site.harness.now:%Y-%m-%d %H:%M:%S}").wait_for()
    assert page.locator("#as-of").inner_text() != shown
    site.go_away()
    page.get_by_text("Not connected: this is of").wait_for()
    site.serve()
    page.locator("#link").wait_for(state="hidden")


def test_what_is_told_anew_keeps_the_readers_place(site: Site) -> None:
    page = site.open(site.person("rea"), f"{BASE}/strategies/s1")
    page.get_by_text("metrics, and where each is from").first.click()
    page.get_by_role("link", name="Every entry about it").focus()
    feed(site.harness)
    page.get_by_text("15 of 8").wait_for()
    assert page.locator("details[open]").count() == 1
    assert page.evaluate("document.activeElement.textContent") == "Every entry about it"


def test_two_people_approve_and_an_operator_lets_it_through(site: Site) -> None:
    path = candidate_path(site.harness)
    al, bo = site.person("al"), site.person("bo")
    for one, reason in ((al, "the drawdown holds"), (bo, "the window is full")):
        site.open(one, BASE)
        one.get_by_role("link", name="s1 to step 1 of its ramp").click()
        assert one.url.endswith(path)
        one.locator("#approve-reason").fill(reason)
        one.get_by_role("button", name="Approve step 1").click()
        one.get_by_text("Your approval was recorded.").wait_for()
    assert candidate(site.harness)["standing"] == "approved"
    olga = site.open(site.person("olga"), path)
    assert olga.get_by_text("the drawdown holds").count() == 1
    olga.get_by_role("button", name="Let it through").click()
    olga.get_by_text("It went through the gate.").wait_for()
    site.open(olga, BASE)
    olga.get_by_role("cell", name="50.0 %").first.wait_for()


def test_evidence_that_changed_is_marked_and_an_approval_of_it_refused(site: Site) -> None:
    page = site.open(site.person("al"), candidate_path(site.harness))
    page.locator("#approve-reason").fill("as I saw it")
    feed(site.harness)
    site.harness.ok("olga", "POST", f"/worlds/{W}/evaluate", {"strategy_id": "s1"})
    page.get_by_text("This has changed since you opened it.").wait_for()
    assert page.locator("#approve-reason").input_value() == "as I saw it", "nothing is taken away"
    page.get_by_role("button", name="Approve step 1").click()
    page.get_by_role("heading", name="The evidence has changed since you looked").wait_for()
    assert candidate(site.harness)["approvals"] == []
    page.get_by_role("link", name="Back").click()
    page.locator("#approve-reason").fill("as it is")
    page.get_by_role("button", name="Approve step 1").click()
    page.get_by_text("Your approval was recorded.").wait_for()


def test_a_kill_is_two_keys_away_and_everybody_sees_it(site: Site) -> None:
    other = site.open(site.person("rea"), BASE)
    page = site.open(site.person("olga"), BASE)
    page.get_by_role("link", name="Kill switch").focus()
    page.keyboard.press("Enter")
    page.locator("#kill-reason").fill("a bad print")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("The world was killed: every live weight is 0").wait_for()
    assert site.harness.ok("rea", "GET", f"/worlds/{W}")["killed"]
    other.get_by_text("killed", exact=True).wait_for()


def test_what_somebody_types_is_not_taken_away(site: Site) -> None:
    page = site.open(site.person("olga"), BASE)
    page.locator("#kill-reason").fill("because of the")
    feed(site.harness)
    until_shown(page, site.harness)
    assert page.locator("#kill-reason").input_value() == "because of the"


def test_with_scripts_off_it_is_read_and_used_all_the_same(site: Site) -> None:
    page = site.person("al", java_script_enabled=False)
    site.open(page, f"{BASE}/strategies/s1")
    assert page.locator(".chart svg polyline").count() == 4, "backtest and paper, twice"
    site.open(page, candidate_path(site.harness))
    page.locator("#approve-reason").fill("read without scripts")
    page.get_by_role("button", name="Approve step 1").click()
    assert page.get_by_text("Your approval was recorded.").count() == 1
    site.open(page, BASE)
    page.locator("#q").fill("nobody")
    page.get_by_role("button", name="Show").click()
    assert page.get_by_text("No strategy is like that.").count() == 1


def test_a_filter_narrows_while_one_types(site: Site) -> None:
    page = site.open(site.person("rea"), BASE)
    page.locator("#q").fill("nobody")
    page.get_by_text("No strategy is like that.").wait_for()
    page.locator("#q").fill("s1")
    page.locator("#list").get_by_role("link", name="s1").wait_for()


def test_the_list_follows_as_it_was_filtered(site: Site) -> None:
    page = site.open(site.person("rea"), BASE)
    page.locator("#q").fill("s")
    page.locator("#list[hx-get*='q=s']").wait_for()
    site.harness.ok("ann", "POST", f"/worlds/{W}/strategies", {"strategy_id": "s2"})
    page.locator("#list").get_by_role("link", name="s2").wait_for()
    site.harness.ok("ann", "POST", f"/worlds/{W}/strategies", {"strategy_id": "other"})
    until_shown(page, site.harness)
    assert page.locator("#list").get_by_role("link", name="other").count() == 0
    page.locator("#sort").select_option("name")
    page.locator("#list[hx-get*='sort=name']").wait_for()


@pytest.mark.parametrize("path", [BASE, f"{BASE}/strategies/s1", f"{BASE}/journal"])
def test_a_long_journal_is_read_on_without_anybody(
    site: Site, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "BUDGET_SEC", 0.0)
    page = site.person("rea")
    page.goto(site.url + path, wait_until="commit")
    page.get_by_text("The journal is still being read").wait_for()
    page.get_by_text("The journal is still being read").wait_for(state="detached")
    assert page.get_by_role("link", name=f"Entry {site.harness.store.load(W).seq}").count()  # type: ignore[arg-type]  # A WorldId.


def test_times_are_local_on_hover(site: Site) -> None:
    page = site.open(site.person("rea", timezone_id="Asia/Tokyo"), f"{BASE}/journal")
    time = page.locator("time").first
    time.hover()
    assert "GMT+9" in time.get_attribute("title")
    assert "UTC" in time.inner_text()


def test_somebody_signs_in_at_an_issuer_of_another_site(site: Site) -> None:
    """`localhost` and 127.0.0.1 are two: the browser comes back without its cookie at first."""
    site.go_away()
    with oidc.provider(site.url + CALLBACK, "localhost") as provider:
        placed(site.harness, provider, url=site.url)
        provider.person, provider.asks = {"sub": "olga", "groups": ["ops"]}, True
        site.serve()
        page = site.open(site.context().new_page(), BASE)
        assert complaints(page) == []
        page.get_by_role("link", name="Sign in with corp").click()
        page.get_by_role("link", name="It is me").click()
        page.get_by_text("oidc:corp:olga").wait_for()
        assert page.url == site.url + BASE, "where they wanted to go"
        assert [url for url in site.asked if url.endswith("&here=1")], "by way of a page of ours"
        page.locator("#kill-reason").fill("a bad print")
        page.get_by_role("button", name="Kill").click()
        page.get_by_text("The world was killed: every live weight is 0").wait_for()
        page.get_by_role("button", name="Sign out").click()
        page.get_by_role("link", name="Sign in with corp").wait_for()
        site.open(page, BASE)
        page.get_by_label("Token").wait_for()
        site.asked = {url for url in site.asked if not url.startswith(provider.url)}


# ---- What others try -------------------------------------------------------------------------


@contextmanager
def elsewhere(html: str) -> Iterator[str]:
    """A page of somebody else's.  Another port of the same machine is the same site to a cookie, so
    that SameSite alone would let its form through."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_told: object) -> None: ...

    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_form_of_another_site_kills_nothing(site: Site) -> None:
    page = site.person("olga")
    form = (
        f'<form method="post" action="{site.url}{BASE}/kill"><input name="reason" value="evil">'
        '<input name="csrf" value="guessed"></form><script>document.forms[0].submit()</script>'
    )
    with elsewhere(form) as evil:
        page.goto(evil)
        page.get_by_text("The form is not of this session").wait_for()
        site.asked = {url for url in site.asked if not url.startswith(evil)}
    assert not site.harness.ok("rea", "GET", f"/worlds/{W}")["killed"]


def test_no_other_page_shows_ours_in_a_frame(site: Site) -> None:
    page = site.person("olga")
    with elsewhere(f'<iframe src="{site.url}{BASE}"></iframe>') as evil:
        page.goto(evil)
        page.wait_for_load_state("networkidle")
        assert page.frames[1].get_by_text("Kill switch").count() == 0
        site.asked = {url for url in site.asked if not url.startswith(evil)}
    refused = [said for said in site.problems if "frame-ancestors" in said]
    assert refused
    site.problems = [said for said in site.problems if said not in refused]


def test_whatever_somebody_names_is_text_and_runs_nowhere(site: Site) -> None:
    h = site.harness
    live = f"/worlds/{W}/promotions/live"
    body = {"strategy_id": "s1", "run_id": candidate(h)["run_id"], "reason": EVIL}
    h.ok("ann", "POST", "/strategies", {**submission("s2"), "name": EVIL[:100]})
    labelled = {"id": "beta", "name": EVIL[:100], "description": EVIL, "labels": {EVIL[:60]: EVIL}}
    labelled["labels"] = {EVIL[:60]: EVIL[:60]}
    h.ok("admin", "POST", "/worlds", labelled)
    h.ok("al", "POST", f"{live}/approve", body)
    h.ok("bo", "POST", f"{live}/reject", body)
    h.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": EVIL})
    page = site.person("admin")
    paths = ["/ui", "/ui/worlds/beta", BASE, f"{BASE}/journal", f"{BASE}/strategies/s1"]
    paths += [f"{BASE}/strategies/s2", candidate_path(h)]
    for path in paths:
        site.open(page, path)
        assert page.locator("img[src=x]").count() == 0
        assert page.get_by_text("alert(1)").count() >= 1, path


@pytest.mark.parametrize("field", ["#approve-reason", "#reject-reason"])
def test_a_reason_that_somebody_types_is_text(site: Site, field: str) -> None:
    page = site.open(site.person("al"), candidate_path(site.harness))
    page.locator(field).fill(EVIL)
    page.locator(f"form:has({field}) button").click()
    page.locator(".people, .wrong").get_by_text("alert(1)").first.wait_for()
    assert page.locator("img[src=x]").count() == 0
