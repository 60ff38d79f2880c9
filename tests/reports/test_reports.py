"""Reports of a real world's journal: what they say is what happened, nothing of it is markup, and a
journal that is not whole makes none that counts."""

import json
import re
from collections.abc import Iterator
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from qmtl.core.errors import Invalid, UnknownCandidate
from qmtl.entry.cli import app
from qmtl.entry.cli.context import Setting
from qmtl.entry.reports import pages
from qmtl.entry.reports.day import day
from qmtl.entry.reports.dossier import candidate_of, dossier
from qmtl.entry.reports.reading import Journal, read
from tests.http.harness import START, Harness, W, harness_over, submission, with_live, with_world
from tests.notify.receiving import client_of

EVIL = "<script>alert(1)</script>"
LIVE = f"/worlds/{W}/promotions/live"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """s1 is live since a fortnight, s2 waits for approvals; people wrote what they should not."""
    with harness_over("memory", tmp_path_factory.mktemp("reports")) as harness:
        with_world(harness)
        harness.ok("ann", "POST", "/strategies", submission("s2", name=f"s2 {EVIL}"))
        with_live(harness)
        harness.feed("live", {"s1": 0.02})
        harness.feed("paper", {"s2": -0.01})
        harness.advance(timedelta(hours=1))
        harness.feed("live", {"s1": -0.01})
        for r in (0.001, 0.003) * 8:
            harness.advance(timedelta(days=1))
            harness.feed("paper", {"s2": r})
            harness.feed("live", {"s1": r})
        harness.ok("olga", "POST", f"/worlds/{W}/evaluate", {"strategy_id": "s2"})
        (mine,) = [c for c in candidates(harness) if c["strategy_id"] == "s2"]
        body = {"strategy_id": "s2", "run_id": mine["run_id"], "reason": f"looks fine {EVIL}"}
        harness.ok("al", "POST", f"{LIVE}/approve", body)
        yield harness


def candidates(harness: Harness) -> list[dict[str, Any]]:
    found = harness.ok("rea", "GET", f"{LIVE}/candidates")["candidates"]
    return list(found)


def journal(harness: Harness) -> Journal:
    with client_of(harness) as client:
        return read(client, W)


def of(harness: Harness, sid: str) -> dict[str, Any]:
    found = journal(harness)
    return dossier(found, candidate_of(found, sid))


# ---- Dossiers --------------------------------------------------------------------------------


def test_what_was_applied_is_shown_as_it_was_decided(world: Harness) -> None:
    told = of(world, "s1")
    assert told["standing"] == "applied"
    applied = told["decided_by_entry"]
    entry = world.store.journal(W, applied - 1, 1)[0]  # type: ignore[arg-type]  # A name is text.
    assert entry.fact.kind == "promotion_applied"
    assert told["blocked"] == []
    assert told["derived_again"] == {"same": True, "differences": []}
    assert {row["name"] for row in told["gate"] if row["holds"] is False} == set()
    gate = {row["name"]: row["value"] for row in told["gate"]}
    assert gate["approvals"].startswith("2 of 2 valid: al at")
    assert gate["observations"].endswith("of 8")
    assert gate["gate max_drawdown"].startswith("at most 0.4: ")
    assert [(a["by"], a["counts"]) for a in told["approvals"]["given"]] == [
        ("al", True),
        ("bo", True),
    ]
    assert told["weight"] == pytest.approx(0.5)


def test_what_is_open_is_shown_as_it_stands_with_every_reason(world: Harness) -> None:
    told = of(world, "s2")
    (listed,) = [c for c in candidates(world) if c["strategy_id"] == "s2"]
    assert (told["standing"], told["decided_by_entry"]) == ("proposed", None)
    assert [each["reason"] for each in told["blocked"]] == listed["blocked_reasons"]
    assert told["blocked"][0]["reason"] == "approvals_insufficient"
    (row,) = [row for row in told["gate"] if row["name"] == "approvals"]
    assert (row["holds"], row["against"]) == (False, ["1 of 2 approvals are valid"])
    assert told["derived_again"] is None
    (run,) = [run for run in told["runs"] if run["of_candidate"]]
    asked = world.ok("rea", "GET", f"/worlds/{W}/strategies/s2/runs/{run['run_id']}")
    assert {g["metric"]: g["value"] for g in run["gates"]} == {
        gate["metric"]: gate["value"] for gate in asked["gates"]
    }
    assert run["verdict"] == asked["verdict"] == "pass"


def test_every_hash_is_the_journals_and_the_head_is_signed(world: Harness) -> None:
    told = of(world, "s1")
    entries = world.ok("rea", "GET", f"/worlds/{W}/journal", params={"limit": 1000})["entries"]
    hashes = {each["seq"]: each["hash"] for each in entries}
    assert len(told["history"]) > 5
    assert {each["seq"]: each["hash"] for each in told["history"]}.items() <= hashes.items()
    head = world.ok("rea", "GET", f"/worlds/{W}/journal/head")
    assert told["journal"]["head"]["hash"] == head["hash"] == hashes[len(entries)]
    assert told["journal"]["whole"]


def test_what_is_not_a_candidate_has_no_dossier(world: Harness) -> None:
    found = journal(world)
    with pytest.raises(UnknownCandidate):
        candidate_of(found, "nobody")
    with pytest.raises(UnknownCandidate):
        dossier(found, "0" * 24)


# ---- Days ------------------------------------------------------------------------------------


def test_a_day_is_what_happened_on_it(world: Harness) -> None:
    promoted = (START + timedelta(days=14)).date()
    told = day(journal(world), promoted)
    assert told["over"]
    (live,) = told["live"]
    assert (live["strategy_id"], live["before"], live["after"]) == ("s1", 0.0, 0.5)
    assert live["returns"] == 2
    assert live["total_return"] == pytest.approx(1.02 * 0.99 - 1.0)
    happened = {part["heading"]: part["entries"] for part in told["happened"]}
    assert [e["sentence"] for e in happened["Up"]] == [
        "olga promoted s1 to step 1 of its ramp, a weight of 50 %."
    ]
    assert [e["kind"] for e in happened["Proposed and approved"]] == [
        "candidate_proposed",
        "approval_given",
        "approval_given",
    ]
    assert happened["Down"] == []
    phases = {p["name"]: (p["before"], p["after"]) for p in told["phases"]}
    assert phases["live"] == (0, 1)
    assert told["waits"] == []


def test_a_return_that_came_after_the_day_is_of_the_day(tmp_path: Path) -> None:
    with harness_over("memory", tmp_path) as harness:
        with_world(harness)
        with_live(harness)
        on = (harness.now + timedelta(days=1)).date()
        harness.advance(timedelta(days=1))
        bar = harness.now
        harness.advance(timedelta(hours=4))  # After midnight.
        told = {"stage": "live", "t": bar.isoformat(), "returns": {"s1": 0.01}}
        harness.ok("pat", "POST", f"/worlds/{W}/returns", told)
        (live,) = day(journal(harness), on)["live"]
        assert (live["returns"], live["total_return"]) == (1, pytest.approx(0.01))
        (after,) = day(journal(harness), on + timedelta(days=1))["live"]
        assert (after["returns"], after["total_return"]) == (0, None)


def test_the_day_after_has_none_of_it(world: Harness) -> None:
    told = day(journal(world), (START + timedelta(days=15)).date())
    assert [part["entries"] for part in told["happened"] if part["entries"]] == []
    (live,) = told["live"]
    assert (live["before"], live["after"], live["returns"]) == (0.5, 0.5, 1)


def test_today_is_what_there_is_so_far_and_what_waits(world: Harness) -> None:
    told = day(journal(world), world.now.date())
    assert not told["over"]
    assert [each["title"] for each in told["waits"]] == ["s2 waits for 1 approval"]
    text = pages.text(told)
    assert text.splitlines()[0] == f"{W}, {world.now.date()} (so far)"
    assert "s2 waits for 1 approval." in text
    assert "s1: weight 50.00 % -> 50.00 %" in text


def test_what_people_wrote_is_no_line_of_the_text(tmp_path: Path) -> None:
    with harness_over("memory", tmp_path) as harness:
        with_world(harness)
        reason = "a fire\n\nJOURNAL: whole\x1b[2J"
        harness.killed("olga", reason)
        text = pages.text(day(journal(harness), harness.now.date()))
    assert "olga killed the world (a fire JOURNAL: whole[2J)." in text
    assert [line for line in text.splitlines() if line.startswith("JOURNAL")] == [
        "JOURNAL: whole; 8 entries"
    ]
    assert "\x1b" not in text


@pytest.mark.parametrize("on", [date(2023, 12, 31), date(2031, 1, 1)])
def test_a_day_of_which_nothing_is_known_is_refused(world: Harness, on: date) -> None:
    with pytest.raises(Invalid):
        day(journal(world), on)


# ---- Pages -----------------------------------------------------------------------------------


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.outside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.outside += [
            f"{tag} {n}" for n, _ in attrs if n in ("src", "srcset", "style", "onload")
        ]
        self.outside += [str(v) for n, v in attrs if n == "href" and tag != "a"]


@pytest.mark.parametrize("which", ["s1", "s2", "day"])
def test_names_and_reasons_are_text_and_nothing_comes_from_elsewhere(
    world: Harness, which: str
) -> None:
    """What a strategy's author and an approver wrote is in the page, and is no element of it."""
    on = world.now.date()
    told = day(journal(world), on) if which == "day" else of(world, which)
    page = pages.html(told, "https://qmtl.example.com")
    elements = Elements(page)
    assert "script" not in elements.names
    assert elements.outside == []
    assert "@import" not in page
    assert "url(" not in page
    assert (EVIL in page) is False
    if which != "s1":
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_a_page_says_what_its_data_says(world: Harness) -> None:
    told = of(world, "s2")
    page = pages.html(told, "https://qmtl.example.com")
    assert f"https://qmtl.example.com/ui/worlds/{W}/candidates/{told['candidate_id']}" in page
    for each in (*told["history"], *told["approvals"]["given"]):
        assert str(each["seq"]) in page
    for each in told["history"]:
        assert each["hash"] in page
    assert told["journal"]["head"]["signature"] in page
    assert page.count('class="mark bad">no<') == len(
        {r["name"] for r in told["gate"] if r["holds"] is False}
    )
    assert "https://qmtl.example.com" not in pages.html(told)


def test_a_page_is_not_wider_than_it_should_be(world: Harness) -> None:
    """A4 in print, and no fixed widths on a screen."""
    page = pages.html(of(world, "s1"))
    assert "@page { size: A4;" in page
    assert not re.search(r"[^-]width: \d{3,}px", page)


# ---- Commands --------------------------------------------------------------------------------


def run(world: Harness, *words: str, code: int = 0, edit: Any = None) -> Any:
    def handle(request: httpx.Request) -> httpx.Response:
        told = world.client.request(
            request.method, request.url.raw_path.decode(), headers=world.headers("rea")
        )
        content = told.content if edit is None else edit(request.url.path, told.content)
        return httpx.Response(
            told.status_code, content=content, headers={"content-type": "application/json"}
        )

    setting = Setting(transport=httpx.MockTransport(handle))
    asked = ["--url", "http://world.test", "report", *words]
    result = CliRunner().invoke(app, asked, obj=setting)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_a_file_is_written_or_the_data_told(world: Harness, tmp_path: Path) -> None:
    out = tmp_path / "s1.html"
    run(world, "candidate", W, "s1", "-o", str(out))
    assert out.read_text().startswith("<!doctype html>")
    assert json.loads(run(world, "candidate", W, "s1", "--json").stdout)["standing"] == "applied"
    run(world, "day", W, "-o", str(tmp_path / "day.txt"))
    assert (tmp_path / "day.txt").read_text() == run(world, "day", W).stdout
    run(world, "day", W, "-o", str(tmp_path / "day.html"))
    assert "<h1>" in (tmp_path / "day.html").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["day.html", "day.txt", "s1.html"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("candidate", W, "s1"), 2),
        (("candidate", W, "s1", "-o", "s1.pdf"), 2),
        (("candidate", W, "nobody", "--json"), 1),
        (("day", W, "--date", "tomorrow"), 2),
        (("day", W, "--date", "2031-01-01"), 1),
        (("day", "nowhere"), 1),
    ],
)
def test_what_cannot_be_is_refused_and_writes_nothing(
    world: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Any, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    run(world, *words, code=code)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_was_edited_makes_no_report(world: Harness, tmp_path: Path) -> None:
    def edited(path: str, content: bytes) -> bytes:
        return content.replace(b"the numbers hold", b"the numbers HOLD")

    out = tmp_path / "s1.html"
    said = run(world, "candidate", W, "s1", "-o", str(out), code=1, edit=edited)
    assert "edited" in said.output
    assert not out.exists()


def test_a_head_that_nobody_signed_is_said_on_the_page(world: Harness, tmp_path: Path) -> None:
    def forged(path: str, content: bytes) -> bytes:
        if not path.endswith("/journal/head"):
            return content
        return re.sub(rb'("signature":")[0-9a-f]{8}', rb"\g<1>00000000", content)

    out = tmp_path / "s1.html"
    said = run(world, "candidate", W, "s1", "-o", str(out), code=1, edit=forged)
    assert "not whole" in said.output
    assert "Nothing in this report counts" in out.read_text()
