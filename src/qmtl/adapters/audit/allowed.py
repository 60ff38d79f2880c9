"""Was every live transition allowed?  Derived again from an exported journal, and nothing else.

By HTTP.md, POLICY.md and DESIGN.md section 7, for who has to sign for it (0025).  It shares no
code with the gate that it checks: the standard library, `cronsim`, and the lines of `verify.py`.
What has to be computed from returns, it does not know: NOT_CHECKED.  Weights are shares of capital.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import combinations
from typing import Final

from cronsim import CronSim

from qmtl.adapters.wire.verify import ENTRY

from . import evidence
from .past import LIVE, PAPER, Entry, Strategy, Told, World, campaigns, instant, read, span, told

NOT_CHECKED: Final = (
    "whether a run judged its returns rightly by the gates, and correlation to who is live",
    "the boundaries of evidence.paper.method: group_sequential",
    "which roles people had: they are of credentials, in the journal of _system",
    "what was asked for by one and confirmed by another: a journal does not say if it took two",
)
SKEW: Final = timedelta(seconds=60)  # A snapshot may be this far ahead (DESIGN 7.3).
ROUNDING: Final = 1e-6  # Of e-values, added up in another order.
TOLERANCE: Final = 1e-9  # Of weights, which are not exact in binary.

Condition = tuple[bool, str, tuple[int, ...]]  # Whether it holds, what is wrong if not, entries.


class Unreadable(Exception):
    """An entry that this program cannot read, or that does not fit those before it."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A condition that did not hold, and the seq of the entries that show it."""

    what: str
    rests_on: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """A weight that went up, or an attempt at it; allowed when nothing was violated."""

    seq: int
    at: datetime
    strategy_id: str
    what: str
    violations: tuple[Violation, ...]


@dataclass(slots=True)
class Audit:
    """What was found so far, of so many entries."""

    world: World = field(default_factory=World)
    transitions: list[Transition] = field(default_factory=list)
    entries: int = 0


def audit(lines: Iterable[bytes]) -> list[Transition]:
    """The transitions of an export, each with all that was wrong with it.  Raises Unreadable."""
    found = Audit()
    for _ in followed(found, lines):
        continue
    return found.transitions


def followed(found: Audit, lines: Iterable[bytes]) -> Iterator[bytes]:
    """The same lines; each is audited once the next is asked for, so that `verify` sees it first.

    Raises Unreadable.
    """
    for line in lines:
        yield line
        matched = ENTRY.fullmatch(line)
        if matched is None:
            continue  # The first and the last line; anything else, `verify` finds.
        header, fact = json.loads(matched[1]), json.loads(matched[4])
        entry = Entry(header["seq"], instant(header["at"]), header["actor"], fact)
        try:
            judged = _judged(found.world, entry)
            read(found.world, entry)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            why = f"entry {entry.seq} ({fact.get('kind')}) does not fit those before it: {error!r}"
            raise Unreadable(why) from error
        found.transitions += judged
        found.entries = entry.seq


def _judged(world: World, entry: Entry) -> list[Transition]:
    """The transition that an entry is, if it is one, judged by all that was before it."""
    fact = entry.fact
    match fact["kind"]:
        case "promotion_applied":
            what = f"live at ramp step {fact['step'] + 1}, weight {fact['weight']:g}"
            conditions = list(_conditions(world, world.strategies[fact["strategy_id"]], entry))
        case "activation_lowered":
            what = f"weight {fact['weight']:g} by hand"
            conditions = list(_of_hand(world.strategies[fact["strategy_id"]], fact))
        case _:
            return []
    wrong = tuple(Violation(said, rests_on) for holds, said, rests_on in conditions if not holds)
    if not conditions:
        return []
    sid = fact["strategy_id"]
    return [Transition(seq=entry.seq, at=entry.at, strategy_id=sid, what=what, violations=wrong)]


def _of_hand(strategy: Strategy, fact: Told) -> Iterator[Condition]:
    """An operator may raise a weight up to what was applied.  Nothing when it went down."""
    live, weight = strategy.live, fact["weight"]
    if live is None:
        yield False, "it was not live: only a promotion gives weight", (strategy.moved,)
    elif weight > live.weight or told(live) < (0 if fact["freeze"] or fact["drain"] else weight):
        why = f"weight {weight:g} is above the {live.applied:g} that was applied"
        yield weight <= live.applied + TOLERANCE, why, (live.seq,)


def _conditions(world: World, strategy: Strategy, entry: Entry) -> Iterator[Condition]:
    """All that has to hold for a promotion."""
    if world.default is None:
        yield False, "no policy was in force", ()
        return
    at, version = world.default
    policy, step = world.policies[version], strategy.step + 1
    governance = policy["governance"]
    mode = governance["live_promotion"]["mode"]
    yield world.allow_live[1], "the world did not allow live", _seqs(world.allow_live[0])
    yield world.state[1] == "active", f"the world was {world.state[1]}", _seqs(world.state[0])
    yield world.killed is None, "the world was killed and not resumed", _seqs(world.killed)
    yield mode != "disabled", f"policy {version} promotes nobody to live", (at,)
    yield strategy.held is None, "it was demoted by hand, and held", _seqs(strategy.held)
    for freeze in governance["freeze"]:
        start = next(CronSim(freeze["cron"], entry.at - span(freeze["length"])))
        why = f"a freeze of policy {version} was open, since {start.isoformat()}"
        yield start > entry.at, why, (at,)
    yield from _of_candidate(world, strategy, entry, version)
    if mode == "manual_approval":
        yield from _of_approvals(world, strategy, entry, governance["live_promotion"])
    ramp = governance["ramp"]
    taken = entry.fact["step"]
    yield (
        taken == step,
        f"it took ramp step {taken + 1}; the next was {step + 1}",
        _seqs(strategy.moved),
    )
    if not 0 <= taken < len(ramp):
        yield False, f"the ramp of policy {version} has {len(ramp)} steps", (at,)
        return
    yield from _of_run(strategy, entry, policy, version)
    yield from _of_proof(world, strategy, entry, policy)
    yield from _of_snapshot(strategy, entry, policy["risk"])
    yield from _of_capital(world, entry, governance)


def _seqs(*seqs: int | None) -> tuple[int, ...]:
    return tuple(seq for seq in seqs if seq)


def _of_candidate(
    world: World, strategy: Strategy, entry: Entry, version: int
) -> Iterator[Condition]:
    candidate = world.candidates.get(entry.fact["candidate_id"])
    needed = PAPER if entry.fact["step"] == 0 else LIVE
    why = f"it was in {strategy.phase}, not in {needed}"
    yield strategy.phase == needed, why, _seqs(strategy.moved)
    if candidate is None:
        yield False, "nobody had proposed the candidate", ()
        return
    fact, seq = candidate.entry.fact, candidate.entry.seq
    standing = f"the candidate was {candidate.standing}"
    yield candidate.standing == "proposed", standing, (seq, candidate.since)
    same = fact["strategy_id"] == entry.fact["strategy_id"]
    yield same, f"the candidate was of {fact['strategy_id']}", (seq,)
    was = fact["policy_version"]
    yield was == version, f"the candidate was of policy {was}, not {version}", (seq,)
    same = fact["fingerprint"] == strategy.bound.fact["fingerprint"]
    yield same, "the candidate was of another fingerprint", (seq, strategy.bound.seq)
    same = instant(fact["entered_at"]) == strategy.entered_at
    yield same, "the candidate was of another entry into the phase", (seq, strategy.moved)
    same = fact["step"] == entry.fact["step"]
    yield same, f"the candidate was for ramp step {fact['step'] + 1}", (seq,)


def _of_approvals(
    world: World, strategy: Strategy, entry: Entry, asked: Told
) -> Iterator[Condition]:
    """n approvals are of n people: not the author, not the proposer, no two from one hand."""
    candidate = world.candidates.get(entry.fact["candidate_id"])
    if candidate is None:
        return
    barred = {candidate.entry.actor, strategy.bound.fact["author"]}
    hands = {
        a.seq: {a.actor, a.fact.get("sponsor") or a.actor} for a in candidate.approvals.values()
    }
    counted = [
        a.seq
        for a in candidate.approvals.values()
        if entry.at - a.at < span(asked["expires"]) and not hands[a.seq] & barred
    ]
    found = max(
        size
        for size in range(asked["min"] + 1)
        for some in combinations(counted, size)
        if all(not hands[one] & hands[other] for one, other in combinations(some, 2))
    )
    why = (
        f"it had {found} of {asked['min']} approvals that count: unexpired, of different people, "
        "none of the author or the proposer"
    )
    yield found >= asked["min"], why, (candidate.entry.seq, *sorted(hands))


def _of_run(strategy: Strategy, entry: Entry, policy: Told, version: int) -> Iterator[Condition]:
    step = entry.fact["step"]
    stage = "paper" if step == 0 else "live"
    run = strategy.runs.get(stage)
    if run is None:
        yield False, f"there was no {stage} run since it entered the phase", (strategy.moved,)
        return
    told, seqs = run.told, (run.seq,)
    verdict, named, judged = told["verdict"], told["run_id"], told["policy_version"]
    yield verdict == "pass", f"the verdict of its latest {stage} run was {verdict}", seqs
    yield judged == version, f"its latest {stage} run was judged by policy {judged}", seqs
    applied = entry.fact["run_id"]
    yield applied == named, f"it was applied for run {applied}; the latest was {named}", seqs
    window = policy["campaign"]["paper"]
    if step:
        window = {"span": policy["governance"]["ramp"][step]["observe"], "min_observations": 1}
    days, needed = told["observed_sec"] / 86_400, span(window["span"]) / timedelta(days=1)
    why = f"its {stage} window was {days:.4g} of {needed:.4g} days"
    yield days >= needed, why, seqs
    count, least = told["observations"], window["min_observations"]
    yield count >= least, f"it had {count} of {least} {stage} observations", seqs
    if policy["selection"] is not None:
        seq, chosen, by = strategy.selected or (None, False, version)
        fits = chosen and (step > 0 or by == version)
        yield fits, "the latest cohort had not selected it", _seqs(seq)


def _of_proof(world: World, strategy: Strategy, entry: Entry, policy: Told) -> Iterator[Condition]:
    """The e-value that the step asks for, worked out again from the returns."""
    if policy["evidence"] is None or policy["evidence"]["paper"]["method"] == "group_sequential":
        return
    step, top = entry.fact["step"], len(policy["governance"]["ramp"]) - 1
    others = [
        (evidence.e_value(other.proof, policy) or 0.0) * evidence.credit(other.proof, policy)
        for other in world.strategies.values()
        if other is not strategy and other.step == top
    ]
    proof = strategy.proof
    asked = evidence.threshold(proof, policy, step, campaigns(world), others)
    if asked is None:
        return
    found, seqs = evidence.e_value(proof, policy), (strategy.moved,)
    enough = found is not None and found >= asked * (1 - ROUNDING)
    yield enough, f"its e-value was {found}; the step asks for {asked:.6g}", seqs
    told = entry.fact.get("e_value")
    same = found is not None and told is not None and abs(told - found) <= ROUNDING * found
    yield same, f"its e-value was told as {told}; it was {found}", seqs


def _of_snapshot(strategy: Strategy, entry: Entry, risk: Told) -> Iterator[Condition]:
    stage = "paper" if entry.fact["step"] == 0 else "live"
    newest = strategy.covered.get(stage)
    if newest is None:
        yield False, f"no {stage} snapshot had the strategy", ()
        return
    seqs, age, relied = (newest.seq,), entry.at - newest.as_of, entry.fact["snapshot_seq"]
    why = f"it relied on the snapshot of entry {relied}; the newest {stage} one was another"
    yield relied == newest.seq, why, seqs
    yield age >= -SKEW, "the snapshot was from the future", seqs
    yield age <= newest.ttl, f"the snapshot had expired: {age} old, TTL {newest.ttl}", seqs
    most = risk["snapshot_max_age"]
    fresh = most is None or age <= span(most)
    yield fresh, f"the snapshot was stale: {age} old, at most {most}", seqs
    limit, loss = risk["max_stress_loss"], newest.stress
    why = f"its stress loss was {loss}, at most {limit}"
    yield limit is None or (loss is not None and loss <= limit), why, seqs


def _of_capital(world: World, entry: Entry, governance: Told) -> Iterator[Condition]:
    slots, most = governance["max_live_slots"], governance["max_live_weight"]
    given, fraction = entry.fact["weight"], governance["ramp"][entry.fact["step"]]["fraction"]
    due = fraction * most / slots
    why = f"its weight was {given:g}; the ramp gives {due:g}"
    yield abs(given - due) <= TOLERANCE, why, _seqs(world.default and world.default[0])
    others, seqs = {}, []
    for sid, strategy in world.strategies.items():
        running = [weight for weight, until in strategy.taken_back if entry.at < until]
        if sid == entry.fact["strategy_id"]:
            given = max(given, told(strategy.live), *running, 0.0)
        elif strategy.live is not None or running:
            applied = 0.0 if strategy.live is None else strategy.live.applied
            others[sid] = max(applied, *running, 0.0)
            seqs.append(strategy.moved if strategy.live is None else strategy.live.seq)
    with_leases = "with what clients may still act on"
    why = f"{len(others)} of {slots} live slots were taken, {with_leases}"
    yield len(others) < slots, why, tuple(seqs)
    total = sum(others.values()) + given
    why = f"live weight came to {total:.4g}, at most {most:g}, {with_leases}"
    yield total <= most + TOLERANCE, why, tuple(seqs)
    last = world.promoted
    if last is not None:
        since, cooldown = entry.at - last.at, span(governance["cooldown"])
        why = f"the last promotion was {since} before; the cooldown is {cooldown}"
        yield since >= cooldown, why, (last.seq,)
