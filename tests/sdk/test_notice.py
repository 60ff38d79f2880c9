"""What events mean for a gate; and that no lowering goes unnoticed, whatever happens in a world."""

import json
from dataclasses import fields
from itertools import groupby
from typing import Any, get_args

import pytest

from qmtl.adapters.client import BadEvent, Event
from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.stream import frames, lines_of
from qmtl.core.decision import decide
from qmtl.core.facts import Entry, EvidenceFact, GovernanceFact
from qmtl.core.fold import advance
from qmtl.core.names import Mode
from qmtl.core.view import WorldView
from qmtl.entry.events import NAMES, framed
from qmtl.sdk.notice import CHANGES_NOTHING, EVIDENCE, Notice, notice_of
from qmtl.sim import chaos
from qmtl.sim.scene import WORLD, Scene

DATA = {"generation": 9, "stream": "governance", "fact": {}}
RANK = {Mode.COMPUTE_ONLY: 0, Mode.PAPER: 1, Mode.LIVE: 2}


def event(kind: str, fact: dict[str, Any] | None = None, **changes: Any) -> Event:
    told = {
        "id": "41",
        "type": kind,
        "source": "/worlds/w",
        "data": {**DATA, "kind": kind, "fact": fact or {}},
        **changes,
    }
    return Event(41, kind, json.dumps(told).encode())


MINE, OTHER = {"strategy_id": "s"}, {"strategy_id": "t"}
ASK = Notice(9, None)
NOTICES: list[tuple[str, dict[str, Any], Notice | None]] = [
    ("killed", {"reason": "fat finger"}, Notice(9, "killed (event 41): fat finger")),
    ("resumed", {"reason": "x"}, ASK),
    ("live_allowed", {"allowed": False}, Notice(9, "live_allowed (event 41)")),
    ("live_allowed", {}, Notice(9, "live_allowed (event 41)")),
    ("live_allowed", {"allowed": True}, ASK),
    ("state_changed", {"state": "suspended"}, Notice(9, "state_changed (event 41)")),
    ("state_changed", {"state": "archived"}, Notice(9, "state_changed (event 41)")),
    ("state_changed", {"state": "active"}, ASK),
    ("demoted", {**MINE, "detail": "drift"}, Notice(9, "demoted (event 41): drift")),
    ("demoted", OTHER, None),
    ("phase_entered", MINE, Notice(9, "phase_entered (event 41)")),
    ("phase_entered", OTHER, None),
    ("activation_lowered", MINE, Notice(9, "activation_lowered (event 41)")),
    ("activation_lowered", OTHER, None),
    ("promotion_applied", MINE, ASK),
    ("promotion_applied", OTHER, None),
    ("hold_released", MINE, ASK),
    ("campaign_extended", MINE, ASK),
    ("default_policy_set", {}, ASK),
    ("never_heard_of", {}, ASK),
    ("never_heard_of", MINE, ASK),
    ("never_heard_of", OTHER, None),
    *((kind, MINE, None) for kind in sorted(CHANGES_NOTHING)),
]


@pytest.mark.parametrize(("kind", "fact", "notice"), NOTICES)
def test_an_event_means(kind: str, fact: dict[str, Any], notice: Notice | None) -> None:
    assert notice_of(event(kind, fact), "w", "s") == notice


def test_every_kind_there_is_has_a_meaning() -> None:
    """A new kind of fact has to be given one."""

    def kinds(union: Any) -> set[str]:
        told = {f.default for fact in get_args(union) for f in fields(fact) if f.name == "kind"}
        return {NAMES.get(kind, kind) for kind in told}

    assert kinds(EvidenceFact) == EVIDENCE
    assert kinds(EvidenceFact) | kinds(GovernanceFact) == {n[0] for n in NOTICES} - {
        "never_heard_of"
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"source": "/worlds/other"},
        {"source": None},
        {"data": []},
        {"id": "42"},
        {"data": {**DATA, "generation": None}},
        {"data": {**DATA, "generation": True}},
        {"data": {**DATA, "generation": 0}},
        {"data": {**DATA, "generation": "9"}},
        {"data": {**DATA, "fact": None}},
        {"data": {"generation": 9}},
    ],
)
def test_what_is_no_event_of_this_world_means_nothing_good(changes: dict[str, Any]) -> None:
    assert notice_of(event("killed"), "w", "s") is not None
    with pytest.raises(BadEvent, match="event 41"):
        notice_of(event("killed", **changes), "w", "s")


def test_evidence_of_a_kind_not_known_yet_is_evidence() -> None:
    told = event("shadow_returns_stored", data={**DATA, "stream": "evidence", "fact": {}})
    assert notice_of(told, "w", "s") is None


# ---- No lowering goes unnoticed ----------------------------------------------------------------


def read(entry: Entry) -> Event:
    """An entry as it comes out of a stream."""
    (told,) = frames(lines_of([framed(WORLD, entry)]))
    assert isinstance(told, Event)
    return told


def lowerings(seed: int) -> int:
    """How often a strategy was lowered in a life of a world; each time, an event has to say so."""
    scene = Scene(MemoryStore())
    for _ in chaos.play(scene, seed, 60, chaos.refusable(scene)):
        pass
    view, lowered = WorldView(world_id=WORLD), 0
    journal = scene.store.journal(WORLD, 0, 1_000_000)
    for _, commit in groupby(journal, lambda e: (e.at, e.generation)):
        entries, before = list(commit), view
        for entry in entries:
            view = advance(view, entry)
        for sid in before.strategies:
            was, now = (decide(each, sid, entries[0].at) for each in (before, view))
            told = [n for e in entries if (n := notice_of(read(e), WORLD, sid)) is not None]
            if (RANK[now.effective_mode], now.weight) < (RANK[was.effective_mode], was.weight):
                assert any(n.stops for n in told), (was, now, entries)
                lowered += was.effective_mode is Mode.LIVE
            assert {n.generation for n in told} <= {now.generation}
    return lowered


def test_no_lowering_goes_unnoticed() -> None:
    assert sum(map(lowerings, range(8))) >= 5, "lives as quiet as that prove nothing"
