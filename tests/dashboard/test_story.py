"""The story is the journal, entry by entry; news resume where they ended; charts lose nothing."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest

from qmtl.app.growth import growth
from qmtl.core.fold import advance
from qmtl.core.happened import happened
from qmtl.core.names import Stage, StrategyId, WorldId
from qmtl.core.view import WorldView
from qmtl.entry import events as stream
from qmtl.entry.dashboard import chart, story
from qmtl.entry.dashboard.story import Stories, Story, Wanted, newest, told
from tests.dashboard.browsing import person
from tests.http.harness import (
    DAY,
    Harness,
    W,
    listening,
    returns_of,
    submission,
    with_live,
    with_world,
)

ALPHA = WorldId(W)


@pytest.fixture
def lived(harness: Harness) -> Harness:
    """Live, and taken down by its losses."""
    with_world(harness)
    with_live(harness)
    for r in (-0.2, -0.2):
        harness.advance(DAY)
        harness.feed("live", {"s1": r})
    return harness


def test_a_story_is_told_as_it_happened(lived: Harness) -> None:
    found, behind = Stories().of(lived.store, ALPHA)
    lines = list(told(lived.store, ALPHA, newest(found, Wanted(), 1_000)))[::-1]
    view, sentences = WorldView(world_id=ALPHA), []
    for entry in lived.store.journal(ALPHA, 0, 1_000):
        sentences.append((entry.seq, happened(view, entry)))
        view = advance(view, entry)
    assert behind == 0
    assert [(line.seq, line.sentence) for line in lines] == sentences


def test_a_story_goes_on_where_it_was(lived: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "BATCH", 3)
    slow = Story(WorldView(world_id=ALPHA))  # Without a budget, an entry at a time.
    left = [slow.read(lived.store, 0.0) for _ in range(4)]
    assert left == sorted(left, reverse=True)
    assert left[0] - left[3] == 3
    while slow.read(lived.store, 0.0):
        pass
    whole, _ = Stories().of(lived.store, ALPHA)
    assert (slow.lines, slow.moves) == (whole.lines, whole.moves)


def test_a_page_says_that_the_journal_is_still_being_read(
    lived: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "BUDGET_SEC", 0.0)
    assert "still being read" in person(lived, "rea").get(f"/ui/worlds/{W}/journal").text


def test_only_so_much_is_kept(lived: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "LINES_MAX", 5)
    found, _ = Stories().of(lived.store, ALPHA)
    assert list(found.lines) == list(range(found.view.seq - 4, found.view.seq + 1))


def test_a_strategys_moves_are_what_changed_something(lived: Harness) -> None:
    found, _ = Stories().of(lived.store, ALPHA)
    moves = [line.kind for line in found.moves[StrategyId("s1")]]
    assert moves == [
        *("strategy_bound", "evaluations_recorded", "phase_entered", "evaluations_recorded"),
        *("candidate_proposed", "approval_given", "approval_given", "promotion_applied"),
        "demoted",
    ]
    lived.ok("olga", "POST", f"/worlds/{W}/evaluate", {"strategy_id": "s1", "stage": "live"})
    found.read(lived.store, 1.0)
    said = found.moves[StrategyId("s1")][-1].sentence or ""
    assert "(fails): live max_drawdown must be at most 0.3" in said


@pytest.mark.parametrize(
    ("wanted", "kinds"),
    [
        (Wanted(kind="demoted"), {"demoted"}),
        (Wanted(actor="al"), {"approval_given"}),
        (Wanted(strategy_id=StrategyId("nobody")), set()),
        (Wanted(strategy_id=StrategyId("s1"), kind="strategy_bound"), {"strategy_bound"}),
        (Wanted(before=2), {"live_allowed"}),
    ],
)
def test_a_journal_is_filtered(lived: Harness, wanted: Wanted, kinds: set[str]) -> None:
    found, _ = Stories().of(lived.store, ALPHA)
    assert {line.kind for line in newest(found, wanted, 100)} == kinds


def test_the_journals_page_filters_and_pages(lived: Harness) -> None:
    one = person(lived, "rea")
    assert "took s1 down" in one.get(f"/ui/worlds/{W}/journal?kind=demoted").text
    assert "approved" not in one.get(f"/ui/worlds/{W}/journal?kind=demoted").text.split("Show")[1]
    assert "Nothing is like that." in one.get(f"/ui/worlds/{W}/journal?actor=nobody").text
    for r in returns_of("more", 45):
        lived.advance(DAY)
        lived.feed("paper", {"s1": r})
    page = one.get(f"/ui/worlds/{W}/journal")
    (earlier,) = [t["href"] for _, t in page.tags if "before=" in (t.get("href") or "")]
    older = one.get(f"/ui/worlds/{W}/journal{str(earlier).partition('journal')[2]}")
    assert "bound s1 to the world" not in page.text
    assert "bound s1 to the world" in older.text


def test_a_journal_is_verified(lived: Harness) -> None:
    page = person(lived, "rea").get(f"/ui/worlds/{W}/journal/verified")
    assert f"Yes: {lived.store.head(ALPHA).seq} entries" in page.text


def test_a_journal_that_was_edited_is_found(
    lived: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = type(lived.store).chained

    def edited(*asked: Any) -> Any:
        return [
            replace(e, body=e.body.replace(b"the numbers hold", b"the numbers fail"))
            for e in kept(*asked)
        ]

    monkeypatch.setattr(type(lived.store), "chained", edited)
    page = person(lived, "rea").get(f"/ui/worlds/{W}/journal/verified")
    assert "No: " in page.text
    assert "Yes: " not in page.text


# ---- News ------------------------------------------------------------------------------------


def events(answer: httpx.Response) -> Iterator[int]:
    """What each event says: up to which entry something happened."""
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line
        if line.startswith("data: "):
            assert name == "event: changed"
            yield int(line.removeprefix("data: "))


def test_news_resume_after_a_disconnect(ready: Harness) -> None:
    path, headers = f"/ui/worlds/{W}/events", ready.headers("rea")
    services = ready.services
    with listening(ready.client.app, services.bell.close) as url, httpx.Client() as client:
        seq = ready.store.head(ALPHA).seq
        with client.stream("GET", f"{url}{path}?after={seq - 1}", headers=headers) as answer:
            news = events(answer)
            assert next(news) == seq, "what the page had not shown yet"
            ready.advance(DAY)
            ready.feed("paper", {"s1": 0.001})
            assert next(news) == seq + 1
        ready.advance(DAY)
        ready.feed("paper", {"s1": 0.002})
        resumed = {**headers, "Last-Event-ID": str(seq + 1)}
        with client.stream("GET", f"{url}{path}?after={seq - 1}", headers=resumed) as answer:
            assert next(events(answer)) == seq + 2, "neither a gap nor anything twice"


def test_news_end_with_the_session(ready: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "QUIET_SEC", 0.2)
    one = person(ready, "rea")
    page = one.get("/ui")
    services = ready.services
    with listening(ready.client.app, services.bell.close) as url, httpx.Client() as client:
        port = url.rpartition(":")[2]
        (cookie,) = one.cookies.values()
        client.cookies.set(f"qmtl_{port}", cookie)
        with client.stream("GET", f"{url}/ui/worlds/{W}/events", timeout=10) as answer:
            assert answer.status_code == 200
            leaving = threading.Timer(0.3, lambda: one.send(page, "/sign-out"))
            leaving.start()
            assert list(events(answer)) == [], "it ended, and told nothing"
            leaving.join()


# ---- Charts ----------------------------------------------------------------------------------


def test_a_chart_compounds_and_keeps_stages_apart(lived: Harness) -> None:
    found = growth(lived.store, ALPHA, StrategyId("s1"))
    backtest = lived.store.series(ALPHA, StrategyId("s1"), Stage.BACKTEST).r
    paper = lived.store.series(ALPHA, StrategyId("s1"), Stage.PAPER).r
    live = lived.store.series(ALPHA, StrategyId("s1"), Stage.LIVE).r
    every = np.concatenate((backtest, paper, live))
    assert found.growth[-1] == pytest.approx(np.prod(1 + every))
    assert found.drawdown[-1] == pytest.approx(0.8 * 0.8 - 1), "of live alone"
    assert set(found.stage) == {0, 1, 2}


def test_a_thinned_chart_loses_neither_the_worst_nor_a_stage(lived: Harness) -> None:
    whole = growth(lived.store, ALPHA, StrategyId("s1"))
    thin = growth(lived.store, ALPHA, StrategyId("s1"), 10)
    assert len(thin) < 20 < len(whole)
    assert thin.drawdown.min() == whole.drawdown.min()
    assert set(thin.stage) == set(whole.stage)
    assert (thin.t[-1], thin.growth[-1]) == (whole.t[-1], whole.growth[-1])


def test_where_stages_overlap_the_later_one_counts(harness: Harness) -> None:
    with_world(harness)
    harness.feed("paper", {"s1": 0.5})  # On the day of the backtest's last return.
    found = growth(harness.store, ALPHA, StrategyId("s1"))
    assert len(found) == 120
    assert found.stage[-1] == 1
    assert len(np.unique(found.t)) == len(found)


def test_a_chart_of_nothing_is_none(harness: Harness) -> None:
    with_world(harness)
    harness.ok("ann", "POST", f"/worlds/{W}/strategies", {"strategy_id": "s0"})
    assert chart.picture(growth(harness.store, ALPHA, StrategyId("s0"))) is None
    ruined = submission("s2", days=3)
    ruined["returns"]["r"] = [0.1, -1.0, 0.1]
    harness.ok("ann", "POST", "/strategies", ruined)
    lost = growth(harness.store, ALPHA, StrategyId("s2"))
    assert (len(lost), lost.growth[-1], chart.picture(lost)) == (3, 0.0, None)
    numbers = person(harness, "rea").get(f"/ui/worlds/{W}/strategies/s0/chart").answer.json()
    assert numbers == {"t": [], "stages": [], "growth": [], "drawdown": []}


def test_what_was_judged_before_is_not_told_as_of_now(lived: Harness) -> None:
    """It was demoted by returns that no run has seen: the page says which numbers are older."""
    text = person(lived, "olga").get(f"/ui/worlds/{W}/strategies/s1").text
    assert "It is not live now: what ended it is under" in text
    assert "returns; the window above is as it is now." in text


def test_a_kill_without_a_reason_is_a_whole_sentence(lived: Harness) -> None:
    lived.ok("olga", "POST", f"/worlds/{W}/kill", {"reason": ""})
    view = WorldView(world_id=ALPHA)
    for entry in lived.store.journal(ALPHA, 0, 1_000):
        said, view = happened(view, entry), advance(view, entry)
    assert said == "olga killed the world, without a reason."
