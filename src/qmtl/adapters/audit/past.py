"""What a journal has told so far of who may be live, and who is.

What the documents leave out is as `core/fold.py` has it (decision 0025).  For `allowed.py`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from . import evidence
from .evidence import EPOCH, Proof

LEASE: Final = timedelta(seconds=330)  # What was taken back may be acted on so long (0024).
PAPER, LIVE, RETIRED = "paper_campaign", "live_campaign", "retired"
SILENT: Final = frozenset(  # Kinds that say nothing of who may be live.
    ("world_created", "token_created", "token_revoked", "program_started", "promotion_blocked")
) | {"confirmation_requested", "confirmation_given", "activation_acknowledged"}

Told = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    seq: int
    at: datetime
    actor: str
    fact: Told


@dataclass(frozen=True, slots=True)
class Run:
    """A strategy's latest run of a stage."""

    seq: int
    told: Told


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest of a stage that has the strategy in weights and in returns."""

    seq: int
    as_of: datetime
    ttl: timedelta
    stress: float | None  # The loss in its worst scenario, a fraction.


@dataclass(slots=True)
class Live:
    seq: int
    applied: float
    weight: float
    freeze: bool = False
    drain: bool = False


@dataclass(slots=True)
class Candidate:
    entry: Entry
    standing: str = "proposed"  # Or rejected, void, applied; `since` is the entry that made it so.
    since: int = 0
    approvals: dict[str, Entry] = field(default_factory=dict)  # By who gave it.


@dataclass(slots=True)
class Strategy:
    bound: Entry
    entered_at: datetime  # Into its phase.
    phase: str = "backtest_campaign"
    moved: int = 0  # The entry that put it there.
    paper_since: datetime | None = None
    step: int = -1
    held: int | None = None  # The entry that holds it.
    live: Live | None = None
    runs: dict[str, Run] = field(default_factory=dict)
    covered: dict[str, Snapshot] = field(default_factory=dict)
    selected: tuple[int, bool, int] | None = None  # Entry, whether, under which policy.
    taken_back: list[tuple[float, datetime]] = field(default_factory=list)  # Weight, until when.
    proof: Proof = field(default_factory=Proof)


@dataclass(slots=True)
class World:
    """What a journal has told so far."""

    allow_live: tuple[int, bool] = (0, False)
    state: tuple[int, str] = (0, "active")
    killed: int | None = None
    policies: dict[int, Told] = field(default_factory=dict)
    default: tuple[int, int] | None = None  # The entry, and the version in force since.
    promoted: Entry | None = None
    strategies: dict[str, Strategy] = field(default_factory=dict)
    candidates: dict[str, Candidate] = field(default_factory=dict)


def instant(text: str) -> datetime:
    """An aware datetime of RFC 3339."""
    return datetime.fromisoformat(text).astimezone(UTC)


def span(text: str) -> timedelta:
    """A length of time of ISO 8601, in days and seconds.  Raises ValueError."""
    matched = re.fullmatch(r"P(\d+)DT(\d+(?:\.\d+)?)S", text)
    if matched is None:
        raise ValueError(f"{text} is no length of time")
    return timedelta(days=int(matched[1]), seconds=float(matched[2]))


def told(live: Live | None) -> float:
    """The weight that clients are told."""
    return 0.0 if live is None or live.freeze or live.drain else live.weight


def read(world: World, entry: Entry) -> None:
    """The world after one more entry.  Raises KeyError, TypeError or ValueError for what does not
    fit it, or is of a kind that a newer program wrote."""
    fact = entry.fact
    match fact["kind"]:
        case "live_allowed":
            world.allow_live = (entry.seq, fact["allowed"])
            if not fact["allowed"]:
                _empty(world, entry)
        case "killed":
            world.killed = entry.seq
            _empty(world, entry)
        case "resumed":
            world.killed = None
        case "state_changed":
            world.state = (entry.seq, fact["state"])
            if fact["state"] != "active":
                _empty(world, entry)
        case "policy_added":
            world.policies[fact["version"]] = fact["policy"]
        case "default_policy_set":
            _judge_anew(world, fact["version"])
            world.default = (entry.seq, fact["version"])
            for candidate in world.candidates.values():
                other = candidate.entry.fact["policy_version"] != fact["version"]
                if other and candidate.standing == "proposed":
                    _stand(candidate, "void", entry)
        case "promotion_applied":
            _applied(world, entry)
        case "activation_lowered":
            _lowered(world, entry)
        case str(kind) if kind in SILENT:
            return
        case _ if "candidate_id" in fact:
            _read_of_candidate(world, entry)
        case "retention_applied":
            return  # Weights, returns and the worst stress are left of every snapshot.
        case "snapshot_stored" | "series_restated" | "evaluations_recorded":
            _read_evidence(world, entry)
        case _:
            _read_of_strategy(world, entry)


def _read_of_candidate(world: World, entry: Entry) -> None:
    cid = entry.fact["candidate_id"]
    match entry.fact["kind"]:
        case "candidate_proposed":
            world.candidates[cid] = Candidate(entry, since=entry.seq)
        case "approval_given":
            world.candidates[cid].approvals[entry.actor] = entry
        case "approval_withdrawn":
            world.candidates[cid].approvals.pop(entry.actor, None)
        case "candidate_rejected":
            _stand(world.candidates[cid], "rejected", entry)
        case "candidate_voided":
            _stand(world.candidates[cid], "void", entry)
        case "candidate_released":
            _stand(world.candidates[cid], "proposed", entry)
            world.candidates[cid].approvals.clear()
        case kind:
            raise ValueError(f"{kind} is of a newer program")


def _read_of_strategy(world: World, entry: Entry) -> None:
    fact, sid = entry.fact, entry.fact["strategy_id"]
    if fact["kind"] == "strategy_bound":
        known = world.strategies.setdefault(sid, Strategy(entry, entry.at, moved=entry.seq))
        known.bound = entry
        return
    strategy = world.strategies[sid]
    match fact["kind"]:
        case "phase_entered":
            _enter(world, sid, fact["phase"], entry)
        case "demoted":
            _leave_live(world, sid, entry)
            if strategy.phase != fact["to"]:
                _enter(world, sid, fact["to"], entry)
            strategy.held = entry.seq if fact["held"] else strategy.held
        case "hold_released":
            strategy.held = None
        case "campaign_extended":
            if strategy.phase == RETIRED:
                _back_to_paper(strategy, entry)
        case kind:
            raise ValueError(f"{kind} is of a newer program")


def _read_evidence(world: World, entry: Entry) -> None:
    fact, stage = entry.fact, entry.fact["stage"]
    match fact["kind"]:
        case "snapshot_stored":
            _hear(world, entry)
            for sid in set(fact["covered"]) & set(fact["weights"]):
                losses = (fact.get("stress") or {}).get(sid, {}).values()
                new = Snapshot(
                    entry.seq,
                    instant(fact["as_of"]),
                    timedelta(seconds=fact["ttl_sec"]),
                    max(losses, default=None),
                )
                held = world.strategies[sid].covered.get(stage)
                if held is None or new.as_of >= held.as_of:
                    world.strategies[sid].covered[stage] = new
        case "series_restated":
            strategy = world.strategies[fact["strategy_id"]]
            strategy.runs.pop(stage, None)
            strategy.covered.pop(stage, None)
            if stage == "backtest":
                strategy.proof.selection_p = None
            elif stage in ("paper", "live") and strategy.proof.since is not None:
                strategy.proof.begin(entry.at, campaigns(world) + 1)
            if stage == "paper" and strategy.paper_since is not None:
                strategy.paper_since = entry.at
            if stage in ("backtest", "paper") or (stage == "live" and strategy.phase == LIVE):
                strategy.selected = None
                _void_all(world, fact["strategy_id"], entry)
        case _:
            for run in fact["runs"]:
                strategy = world.strategies[run["strategy_id"]]
                strategy.runs[stage] = Run(entry.seq, run)
                if stage == "backtest":
                    found = run["metrics"].get("selection_p")
                    strategy.proof.selection_p = None if found is None else found["value"]
            for sid in fact.get("cohort", ()):
                chosen = sid in fact["selected"]
                world.strategies[sid].selected = (entry.seq, chosen, fact["policy_version"])


def campaigns(world: World) -> int:
    """How many were ever looked at in paper, a restated one once more."""
    return sum(strategy.proof.begun for strategy in world.strategies.values())


def _judge_anew(world: World, version: int) -> None:
    """Other terms begin with the returns that follow; what spoke against it stays."""
    if world.default is None:
        return
    before, after = world.policies[world.default[1]], world.policies[version]
    if evidence.terms(before) == evidence.terms(after):
        return
    for strategy in world.strategies.values():
        found = evidence.against(strategy.proof, before)
        if found is not None:
            strategy.proof.carried = min(1.0, found)
        strategy.proof.returns = []


def _hear(world: World, entry: Entry) -> None:
    """Paper of who is not live, and live of who is."""
    fact = entry.fact
    if fact["stage"] not in ("paper", "live") or world.default is None:
        return
    lag = span(world.policies[world.default[1]]["data"]["max_lag"])
    for sid, new in evidence.points(fact["points"]):
        strategy = world.strategies[sid]
        is_live = strategy.phase == LIVE
        if is_live == (fact["stage"] == "live") and strategy.proof.since is not None:
            after = max(strategy.proof.since, strategy.entered_at if is_live else EPOCH)
            evidence.hear(strategy.proof, new, after, entry.at - lag)


def _stand(candidate: Candidate, standing: str, entry: Entry) -> None:
    candidate.standing, candidate.since = standing, entry.seq


def _void_all(world: World, sid: str, entry: Entry) -> None:
    for candidate in world.candidates.values():
        mine = candidate.entry.fact["strategy_id"] == sid
        if mine and candidate.standing in ("proposed", "applied"):  # A rejection stands.
            _stand(candidate, "void", entry)


def _enter(world: World, sid: str, phase: str, entry: Entry) -> None:
    strategy = world.strategies[sid]
    strategy.phase, strategy.entered_at, strategy.moved = phase, entry.at, entry.seq
    strategy.selected = None
    if phase == PAPER:
        if strategy.proof.since is None:
            strategy.proof.begin(entry.at, campaigns(world) + 1)
        strategy.paper_since = entry.at
        strategy.runs.pop("paper", None)
    else:
        _void_all(world, sid, entry)


def _back_to_paper(strategy: Strategy, entry: Entry) -> None:
    """With its window kept, and so with the instant that it began."""
    strategy.phase, strategy.moved = PAPER, entry.seq
    strategy.entered_at = strategy.paper_since or strategy.entered_at


def _leave_live(world: World, sid: str, entry: Entry) -> None:
    strategy = world.strategies[sid]
    before = told(strategy.live)
    strategy.live, strategy.step, strategy.selected = None, -1, None
    _take_back(strategy, before, entry)
    _void_all(world, sid, entry)


def _empty(world: World, entry: Entry) -> None:
    for sid, strategy in world.strategies.items():
        if strategy.live is not None:
            _leave_live(world, sid, entry)
            _back_to_paper(strategy, entry)


def _take_back(strategy: Strategy, before: float, entry: Entry) -> None:
    if told(strategy.live) < before:
        strategy.taken_back.append((before, entry.at + LEASE))


def _lowered(world: World, entry: Entry) -> None:
    strategy, fact = world.strategies[entry.fact["strategy_id"]], entry.fact
    if strategy.live is not None:
        before = told(strategy.live)
        strategy.live.weight = fact["weight"]
        strategy.live.freeze, strategy.live.drain = fact["freeze"], fact["drain"]
        _take_back(strategy, before, entry)


def _applied(world: World, entry: Entry) -> None:
    fact, strategy = entry.fact, world.strategies[entry.fact["strategy_id"]]
    before, held = told(strategy.live), strategy.live or Live(0, 0.0, 0.0)
    weight = fact["weight"]
    strategy.live = Live(entry.seq, weight, weight, held.freeze, held.drain)
    strategy.step, world.promoted = fact["step"], entry
    _take_back(strategy, before, entry)
    if fact["candidate_id"] in world.candidates:
        _stand(world.candidates[fact["candidate_id"]], "applied", entry)
    if strategy.phase != LIVE:
        strategy.phase, strategy.entered_at, strategy.moved = LIVE, entry.at, entry.seq
        strategy.runs.pop("live", None)
