"""What must be true of every view, whatever happened: for doctor, simulation and tests.

`check` answers with each violation in words, and nothing for a sound view.  It asks nothing of how
the view came about; `fold` and the gate are there to make these true, and this is how one sees it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from .columns import PHASES, VERDICTS, Bool, Columns, Int64, Standings, Track
from .leases import LEASE_TERM, reserved
from .names import SYSTEM, Phase, Stage, StrategyId, WorldState
from .policy import Governance, ManualApproval
from .snapshot import CLOCK_SKEW_MAX
from .times import NEVER, micros
from .view import (
    Activation,
    Applied,
    Approved,
    Candidate,
    Proposed,
    Rejected,
    Strategy,
    Void,
    WorldView,
)
from .windows import PHASE_OF, evidence_stage

WINDOWED = (Stage.PAPER, Stage.LIVE)  # The others are looked at as a whole.
WEIGHT_TOLERANCE = 1e-9  # Of sums and products that are not exact in binary.


def check(view: WorldView, now: datetime) -> tuple[str, ...]:
    """Every violation, in words, at the instant `now`; empty when the view is sound."""
    if violations := tuple(_rows(view)) or tuple(_words(view)):
        return violations  # Nothing else can be asked of rows that are not there, or say nothing.
    return (
        *_world(view, now),
        *_families(view),
        *_standings(view, now),
        *(said for stage in Stage for said in _track(view, stage, now)),
        *_live(view, now),
        *_outstanding(view, now),
        *(said for candidate in view.candidates.values() for said in _candidate(view, candidate)),
        *_current(view),
    )


def _rows(view: WorldView) -> Iterator[str]:
    """Strategies, their rows, and columns long enough for them."""
    count = len(view.strategies)
    if set(view.ids) != set(range(count)):
        yield f"ids: rows are not 0..{count - 1}"
    for sid, strategy in view.strategies.items():
        if strategy.strategy_id != sid or view.ids.get(strategy.row) != sid:
            yield f"{sid}: row {strategy.row} is not its own"
    tables: list[tuple[str, Columns]] = [("standings", view.standings), ("proof", view.proof)]
    tables += view.tracks.items()
    for name, columns in tables:
        lengths = {len(array) for array in columns.arrays().values()}
        if len(lengths) != 1 or min(lengths) < count:
            yield f"{name}: columns of {sorted(lengths)} rows for {count} strategies"
            continue
        beyond = columns.blank(min(lengths) - count).arrays()
        for column, array in columns.arrays().items():
            if array.flags.writeable:
                yield f"{name}.{column}: can be changed in place"
            if array[count:].tobytes() != beyond[column].tobytes():
                yield f"{name}.{column}: rows beyond the last strategy are not blank"
    for named, known in (
        ("blocked", view.blocked),
        ("current", view.current),
        ("live", view.live),
        ("outstanding", view.outstanding),
        ("runs", {sid for sid, _ in view.runs}),
        ("candidates", {c.strategy_id for c in view.candidates.values()}),
    ):
        for sid in known:
            if sid not in view.strategies:
                yield f"{named}: {sid} is not of this world"


def _words(view: WorldView) -> Iterator[str]:
    """What stands for a word stands for one that there is."""
    count = len(view.ids)
    phase = view.standings.phase[:count]
    yield from _failing(view, "standings", (((phase >= 0) & (phase < len(PHASES)), "no phase"),))
    for stage, track in view.tracks.items():
        verdict = track.verdict[:count]
        known = (verdict >= 0) & (verdict < len(VERDICTS))
        yield from _failing(view, stage, ((known, "no verdict"),))


def _world(view: WorldView, now: datetime) -> Iterator[str]:
    governed, evident = view.governance_generation, view.evidence_generation
    checks = (
        (min(view.seq, governed, evident) >= 0, "a generation is negative"),
        (governed + evident <= view.seq, "more generations than journal entries"),
        (set(view.policies) == set(range(1, len(view.policies) + 1)), "policy versions have gaps"),
        (all(v == p.version for v, p in view.policies.items()), "a policy version is misfiled"),
        (
            view.default_version is None or view.default_version in view.policies,
            f"the default policy version {view.default_version} does not exist",
        ),
        (
            view.promoted_at is None or view.promoted_at <= now,
            "the latest promotion is in the future",
        ),
        (
            all(k == c.confirmation_id for k, c in view.confirmations.items()),
            "a confirmation is misfiled",
        ),
        (
            view.world_id == SYSTEM or not (view.worlds or view.tokens or view.code),
            f"the list of worlds, tokens and programs are in {SYSTEM} only",
        ),
        (
            view.world_id != SYSTEM or not (view.strategies or view.policies),
            f"{SYSTEM} has no strategies and no policies",
        ),
    )
    yield from (told for holds, told in checks if not holds)


def _families(view: WorldView) -> Iterator[str]:
    """Versions follow one another, each of its own fingerprint, all by one author."""
    families: dict[StrategyId, list[Strategy]] = defaultdict(list)
    for strategy in sorted(view.strategies.values(), key=lambda strategy: strategy.version):
        families[strategy.family].append(strategy)
    for family_id, versions in families.items():
        first, later = versions[0], versions[1:]
        told = [strategy.fingerprint for strategy in versions]
        checks = (
            (first.strategy_id == family_id, "its first version has another name"),
            (
                [strategy.version for strategy in versions] == list(range(1, len(versions) + 1)),
                "its versions have gaps",
            ),
            (
                [strategy.previous for strategy in versions]
                == [None, *(strategy.strategy_id for strategy in versions[:-1])],
                "a version does not follow the one before it",
            ),
            (len(set(told)) == len(told), "two versions have one fingerprint"),
            (not later or None not in told, "there are versions of what has no fingerprint"),
            (all(s.author == first.author for s in later), "its versions have several authors"),
        )
        yield from (f"family {family_id}: {said}" for holds, said in checks if not holds)


Checks = tuple[tuple[Bool, str], ...]


def _failing(view: WorldView, what: str, checks: Checks) -> Iterator[str]:
    """Each check that some strategy fails, with those that do."""
    for holds, told in checks:
        if not holds.all():
            named = ", ".join(str(view.ids[int(row)]) for row in np.flatnonzero(~holds)[:5])
            yield f"{what}: {told}: {named}"


def _first(columns: Columns, count: int) -> Mapping[str, NDArray[np.generic]]:
    return {name: array[:count] for name, array in columns.arrays().items()}


def _standings(view: WorldView, now: datetime) -> Iterator[str]:
    count = len(view.ids)
    s = Standings.of(_first(view.standings, count))
    live = np.array([view.ids[row] in view.live for row in range(count)], np.bool_)
    paper_from = view.tracks[Stage.PAPER].window_from[:count]
    live_from = view.tracks[Stage.LIVE].window_from[:count]
    in_paper, in_live = (s.phase == PHASES.index(p) for p in (Phase.PAPER, Phase.LIVE))
    checks = (
        (live == in_live, "in the live phase if and only if in the live set"),
        (live == (s.step >= 0), "on the ramp if and only if live"),
        (live | (s.step_window_us == 0), "not live, and part of a live window is used up"),
        (s.step_window_us >= 0, "a negative window was used up"),
        (~(s.held & live), "held and live"),
        (s.extension_us >= 0, "a negative extension"),
        (
            (s.entered_at != NEVER) & (s.entered_at <= micros(now)),
            "entered its phase in the future",
        ),
        (~in_paper | (paper_from >= s.entered_at), "in paper, and its window began before it was"),
        (~in_live | (paper_from != NEVER), "in live, and never was in paper"),
        (~in_live | (live_from == s.entered_at), "in live, and its window began at another time"),
    )
    yield from _failing(view, "standings", checks)


def _track(view: WorldView, stage: Stage, now: datetime) -> Iterator[str]:
    count = len(view.ids)
    track = Track.of(_first(view.tracks[stage], count))
    latest = micros(now + CLOCK_SKEW_MAX)
    yield from _failing(view, stage, _series_checks(track, latest))
    yield from _failing(view, stage, _window_checks(track, stage in WINDOWED))
    yield from _failing(view, stage, _judged_checks(view, stage, track))
    covered = track.covered_seq > 0
    stress = track.stress_loss
    told = ~np.isnan(stress)
    checks = (
        (covered == (track.covered_as_of != NEVER), "a snapshot without its as_of"),
        (covered == (track.covered_ttl_us > 0), "a snapshot without a TTL"),
        (
            (track.covered_seq >= 0) & (track.covered_seq <= view.seq),
            "a snapshot not in the journal",
        ),
        (track.covered_as_of <= latest, "covered by a snapshot from the future"),
        (~told | ((stress >= 0) & (stress <= 1)), "a stress loss outside 0..1"),
        (~told | covered, "a stress loss without a snapshot"),
    )
    yield from _failing(view, stage, checks)


def _series_checks(track: Track, latest: int) -> Checks:
    none = track.points == 0
    return (
        (track.points >= 0, "fewer than no points"),
        (none == (track.first_t == NEVER), "a first time without points, or the reverse"),
        (none == (track.last_t == NEVER), "a last time without points, or the reverse"),
        (none == (track.digest == b""), "a digest without points, or the reverse"),
        (track.first_t <= track.last_t, "the last point is before the first"),
        (track.last_t <= latest, "a point from the future"),
    )


def _window_checks(track: Track, counts: bool) -> Checks:
    first, last = track.window_first_t, track.window_last_t
    points, none = track.window_points, track.window_points == 0
    span = np.where(none, 0, last - np.where(none, last, first))
    entered = track.window_from != NEVER
    equity, peak, drawdown = track.equity, track.peak, track.drawdown
    blank = (equity == 1.0) & (peak == 1.0) & (drawdown == 0.0)
    heard = entered & (track.last_t > track.window_from)  # Late points move equity, too.
    nowhere: Bool = ~entered if not counts else np.ones(len(points), np.bool_)
    return (
        (nowhere, "a window in a stage that has none"),
        ((points >= 0) & (points <= track.points), "more points in the window than there are"),
        (none == (first == NEVER), "a window's first time without points, or the reverse"),
        (none == (last == NEVER), "a window's last time without points, or the reverse"),
        (none | entered, "points in a window that was not entered"),
        (none | (first > track.window_from), "a window has points from before it began"),
        (first <= last, "a window ends before it begins"),
        (last <= track.last_t, "a window ends after its series"),
        ((track.window_us >= 0) & (track.window_us <= span), "a window longer than its points"),
        ((points > 1) | (track.window_us == 0), "a window has a length without two points"),
        (np.isfinite(equity) & (equity >= 0), "equity is not a number, or negative"),
        (np.isfinite(peak) & (peak >= 1) & (peak >= equity), "peak is not the peak"),
        ((drawdown >= 0) & (drawdown <= 1), "a drawdown outside 0..1"),
        (drawdown >= 1 - equity / np.maximum(peak, 1) - WEIGHT_TOLERANCE, "a drawdown forgotten"),
        (heard | blank, "equity moved without points"),
    )


def _judged_checks(view: WorldView, stage: Stage, track: Track) -> Checks:
    judged, versions = track.verdict > 0, len(view.policies)
    now = judged & (track.judged_digest == track.digest)
    latest = [view.runs.get((view.ids[row], stage)) for row in range(len(judged))]
    recorded = [0 if run is None else VERDICTS.index(run.verdict) for run in latest]
    named: NDArray[np.int64] = np.array(recorded, np.int64)
    t: Int64 = track.judged_t
    return (
        (judged == (track.judged_policy > 0), "a verdict without a policy, or the reverse"),
        (track.judged_policy <= versions, "judged by a policy that does not exist"),
        (judged | (track.judged_digest == b""), "a digest was judged without a verdict"),
        (judged | (t == NEVER), "a point was judged without a verdict"),
        (t <= track.last_t, "a point was judged that is not there"),
        (~now | (t == track.last_t), "what was judged ends elsewhere than what is held"),
        (~judged | (track.verdict == named), "the verdict is not that of the latest run"),
    )


def _live(view: WorldView, now: datetime) -> Iterator[str]:
    """INVARIANT (I1): money is live only where the world allows it, and as it was cleared."""
    if not view.live:
        return
    checks = (
        (view.allow_live, "the world does not allow live"),
        (not view.killed, "the world was killed"),
        (view.state is WorldState.ACTIVE, f"the world is {view.state}"),
        (view.default_version is not None, "the world has no policy"),
        (view.promoted_at is not None, "nobody was ever promoted"),
    )
    yield from (f"live: {told}" for holds, told in checks if not holds)
    newest: tuple[int, Governance, datetime] | None = None
    for sid, held in view.live.items():
        candidate = view.candidates.get(held.candidate_id)
        if held.strategy_id != sid or candidate is None or candidate.strategy_id != sid:
            yield f"live: {sid} is live by no candidate of its own"
            continue
        if not isinstance(candidate.standing, Applied):
            yield f"live: {sid} is live by a candidate that is not applied"
            continue
        governance = view.policies[candidate.policy_version].policy.governance
        yield from _activation(view, held, candidate, governance, now)
        if newest is None or candidate.standing.seq > newest[0]:
            newest = (candidate.standing.seq, governance, candidate.standing.at)
    if newest is None:
        return
    # Since the newest promotion the live set only shrank: what held then holds now.
    limits, total = newest[1], sum(a.applied_weight for a in view.live.values())
    if not total <= limits.max_live_weight + WEIGHT_TOLERANCE:
        yield f"live: weights sum to {total:g}, at most {limits.max_live_weight:g}"
    if len(view.live) > limits.max_live_slots:
        yield f"live: {len(view.live)} strategies in {limits.max_live_slots} slots"
    if newest[2] != view.promoted_at:
        return  # Whoever was promoted last is gone: under which limits, no view tells.
    capital = reserved(view, now)
    if not sum(capital.values()) <= limits.max_live_weight + WEIGHT_TOLERANCE:
        yield f"live: with what was taken back weights sum to {sum(capital.values()):g}"
    if len(capital) > limits.max_live_slots:
        yield f"live: with what was taken back {len(capital)} strategies have slots"


def _outstanding(view: WorldView, now: datetime) -> Iterator[str]:
    for sid, lease in view.outstanding.items():
        checks = (
            (lease.weight > 0.0, "it is of no weight"),
            (lease.until <= now + LEASE_TERM, "it lasts longer than any lease"),
            (0 < lease.sequence <= view.governance_generation, "its sequence was never issued"),
        )
        yield from (f"taken back: {sid}: {told}" for holds, told in checks if not holds)


def _activation(
    view: WorldView, held: Activation, candidate: Candidate, rules: Governance, now: datetime
) -> Iterator[str]:
    sid, ramp = held.strategy_id, rules.ramp
    within = 0 <= held.step < len(ramp)
    cleared = ramp[held.step].fraction * rules.allocation if within else 0.0
    row, generation = view.strategies[sid].row, view.governance_generation
    checks = (
        (within, f"step {held.step} of a ramp of {len(ramp)}"),
        (held.step == candidate.step, "at another step than its candidate"),
        (held.step == int(view.standings.step[row]), "at another step than its standing"),
        (0.0 <= held.weight <= held.applied_weight, "its weight is not within what was applied"),
        (
            abs(held.applied_weight - cleared) <= WEIGHT_TOLERANCE,
            f"a weight of {held.applied_weight:g} was applied, and {cleared:g} cleared",
        ),
        (0 < held.sequence <= generation, "its sequence was never issued"),
        (0 <= held.acknowledged <= generation, "a sequence was acknowledged that was never issued"),
        (held.at <= now, "activated in the future"),
    )
    yield from (f"live: {sid}: {told}" for holds, told in checks if not holds)


def _candidate(view: WorldView, candidate: Candidate) -> Iterator[str]:
    """One candidate by itself: it can be, and its approvals say where it stands."""
    cid, sid = candidate.candidate_id, candidate.strategy_id
    version = view.policies.get(candidate.policy_version)
    if view.candidates.get(cid) is not candidate or version is None:
        yield f"candidate {cid}: it is misfiled, or of a policy that does not exist"
        return
    governance = version.policy.governance
    promotion, given = governance.live_promotion, candidate.approvals
    needed = promotion.min if isinstance(promotion, ManualApproval) else 0
    people = [approval.by for approval in given]
    standing = candidate.standing
    checks = (
        (0 <= candidate.step < len(governance.ramp), f"step {candidate.step} is not on the ramp"),
        (len(set(people)) == len(people), "somebody approved it twice"),
        (candidate.proposer not in people, "its proposer approved it"),
        (view.strategies[sid].author not in people, "the author approved it"),
        (not given or needed > 0, "approved where nobody approves"),
        (
            not isinstance(standing, Approved) or 0 < needed <= len(given),
            "it is approved without the approvals it needs",
        ),
        (
            not isinstance(standing, Proposed) or len(given) < max(needed, 1),
            "it has the approvals it needs, and is not approved",
        ),
        (
            isinstance(standing, Void) != (cid in view.current.get(sid, ())),
            "it is current and void, or neither",
        ),
        (
            not isinstance(standing, Applied) or 0 < standing.seq <= view.seq,
            "it was applied by an entry that is not in the journal",
        ),
    )
    yield from (f"candidate {cid}: {told}" for holds, told in checks if not holds)


def _current(view: WorldView) -> Iterator[str]:
    """The candidates of each strategy together."""
    for sid in {*view.current, *view.live}:
        candidate_ids = view.current.get(sid, ())
        mine = [view.candidates[cid] for cid in candidate_ids if cid in view.candidates]
        if len(mine) != len(candidate_ids) or len(set(candidate_ids)) != len(candidate_ids):
            yield f"current: {sid} names a candidate twice, or one that does not exist"
        if any(candidate.strategy_id != sid for candidate in mine):
            yield f"current: {sid} names a candidate of another strategy"
        applied = [c.step for c in mine if isinstance(c.standing, Applied)]
        held = view.live.get(sid)
        if (held is not None) != bool(applied):
            yield f"current: {sid} is live without an applied candidate, or the reverse"
        if held is not None and held.step != max(applied, default=-1):
            yield f"current: {sid} is live at another step than was applied last"
        waiting = [c for c in mine if not isinstance(c.standing, Applied)]
        if len(waiting) > 1:
            yield f"current: {sid} has {len(waiting)} open candidates"
        row = view.strategies[sid].row
        for candidate in waiting:
            if isinstance(candidate.standing, Rejected):
                continue  # It stands whatever changes around it, until it is released.
            checks = (
                (candidate.policy_version == view.default_version, "another policy is in force"),
                (candidate.step == int(view.standings.step[row]) + 1, "it is not one step up"),
                (
                    view.phase(row) is PHASE_OF[evidence_stage(candidate.step)],
                    f"the strategy is in {view.phase(row)}",
                ),
            )
            yield from (
                f"candidate {candidate.candidate_id} is open, and {told}"
                for holds, told in checks
                if not holds
            )
