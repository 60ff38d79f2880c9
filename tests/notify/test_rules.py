"""Each rule fires on the real journal of a world when it should, once, and not otherwise."""

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from qmtl.adapters.outgoing.deliveries import Deliveries, Delivery
from qmtl.core.notices import About
from qmtl.entry.notify import notifier
from qmtl.entry.notify.config import Rule, Settings, Webhook
from qmtl.entry.notify.notifier import Watch
from tests.dashboard.browsing import person, stranger
from tests.http.harness import (
    DAY,
    Harness,
    W,
    harness_over,
    returns_of,
    submission,
    with_candidate,
    with_live,
    with_world,
)

from .receiving import Clock, client_of

LIVE = f"/worlds/{W}/promotions/live"


class Told:
    """A world that is watched, and what was kept to be told of it."""

    def __init__(self, harness: Harness, folder: Path, *rules: Rule) -> None:
        self.harness, self.folder = harness, folder
        self.clock = Clock()
        self.rules = rules or (
            Rule(to=("desk",), world=None, about=frozenset(About), stale_after=None),
        )
        self.said: list[str] = []
        self.kept = Deliveries(folder / "notify.db")
        self.watch = self.watching()

    def watching(self) -> Watch:
        names = {name for rule in self.rules for name in rule.to}
        settings = Settings(
            targets={name: Webhook("http://127.0.0.1:1/", b"k" * 32) for name in names},
            rules=self.rules,
            server=None,
            token=None,
            pages="https://qmtl.example.com",
            state=self.folder / "notify.db",
            every=timedelta(seconds=1),
        )
        pages = str(settings.pages)
        client = client_of(self.harness)
        return Watch(settings, client, self.kept, self.clock, pages, self.said.append)

    def again(self) -> None:
        """The notifier dies, and another is started."""
        self.kept.close()
        self.kept = Deliveries(self.folder / "notify.db")
        self.watch = self.watching()

    def new(self) -> list[Delivery]:
        """What one look finds, the oldest first."""
        before = {each.number for each in self.kept.log(1_000)}
        self.watch.look()
        return [each for each in reversed(self.kept.log(1_000)) if each.number not in before]

    def titles(self) -> list[str]:
        return [each.title for each in self.new()]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    with harness_over("memory", tmp_path) as harness:
        with_world(harness)
        made = Told(harness, tmp_path)
        assert made.titles() == []
        yield made
        made.kept.close()


def body(harness: Harness, sid: str = "s1") -> dict[str, str]:
    listed = harness.ok("rea", "GET", f"{LIVE}/candidates")["candidates"]
    run_id = next(c["run_id"] for c in listed if c["strategy_id"] == sid)
    return {"strategy_id": sid, "run_id": run_id}


def test_a_candidate_that_waits_is_told_once_with_its_page(told: Told) -> None:
    with_candidate(told.harness)
    (only,) = told.new()
    listed = told.harness.ok("rea", "GET", f"{LIVE}/candidates")["candidates"]
    cid = listed[0]["candidate_id"]
    assert (only.about, only.title) == ("approval", "s1 waits for 2 approvals")
    data = only.message["data"]
    assert data["url"] == f"https://qmtl.example.com/ui/worlds/{W}/candidates/{cid}"
    assert "the role approver" in data["sentences"][1]
    assert told.new() == []
    told.again()
    assert told.new() == []


def test_the_link_opens_the_candidates_page_and_approves_nothing(told: Told) -> None:
    """Whoever fetches it: an approver who is signed in, or what scans mail for links."""
    with_candidate(told.harness)
    (only,) = told.new()
    path = only.message["data"]["url"].removeprefix("https://qmtl.example.com")
    before = told.harness.state()
    page = person(told.harness, "al").get(path)
    assert page.status == 200
    assert page.offers("/approve")
    assert not stranger(told.harness).get(path).offers("/approve")
    assert told.harness.state() == before


def test_who_approves_ends_it_and_who_takes_it_back_begins_it_again(told: Told) -> None:
    with_candidate(told.harness)
    assert told.titles() == ["s1 waits for 2 approvals"]
    mine = {**body(told.harness), "reason": "the numbers hold"}
    for who in ("al", "bo"):
        told.harness.ok(who, "POST", f"{LIVE}/approve", mine)
    assert told.new() == []
    params = body(told.harness)
    told.harness.ok("bo", "DELETE", f"{LIVE}/approve", params=params)
    (again,) = told.new()
    assert again.title == "s1 waits for 1 approval"
    assert "al approved." in again.message["data"]["sentences"][1]


def test_approvals_that_expire_are_told_though_nothing_happened(told: Told) -> None:
    with_candidate(told.harness)
    told.new()
    mine = {**body(told.harness), "reason": "the numbers hold"}
    for who in ("al", "bo"):
        told.harness.ok(who, "POST", f"{LIVE}/approve", mine)
    assert told.new() == []
    told.harness.advance(timedelta(hours=71))
    assert told.new() == []
    told.harness.advance(timedelta(hours=1))
    (expired,) = told.new()
    assert expired.title == "s1 waits for 2 approvals"
    assert expired.message["data"]["sentences"][-1] == "What al and bo approved has expired."


def test_a_candidate_that_was_rejected_waits_for_nobody(told: Told) -> None:
    with_candidate(told.harness)
    mine = {**body(told.harness), "reason": "not this one"}
    told.harness.ok("olga", "POST", f"{LIVE}/reject", mine)
    assert told.new() == []


def test_what_the_gate_refuses_is_told_with_every_reason(told: Told) -> None:
    with_candidate(told.harness)
    told.new()
    refused = told.harness.call("olga", "POST", f"{LIVE}/apply", body(told.harness))
    assert refused.status_code == 409
    (only,) = told.new()
    assert only.title == "s1 is not let through to live"
    data = only.message["data"]
    assert data["reasons"] == refused.json()["reasons"]
    assert data["sentences"] == [
        "olga asked for it, and the gate is closed:",
        "0 of 2 approvals.",
    ]
    assert data["seq"] == only.seq is not None
    told.harness.call("olga", "POST", f"{LIVE}/apply", body(told.harness))
    assert told.new() == [], "the same reasons are no news"


def test_who_is_taken_down_is_told_and_who_goes_up_is_not(told: Told) -> None:
    with_live(told.harness)
    assert [each.about for each in told.new()] == [], "two looks would have seen it wait"
    down = {"strategy_id": "s1", "to": "paper", "reason": "it looks <b>odd</b>"}
    told.harness.ok("olga", "POST", f"/worlds/{W}/demote", down)
    (only,) = told.new()
    assert (only.about, only.title) == ("demoted", "s1 was taken down: it is on paper now")
    assert "it looks <b>odd</b>" in only.message["data"]["sentences"][0]
    assert "of capital, which is free now" in only.message["data"]["sentences"][1]


def test_a_kill_is_told_and_a_resumption(told: Told) -> None:
    told.harness.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": "a fire"})
    (kill,) = told.new()
    assert (kill.about, kill.title) == ("kill", f"The world {W} was killed")
    assert kill.message["data"]["sentences"] == ["olga killed the world (a fire)."]
    told.harness.ok("olga", "POST", f"/worlds/{W}/resume", {"reason": "it is out"})
    assert told.titles() == [f"The world {W} was resumed"]


def test_what_people_wrote_breaks_no_line_and_steers_no_terminal(told: Told) -> None:
    reason = "a fire\r\n\r\nAll is well.\x1b[2J\u202e"
    told.harness.killed("olga", reason)
    (kill,) = told.new()
    assert kill.message["data"]["sentences"] == ["olga killed the world (a fire All is well.[2J)."]


@pytest.mark.parametrize(
    ("change", "title"),
    [
        ({"allow_live": False}, f"The world {W} may not trade live any more"),
        ({"state": "suspended"}, f"The world {W} is suspended"),
        ({"state": "active"}, None),
    ],
)
def test_whatever_stops_a_world_is_a_kill(told: Told, change: object, title: str | None) -> None:
    told.harness.ok("admin", "PATCH", f"/worlds/{W}", change)
    assert told.titles() == ([] if title is None else [title])


def test_returns_that_stop_are_told_without_any_event(told: Told) -> None:
    with_candidate(told.harness)
    told.new()
    seq = told.harness.store.load(W).seq
    told.harness.advance(timedelta(days=7))
    assert told.new() == [], "a window runs on without any for five bars, which are 7.2 days"
    told.harness.advance(timedelta(hours=6))
    (only,) = told.new()
    assert told.harness.store.load(W).seq == seq, "nothing happened"
    assert only.about == "stale"
    assert only.title == "No paper returns of s1 for 7.2 days"
    assert told.new() == []
    told.again()
    assert told.new() == []
    told.harness.feed("paper", {"s1": 0.001})
    assert told.new() == []
    told.harness.advance(timedelta(days=8))
    assert told.titles() == ["No paper returns of s1 for 8.0 days"], "once each time they stop"


def test_who_goes_quiet_together_is_one_notice_and_who_follows_another(told: Told) -> None:
    for sid in ("s2", "s3"):
        told.harness.ok("ann", "POST", "/strategies", submission(sid))
    told.harness.feed("paper", dict.fromkeys(("s1", "s2", "s3"), 0.001))
    told.harness.advance(timedelta(days=4))
    told.harness.feed("paper", {"s3": 0.001})
    told.harness.advance(timedelta(days=4))
    assert told.titles() == ["No paper returns of s1 and s2 for 8.0 days"]
    told.harness.advance(timedelta(days=4))
    assert told.titles() == ["No paper returns of s3 for 8.0 days"]


def test_a_live_strategy_that_is_silent_says_what_it_may_do(told: Told) -> None:
    with_live(told.harness)
    told.harness.advance(timedelta(days=8))
    (only,) = [each for each in told.new() if each.about == "stale"]
    assert "s1 may compute only from" in only.message["data"]["sentences"][-1]
    told.again()
    told.harness.advance(timedelta(days=20))
    assert told.new() == [], "it stands already"


def test_a_rule_may_be_less_patient_and_of_some_things_only(tmp_path: Path) -> None:
    with harness_over("memory", tmp_path) as harness:
        with_world(harness)
        stale, kill = frozenset({About.STALE}), frozenset({About.KILL})
        told = Told(
            harness,
            tmp_path,
            Rule(to=("desk",), world=W, about=stale, stale_after=timedelta(hours=30)),
            Rule(to=("desk",), world="elsewhere", about=kill, stale_after=None),
            Rule(to=("ops",), world=None, about=kill, stale_after=None),
        )
        assert told.titles() == []
        assert told.said == ["there is no world elsewhere"]
        harness.feed("paper", {"s1": 0.001})
        harness.advance(timedelta(hours=31))
        harness.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": "a fire"})
        found = {(each.target, each.about) for each in told.new()}
        assert found == {("desk", "stale"), ("ops", "kill")}
        told.kept.close()


def test_what_happened_before_the_first_look_is_history_and_what_stands_is_not(
    tmp_path: Path,
) -> None:
    with harness_over("memory", tmp_path) as harness:
        with_world(harness)
        with_candidate(harness)
        harness.call("olga", "POST", f"{LIVE}/apply", body(harness))
        told = Told(harness, tmp_path)
        assert [each.about for each in told.new()] == ["approval"]
        told.again()
        assert told.new() == [], "nor is it news to the next one"
        told.kept.close()


def test_nothing_is_missed_while_it_is_away_and_nothing_is_told_twice(told: Told) -> None:
    told.kept.close()
    for reason in ("one", "two"):
        told.harness.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": reason})
        told.harness.ok("olga", "POST", f"/worlds/{W}/resume", {"reason": reason})
    told.kept = Deliveries(told.folder / "notify.db")
    told.watch = told.watching()
    assert len(told.new()) == 4
    told.again()
    assert told.new() == []


def test_a_world_whose_journal_is_another_is_told_nothing_of(told: Told, tmp_path: Path) -> None:
    told.harness.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": "a fire"})
    assert len(told.new()) == 1
    with harness_over("memory", tmp_path / "other") as other:
        with_world(other)
        told.harness = other
        told.again()
        assert told.new() == []
        assert "an older copy of the database" in told.watch.unusable[W]


def test_it_does_as_much_in_a_world_with_bars_as_without(told: Told) -> None:
    """Snapshots and runs are most of a journal, and tell nobody anything."""
    for r in returns_of("quiet", 5):
        told.harness.advance(DAY)
        told.harness.feed("paper", {"s1": r})
    told.harness.ok("olga", "POST", f"/worlds/{W}/evaluate", {"strategy_id": "s1"})
    assert told.new() == []


def test_what_one_look_finds_is_kept_whole_or_not_at_all(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full between the position and the message: neither is there, and the next
    look finds both."""

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    told.harness.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": "a fire"})
    with monkeypatch.context() as broken:
        broken.setattr(Deliveries, "_add", full)
        with pytest.raises(sqlite3.OperationalError):
            told.watch.look()
    assert told.kept.log(10) == []
    assert told.titles() == [f"The world {W} was killed"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_half_a_notifier_is_none(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """One target's thread dies of a bug: the process ends, so that whoever watches it starts it
    again, instead of telling the others only."""

    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(notifier, "deliver", broken)
    stop = threading.Event()
    watch = told.watch
    with pytest.raises(notifier.Broken, match="tell-desk"):
        notifier.run(
            replace(watch.settings, every=timedelta(milliseconds=50)),
            watch.client,
            told.kept,
            told.clock,
            stop,
            told.said.append,
        )
