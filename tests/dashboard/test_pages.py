"""Every page, in every state of a world: it says what there is, and offers what one may do."""

import re
from base64 import b64encode
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest

from qmtl.adapters.memory import MemoryStore
from qmtl.app import promotions
from qmtl.core.names import Reason, Role
from qmtl.core.promotion import Blocked
from qmtl.entry import auth
from qmtl.entry.dashboard import candidate as candidate_page
from qmtl.entry.dashboard import render, static
from qmtl.entry.dashboard import reports as reports_page
from qmtl.entry.dashboard import world as world_page
from qmtl.entry.reports import pages as report_pages
from qmtl.entry.reports.day import day
from qmtl.entry.reports.dossier import dossier
from qmtl.entry.reports.reading import read
from tests.core.test_promotion import EVIDENT, SHOWN
from tests.dashboard.browsing import Seen, person
from tests.http.harness import (
    DAY,
    POLICY,
    YAML,
    Harness,
    W,
    returns_of,
    submission,
    with_candidate,
    with_live,
    with_world,
)
from tests.notify.receiving import client_of
from tests.worlds import ALPHA, BETA, in_paper

BASE = f"/ui/worlds/{W}"
EVIL = """</p><script>alert(1)</script>"><img src=x onerror=alert(1)>'{{7*7}}"""


def candidate_of(harness: Harness, sid: str = "s1") -> dict[str, Any]:
    listed = harness.ok("rea", "GET", f"/worlds/{W}/promotions/live/candidates")["candidates"]
    return next(c for c in listed if c["strategy_id"] == sid and c["standing"] != "applied")


def candidate_url(harness: Harness) -> str:
    return f"{BASE}/candidates/{candidate_of(harness)['candidate_id']}"


def urls(harness: Harness) -> list[str]:
    """Every page of a world, and those of everything."""
    found = ["/ui", "/ui/system", BASE]
    found += [f"{BASE}/{name}" for name in ("policy", "journal", "journal/verified", "hub")]
    view = harness.store.load(W)  # type: ignore[arg-type]  # A WorldId.
    found += [f"{BASE}/journal/{seq}" for seq in (1, view.seq) if view.seq]
    for sid in view.strategies:
        found.append(f"{BASE}/strategies/{sid}")
    for (sid, _), run in view.runs.items():
        found.append(f"{BASE}/strategies/{sid}/runs/{run.run_id}")
    return found + [f"{BASE}/candidates/{cid}" for cid in view.candidates]


def no_policy(h: Harness) -> None:
    h.ok("admin", "POST", "/worlds", {"id": W})


def nothing_yet(h: Harness) -> None:
    no_policy(h)
    h.ok("polly", "POST", f"/worlds/{W}/policies", content=POLICY, headers=YAML)


def bound_only(h: Harness) -> None:
    nothing_yet(h)
    h.ok("ann", "POST", f"/worlds/{W}/strategies", {"strategy_id": "s0"})


def evidence(h: Harness) -> None:
    with_world(h, POLICY.replace("evidence: none\n", ""))
    h.ok("polly", "POST", f"/worlds/{W}/policies", content=POLICY, headers=YAML)


def rejected(h: Harness) -> None:
    with_world(h)
    body = {"strategy_id": "s1", "run_id": with_candidate(h), "reason": EVIL}
    h.ok("al", "POST", f"/worlds/{W}/promotions/live/reject", body)


def live(h: Harness) -> None:
    with_world(h)
    with_live(h)


def killed(h: Harness) -> None:
    live(h)
    h.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": EVIL})


def demoted(h: Harness) -> None:
    live(h)
    h.ok("olga", "POST", f"/worlds/{W}/demote", {"strategy_id": "s1", "to": "paper"})


def retired(h: Harness) -> None:
    with_world(h)
    h.ok("olga", "POST", f"/worlds/{W}/demote", {"strategy_id": "s1", "to": "retired"})


def archived(h: Harness) -> None:
    live(h)
    h.ok("olga", "PATCH", f"/worlds/{W}", {"state": "archived"})


STATES = [
    *(no_policy, nothing_yet, bound_only, evidence, with_world, rejected, live, killed, demoted),
    *(retired, archived),
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
@pytest.mark.parametrize("who", ["admin", "rea"])
def test_every_page_can_be_read_in_every_state(harness: Harness, state: Any, who: str) -> None:
    state(harness)
    one = person(harness, who)
    for url in urls(harness):
        page = one.get(url)
        assert page.status == 200, f"{url}: {page.status} {page.text}"
        plain(page)


def plain(page: Seen) -> None:
    """Nothing inline, nothing from elsewhere, a token in each form, a name for each field."""
    assert page.answer.headers["content-security-policy"] == render.POLICY
    assert page.answer.headers["cache-control"] == "no-store"
    labels = {told.get("for") for tag, told in page.tags if tag == "label"}
    for tag, told in page.tags:
        assert tag not in ("style", "iframe", "object", "embed", "base")
        assert not [name for name in told if name.startswith("on") or name == "style"], (tag, told)
        for name in ("src", "href", "action"):
            at = told.get(name)
            assert at is None or at.startswith(("/ui", "/metrics", "#", "?")), (tag, at)
        if tag in ("textarea", "select") or (tag == "input" and told.get("type") != "hidden"):
            assert told["id"] in labels, f"{told['id']} has no label"
    for form in page.forms:
        assert form.method == "get" or form.fields.get("csrf"), form.action
    ids = [told["id"] for _, told in page.tags if told.get("id")]
    assert len(ids) == len(set(ids)), "an id is one element's"
    assert "{{" not in page.answer.text.replace("{{7*7}}", "")


def test_no_template_says_that_a_text_is_safe() -> None:
    for name in render.ENVIRONMENT.list_templates():
        source = (static.FOLDER.parent / "templates" / name).read_text()
        assert "|safe" not in source.replace(" ", "")
        assert "autoescape" not in source
    assert "'unsafe" not in render.POLICY
    assert "default-src 'none'" in render.POLICY


def test_whatever_somebody_names_is_text(harness: Harness) -> None:
    h = harness
    world = {"id": W, "name": EVIL[:100], "description": EVIL, "labels": {EVIL[:60]: EVIL[:60]}}
    h.ok("admin", "POST", "/worlds", {**world, "allow_live": True})
    h.ok("polly", "POST", f"/worlds/{W}/policies", content=POLICY, headers=YAML)
    h.ok("ann", "POST", "/strategies", {**submission("s1"), "name": EVIL[:100]})
    body = {"strategy_id": "s1", "run_id": with_candidate(h), "reason": EVIL}
    h.ok("al", "POST", f"/worlds/{W}/promotions/live/approve", body)
    h.ok("bo", "POST", f"/worlds/{W}/promotions/live/reject", body)
    h.ok("olga", "POST", f"/worlds/{W}/promotions/live/release", {**body})
    extend = {"by": "30d", "reason": EVIL}
    h.ok("olga", "POST", f"/worlds/{W}/strategies/s1/extend", extend)
    h.ok(
        "olga", "POST", f"/worlds/{W}/demote", {"strategy_id": "s1", "to": "paper", "reason": EVIL}
    )
    h.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": EVIL})
    one, shown = person(h, "admin"), 0
    for url in urls(h):
        page = one.get(url)
        plain(page)
        assert "<script>alert" not in page.answer.text
        assert "<img src=x" not in page.answer.text
        assert "49" not in re.findall(r"7\*7\S*|\b49\b", page.text), url
        shown += EVIL[:20] in page.text
    assert shown >= 4, "and it is shown, as it was written"
    for bad in ("<b>", "a b", "a/b", "%00"):
        assert one.get(f"{BASE}/strategies/{bad}").status in (404, 422)
        assert one.get(f"{BASE}?q={bad}&from=1").status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/ui/nothing", 404),
        (f"{BASE}/strategies/nobody", 404),
        (f"{BASE}/strategies/s1/runs/none", 404),
        (f"{BASE}/candidates/{'0' * 24}", 404),
        (f"{BASE}/journal/999999", 404),
        (f"{BASE}/policy?version=9", 404),
        (f"{BASE}/hub?version=none", 404),
        (f"{BASE}?misspelt=1", 422),
        (f"{BASE}/journal?kind=nothing", 422),
        (f"{BASE}?from=-1", 422),
    ],
)
def test_what_is_not_there_is_a_page_that_says_so(ready: Harness, path: str, status: int) -> None:
    page = person(ready, "admin").get(path)
    assert (page.status, page.answer.headers["content-type"]) == (
        status,
        "text/html; charset=utf-8",
    )
    assert "Nothing was changed." in page.text
    plain(page)


# ---- What is offered -------------------------------------------------------------------------


def test_what_a_role_may_not_do_is_not_offered_and_is_refused_anyway(ready: Harness) -> None:
    pages = {BASE, f"{BASE}/strategies/s1", candidate_url(ready), f"{BASE}/policy"}
    admin = person(ready, "admin")
    forms = {f.action: f.fields for url in pages for f in admin.get(url).forms}
    before = ready.state()
    for who in ("rea", "ann", "pat"):
        one = person(ready, who)
        for url in pages:
            offered = [f.action for f in one.get(url).forms if f.method == "post"]
            assert offered == ["/ui/sign-out"], who
        csrf = one.get("/ui").form("/sign-out").fields["csrf"]
        for action, fields in forms.items():
            if action.startswith(BASE) and fields.get("csrf"):
                asked = {**fields, "csrf": csrf, "reason": "r", "by": "1d", "to": "paper"}
                told = one.post(action, {**asked, "allow_live": "no", "freeze": "yes"})
                assert told.status == 403, (who, action, told.text)
    assert ready.state() == before


def test_who_wrote_it_is_not_asked_to_approve_it(ready: Harness) -> None:
    ready.token("ann", Role.AUTHOR, Role.APPROVER)  # She wrote it.
    one, url = person(ready, "ann"), candidate_url(ready)
    page = one.get(url)
    assert not page.offers("/approve")
    assert "The author of a candidate cannot approve it." in page.text
    fields = person(ready, "al").get(url).form("/approve").fields
    csrf = page.form("/sign-out").fields["csrf"]
    told = one.post(f"{BASE}/promotions/live/approve", {**fields, "csrf": csrf, "reason": "mine"})
    assert (told.status, "cannot approve" in told.text) == (403, True)


def test_two_people_approve_and_an_operator_lets_it_through(ready: Harness) -> None:
    url = candidate_url(ready)
    for who, left in (("al", "1 of 2 approvals."), ("bo", "2 of 2 approvals.")):
        one = person(ready, who)
        assert not one.get(url).offers("/apply")
        told = one.send(one.get(url), "/approve", reason=f"{who} looked at it")
        assert "Your approval was recorded." in told.text
        assert left in told.text
        assert f"{who} looked at it" in told.text
        assert not told.offers("/approve"), "once is enough"
        assert "approval was recorded" not in one.get(url).text, "it is said once"
    olga = person(ready, "olga")
    page = olga.get(url)
    assert not page.offers("/approve")
    assert "It went through the gate." in olga.send(page, "/apply").text
    assert ready.ok("rea", "GET", f"/worlds/{W}/activation?strategy_id=s1")["active"]
    assert "It is over: applied" in olga.get(url).text
    assert "s1" in olga.get(BASE).text


def test_an_approval_is_taken_back(ready: Harness) -> None:
    one, url = person(ready, "al"), candidate_url(ready)
    one.send(one.get(url), "/approve", reason="yes")
    told = one.send(one.get(url), "/withdraw")
    assert "0 of 2 approvals." in told.text
    assert candidate_of(ready)["approvals"] == []


@pytest.mark.parametrize("act", ["/approve", "/reject"])
def test_evidence_that_changed_meanwhile_is_said_and_nothing_is_done(
    ready: Harness, act: str
) -> None:
    one, url = person(ready, "al"), candidate_url(ready)
    page = one.get(url)
    for r in returns_of("more", 3):
        ready.advance(DAY)
        ready.feed("paper", {"s1": r})
    ready.ok("olga", "POST", f"/worlds/{W}/evaluate", {"strategy_id": "s1"})
    seen, now = page.form(act).fields["evidence_digest"], candidate_of(ready)["evidence_digest"]
    assert seen != now, "it did change"
    before = ready.state()
    told = one.send(page, act, reason="what I saw")
    assert (told.status, "The evidence has changed" in told.text) == (412, True)
    assert ready.state() == before
    assert one.send(one.get(url), act, reason="what I see").status == 200
    assert ready.state() != before


def test_a_rejection_holds_until_it_is_released(ready: Harness) -> None:
    url = candidate_url(ready)
    one, olga = person(ready, "al"), person(ready, "olga")
    assert "al rejected it" in one.send(one.get(url), "/reject", reason="too young").text
    assert "too young" in olga.get("/ui").text, "the first page says that it waits, and why"
    assert "It was released." in olga.send(olga.get(url), "/release", reason="older now").text
    assert candidate_of(ready)["standing"] == "proposed"


def test_a_refusal_shows_every_reason(ready: Harness) -> None:
    one = person(ready, "olga")
    form = {**one.get(BASE).form("/kill").fields, "strategy_id": "s1"}
    body = {**form, "run_id": candidate_of(ready)["run_id"], "back": candidate_url(ready)}
    told = one.post(f"{BASE}/promotions/live/apply", body)
    assert told.status == 409
    assert "0 of 2 approvals" in told.text


# ---- Stopping --------------------------------------------------------------------------------


def test_kill_and_resume(harness: Harness) -> None:
    live(harness)
    one = person(harness, "olga")
    told = one.send(one.get(BASE), "/kill", reason="a bad print")
    assert "The world was killed" in told.text
    assert "Nothing is live." in told.text
    assert "a bad print" in told.text
    assert not told.offers("/kill")
    assert "resumed" in one.send(told, "/resume", reason="it was a bad print").text
    assert not harness.ok("rea", "GET", f"/worlds/{W}")["killed"]


def test_a_strategy_is_frozen_taken_down_and_released(harness: Harness) -> None:
    live(harness)
    one, url = person(harness, "olga"), f"{BASE}/strategies/s1"
    page = one.get(url)
    assert (("freeze", "yes") in page.form("/activation").buttons, "of its ramp" in page.text) == (
        True,
        True,
    )
    assert "frozen" in one.send(page, "/activation", freeze="yes").text
    assert harness.ok("rea", "GET", f"/worlds/{W}/activation?strategy_id=s1")["freeze"]
    told = one.send(one.get(url), "/demote", to="paper", reason="enough")
    assert "held" in told.text
    assert "s1 is held" in one.get("/ui").text
    assert "It was released." in one.send(told, "/release", reason="again").text


def test_live_is_allowed_no_more_and_again_by_who_may(harness: Harness) -> None:
    live(harness)
    olga, polly = person(harness, "olga"), person(harness, "polly")
    assert "live not allowed" in olga.send(olga.get(BASE), "/change", allow_live="no").text
    assert not olga.get(BASE).offers("/change"), "raising is for a policy admin"
    assert "live allowed" in polly.send(polly.get(BASE), "/change", allow_live="yes").text


def test_a_policy_version_is_compared_and_put_in_force(ready: Harness) -> None:
    other = POLICY.replace("max: 0.4", "max: 0.35")
    ready.ok("polly", "POST", f"/worlds/{W}/policies", content=other, headers=YAML)
    one = person(ready, "polly")
    page = one.get(f"{BASE}/policy?version=2")
    assert "gates.paper.max_drawdown.max 0.4 0.35" in page.text
    assert page.text.count("0.35") < 5, "and nothing else differs"
    assert "evidence: none" in page.text, "what it implies, with its warnings"
    assert "Another policy version is in force." in one.send(page, "/set-default").text
    assert "They say the same." in one.get(f"{BASE}/policy?version=1&against=1").text


# ---- What is said ----------------------------------------------------------------------------


def test_a_worlds_page_answers_the_mornings_questions(ready: Harness) -> None:
    page = person(ready, "rea").get(BASE)
    for told in (
        *("s1 to step 1 of its ramp", "an approver", "2 approvals of 2 missing"),
        *("Nothing is live.", "manual approval", "no error rate is promised", "paper fresh"),
        "ann bound s1 to the world",
    ):
        assert told in page.text, told
    ready.advance(timedelta(hours=2))
    assert "paper stale 0 of 1" in person(ready, "rea").get(BASE).text
    assert "Stale: paper, 0 of 1" in person(ready, "rea").get("/ui").text


def test_a_strategys_page_says_why_it_is_where_it_is(ready: Harness) -> None:
    page = person(ready, "rea").get(f"{BASE}/strategies/s1")
    explained = ready.ok("rea", "GET", f"/worlds/{W}/strategies/s1/explain")["sentences"]
    assert len(explained) > 3
    for said in explained:
        assert said in page.text
    for told in ("realized returns", "max drawdown", "olga proposed s1 for step 1", "Growth"):
        assert told in page.text, told


def test_every_reason_of_the_gate_is_red_where_it_belongs(ready: Harness) -> None:
    view = ready.store.load(W)  # type: ignore[arg-type]  # A WorldId.
    (candidate,) = view.candidates.values()
    for reason in Reason:
        blocked = Blocked(((reason, f"because of {reason}"),))
        found = list(candidate_page.checks(ready.store, view, candidate, blocked, ready.now))
        (red,) = [check for check in found if not check.holds]
        assert red.why == (f"because of {reason}",)
    assert all(
        check.holds
        for check in candidate_page.checks(ready.store, view, candidate, None, ready.now)
    )


def test_a_candidates_page_shows_the_gate_with_its_numbers(ready: Harness) -> None:
    page = person(ready, "rea").get(candidate_url(ready))
    for told in ("0 of 2 valid", "13.0 of 10.0 days", "0 of 2 taken", "50.0 % of capital"):
        assert told in page.text, told
    assert "Approving takes one of the roles: approver." in page.text


def test_the_plan_shows_what_would_change(ready: Harness) -> None:
    view = ready.store.load(W)  # type: ignore[arg-type]  # A WorldId.
    body = {"strategy_id": "s1", "run_id": candidate_of(ready)["run_id"], "reason": "r"}
    for who in ("al", "bo"):
        ready.ok(who, "POST", f"/worlds/{W}/promotions/live/approve", body)
    view = ready.store.load(view.world_id)
    (candidate,) = view.candidates.values()
    plan = promotions.standing(ready.store, view, candidate, ready.now).plan
    (weight,) = candidate_page.weights(view, plan)
    assert (weight.before, weight.after) == (0.0, 0.5)


def test_a_long_list_comes_in_pages(harness: Harness) -> None:
    nothing_yet(harness)
    for n in range(world_page.ROWS + 3):
        harness.ok("ann", "POST", f"/worlds/{W}/strategies", {"strategy_id": f"s{n:03}"})
    one = person(harness, "rea")
    first = one.get(BASE)
    assert "1 to 25 of 28" in first.text
    assert "/strategies/s024" in first.answer.text
    assert "/strategies/s025" not in first.answer.text
    second = one.get(f"{BASE}?from=25")
    assert "26 to 28 of 28" in second.text
    assert "1 to 1 of 1" in one.get(f"{BASE}?q=S027").text
    assert "No strategy is like that." in one.get(f"{BASE}?phase=live").text
    assert "26 to 28 of 28" in one.get(f"{BASE}?from=999").text, "the last page, not an empty one"


@pytest.mark.parametrize(
    ("by", "first"),
    [
        *(("phase", "z1"), ("weight", "z1"), ("name", "a1"), ("window", "z1")),
        ("longest here", "s1"),
    ],
)
def test_a_list_is_sorted(harness: Harness, by: str, first: str) -> None:
    """z1 is live, s1 on paper and has been there longest, a1 is bound and no more."""
    with_world(harness)
    harness.advance(DAY)
    harness.ok("ann", "POST", "/strategies", submission("z1"))
    with_live(harness, "z1")
    harness.feed("live", {"z1": 0.01})
    harness.advance(DAY)
    harness.feed("live", {"z1": 0.01})
    harness.ok("ann", "POST", f"/worlds/{W}/strategies", {"strategy_id": "a1"})
    page = person(harness, "rea").get(f"{BASE}?sort={by}")
    listed = page.answer.text.partition('id="list"')[2]
    found = re.findall(rf"{BASE}/strategies/(\w+)", listed)
    assert (found[0], sorted(found)) == (first, ["a1", "s1", "z1"])
    assert f"<option selected>{by}</option>" in page.answer.text


def test_who_has_shown_most_is_first_where_evidence_is_asked_for() -> None:
    view = in_paper(MemoryStore(), EVIDENT, ALPHA, BETA).view
    shown = view.proof.put(view.strategies[BETA].row, **SHOWN)
    view = replace(view, proof=shown)
    known = list(view.strategies.values())
    assert world_page.ordered(view, known, "evidence") == [BETA, ALPHA]
    assert world_page.ordered(view, known, "name") == [ALPHA, BETA]


def test_static_files_are_kept_by_their_digest(harness: Harness) -> None:
    for name in static.files():
        answer = harness.client.get(static.url(name))
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert harness.client.get(f"/ui/static/{name}?v=old").headers["cache-control"] == "no-cache"
    for name in ("htmx.LICENSE", "..%2frender.py", "nothing.js"):
        assert harness.client.get(f"/ui/static/{name}").status_code == 404
    licences = {path.name for path in static.FOLDER.glob("*.LICENSE")}
    assert licences == {"htmx.LICENSE", "htmx-ext-sse.LICENSE", "uplot.LICENSE"}


def test_the_dashboard_has_a_form_for_each_row_and_a_row_for_each_form() -> None:
    from qmtl.entry.dashboard.forms import ASKS

    assert {f"POST {auth.UI}{path}" for path in ASKS} == set(auth.FORMS)


# ---- Reports ---------------------------------------------------------------------------------


def reports(harness: Harness) -> list[str]:
    return [f"{candidate_url(harness)}/dossier", f"{BASE}/day"]


def test_reports_are_linked_from_the_pages_that_they_are_about(ready: Harness) -> None:
    one = person(ready, "rea")
    of_candidate, of_day = reports(ready)
    for page, link in ((candidate_url(ready), of_candidate), (BASE, of_day)):
        links = [told.get("href") for tag, told in one.get(page).tags if tag == "a"]
        assert link in links
        report = one.get(link)
        assert report.status == 200, report.text
        back = [told.get("href") for tag, told in report.tags if tag == "a"]
        assert page in back
        assert "The journal is whole." in report.text
    assert "2 approvals" in one.get(of_candidate).text
    assert "s1 waits for 2 approvals" in one.get(of_day).text


def test_a_report_runs_nothing_and_is_styled_by_what_it_brings(ready: Harness) -> None:
    body = {"strategy_id": "s1", "run_id": candidate_of(ready)["run_id"], "reason": EVIL}
    ready.ok("al", "POST", f"/worlds/{W}/promotions/live/approve", body)
    for url in reports(ready):
        page = person(ready, "rea").get(url)
        policy = page.answer.headers["content-security-policy"]
        assert "'unsafe" not in policy + page.answer.text
        assert page.answer.headers["cache-control"] == "no-store"
        (style,) = re.findall(r"<style>(.*?)</style>", page.answer.text, re.DOTALL)
        digest = b64encode(sha256(style.encode()).digest()).decode()
        assert f"style-src 'sha256-{digest}';" in policy
        assert "script" not in {tag for tag, _ in page.tags}
        assert "<img" not in page.answer.text
        assert not [told for _, told in page.tags if "style" in told or "onerror" in told]
    assert EVIL[:10] in person(ready, "rea").get(reports(ready)[0]).text


def test_a_page_and_the_command_make_the_same_report(ready: Harness) -> None:
    with client_of(ready) as client:
        found = read(client, W)
    (of_candidate, of_day) = reports(ready)
    cid = candidate_of(ready)["candidate_id"]
    one = person(ready, "rea")
    assert one.get(of_candidate).answer.text == report_pages.html(dossier(found, cid), "")
    assert one.get(of_day).answer.text == report_pages.html(day(found, ready.now.date()), "")


def test_whose_world_it_is_not_reads_no_report_of_it(ready: Harness) -> None:
    ready.ok("admin", "POST", "/worlds", {"id": "other"})
    ready.token("eve", Role.READER, world="other")
    for url in reports(ready):
        assert person(ready, "eve").get(url).status == 403
        nobody = ready.client.get(url)
        assert (nobody.status_code, "Sign in" in nobody.text) == (401, True)
        assert ready.client.get(url, headers=ready.headers("rea")).status_code == 200
        assert ready.client.get(url, headers=ready.headers("eve")).status_code == 403


def test_a_report_of_nothing_says_so(ready: Harness) -> None:
    one = person(ready, "rea")
    early = one.get(f"{BASE}/day?date=1999-01-01")
    assert (early.status, "Nothing had happened" in early.text) == (422, True)
    late = one.get(f"{BASE}/day?date=9999-12-31")
    assert (late.status, "has not begun" in late.text) == (422, True)
    assert one.get(f"{BASE}/day?date=tomorrow").status == 422
    assert one.get(f"{BASE}/candidates/{'0' * 24}/dossier").status == 404


def test_days_lead_to_one_another(ready: Harness) -> None:
    ready.advance(DAY)
    one, today = person(ready, "rea"), ready.now.date()
    links = [(told.get("rel"), told.get("href")) for _, told in one.get(f"{BASE}/day").tags]
    assert ("prev", f"{BASE}/day?date={today - DAY}") in links
    assert "next" not in dict(links), "tomorrow has not begun"
    day_before = one.get(f"{BASE}/day?date={today - DAY}")
    assert ("next", f"{BASE}/day?date={today}") in [
        (told.get("rel"), told.get("href")) for _, told in day_before.tags
    ]


def test_a_journal_that_is_too_long_for_a_page_names_the_command(
    ready: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reports_page, "ENTRIES_MAX", 3)
    for url, command in zip(reports(ready), ("candidate", "day"), strict=True):
        told = person(ready, "rea").get(url)
        assert (told.status, f"qmtl report {command} {W}" in told.text) == (413, True)


# ---- Words -----------------------------------------------------------------------------------


def test_every_word_that_is_linked_is_explained(ready: Harness) -> None:
    one = person(ready, "rea")
    told = {attrs["id"] for tag, attrs in one.get("/ui/words").tags if attrs.get("id")}
    linked = {
        str(attrs["href"]).partition("#")[2]
        for url in [*urls(ready), f"{BASE}/hub"]
        for tag, attrs in one.get(url).tags
        if str(attrs.get("href", "")).startswith("/ui/words#")
    }
    assert len(linked) > 5
    assert linked <= told


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        *((90, "90 s"), (300, "5 min"), (86_400, "24 h"), (3 * 86_400, "3.0 days")),
        (4_745 * 86_400, "4,745 days"),
    ],
)
def test_a_length_of_time_is_said_in_few_digits(seconds: float, said: str) -> None:
    assert render.span(seconds) == said
