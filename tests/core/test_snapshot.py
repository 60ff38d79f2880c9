"""Snapshots: what is refused, what is new in what is posted, and how long one is fresh."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.core.columns import Float, Int64
from qmtl.core.errors import Conflict, Invalid, Refusal, UnknownStrategy
from qmtl.core.names import Digest, Reason, Stage, StrategyId
from qmtl.core.policy import Policy
from qmtl.core.series import EMPTY, Series
from qmtl.core.snapshot import (
    CLOCK_SKEW_MAX,
    RETURN_MAX,
    SERIES_POINTS_MAX,
    TTL_SEC_MAX,
    Fresh,
    NotFresh,
    PostedSeries,
    RiskSnapshot,
    freshness,
    new_points,
    restate,
    store,
)
from qmtl.core.times import NEVER, instant, micros
from qmtl.sim.scene import DAY, START, daily
from tests.worlds import ALPHA, MINUTE, NOW, POLICY, good, ready

US = timedelta(microseconds=1)
NAN, INF = float("nan"), float("inf")
R = Reason
OMEGA = StrategyId("omega")


def posted(**changes: Any) -> RiskSnapshot:
    """A snapshot that is accepted, with one thing changed."""
    snapshot = RiskSnapshot(
        version="s",
        stage=Stage.PAPER,
        as_of=NOW,
        ttl_sec=900,
        content=Digest("c"),
        weights={ALPHA: 1.0},
        returns={ALPHA: timed([NOW], [0.01])},
        covariance={f"{ALPHA},{ALPHA}": 0.1},
        stress={ALPHA: {"crash": 0.2}},
        stats={ALPHA: {"trades_total": 3.0}},
        extra={},
    )
    return replace(snapshot, **changes)


def timed(times: list[datetime], r: list[float]) -> PostedSeries:
    return PostedSeries(np.array([micros(t) for t in times], np.int64), np.array(r, np.float64))


def listed(*r: float) -> PostedSeries:
    return PostedSeries(None, np.array(r, np.float64))


def nobody(_: StrategyId) -> Series:
    raise AssertionError("what is held is read only when the posted series reaches back into it")


# ---- What is refused ---------------------------------------------------------------------------

MANY: Float = np.zeros(SERIES_POINTS_MAX + 1)
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("in the future", {"as_of": NOW + CLOCK_SKEW_MAX + US}, "as_of"),
    ("no TTL", {"ttl_sec": 0}, "ttl_sec"),
    ("a long TTL", {"ttl_sec": TTL_SEC_MAX + 1}, "ttl_sec"),
    ("weights too light", {"weights": {ALPHA: 0.9989}}, "weights"),
    ("weights too heavy", {"weights": {ALPHA: 1.0011}}, "weights"),
    ("weights of nobody", {"weights": {}}, "weights"),
    ("a weight that is none", {"weights": {ALPHA: NAN}}, "weights"),
    ("a weight without end", {"weights": {ALPHA: INF}}, "weights"),
    ("stress below nothing", {"stress": {ALPHA: {"crash": -0.1}}}, "stress.alpha.crash"),
    ("stress beyond all", {"stress": {ALPHA: {"crash": 1.1}}}, "stress.alpha.crash"),
    ("stress that is none", {"stress": {ALPHA: {"crash": NAN}}}, "stress.alpha.crash"),
    ("stats that are none", {"stats": {ALPHA: {"trades_total": NAN}}}, "stats.alpha.trades_total"),
    ("stats without end", {"stats": {ALPHA: {"trades_total": INF}}}, "stats.alpha.trades_total"),
    ("covariance that is none", {"covariance": {"alpha,alpha": NAN}}, "covariance.alpha,alpha"),
    ("covariance without end", {"covariance": {"alpha,alpha": -INF}}, "covariance.alpha,alpha"),
    ("no returns", {"returns": {ALPHA: listed()}}, "realized_returns.alpha"),
    ("too many", {"returns": {ALPHA: PostedSeries(None, MANY)}}, "realized_returns.alpha"),
    ("a return that is none", {"returns": {ALPHA: listed(NAN)}}, "NaN"),
    ("a return without end", {"returns": {ALPHA: listed(INF)}}, "infinite"),
    ("more than all lost", {"returns": {ALPHA: listed(-1.0000001)}}, "more than 100 %"),
    ("a slip of the unit", {"returns": {ALPHA: listed(RETURN_MAX + 1)}}, "is more than"),
    ("times too few", {"returns": {ALPHA: timed([NOW], [0.1, 0.1])}}, "times for"),
    ("times that stand", {"returns": {ALPHA: timed([NOW, NOW], [0.1, 0.1])}}, "increase"),
    ("times that go back", {"returns": {ALPHA: timed([NOW, START], [0.1, 0.1])}}, "increase"),
    ("times after as_of", {"returns": {ALPHA: timed([NOW + US], [0.1])}}, "after as_of"),
]


@pytest.mark.parametrize(("what", "changes", "told"), REFUSED, ids=[r[0] for r in REFUSED])
def test_what_is_wrong_with_a_snapshot_is_told(
    what: str, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(Invalid, match=told.replace(".", r"\.")):
        store(ready(), posted(**changes), nobody, NOW)


ACCEPTED: list[dict[str, Any]] = [
    {},
    {"as_of": NOW + CLOCK_SKEW_MAX},
    {"ttl_sec": 1},
    {"ttl_sec": TTL_SEC_MAX},
    {"weights": {ALPHA: 0.9991}},
    {"weights": {ALPHA: 1.0009}},
    {"stress": {ALPHA: {"crash": 0.0, "rates": 1.0}}},
    {"stress": None, "covariance": None, "stats": None},
    {"returns": {ALPHA: timed([NOW], [-1.0])}},
    {"returns": {ALPHA: timed([NOW], [RETURN_MAX])}},
    {"returns": {}},
]


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_what_is_just_right_is_stored(changes: dict[str, Any]) -> None:
    fact = store(ready(), posted(**changes), nobody, NOW)
    assert fact.version == "s"
    assert fact.covered == tuple(posted(**changes).returns)


def test_every_problem_is_told_not_only_the_first() -> None:
    bad = posted(ttl_sec=0, weights={}, as_of=NOW + DAY, returns={ALPHA: listed(NAN)})
    with pytest.raises(Invalid) as refused:
        store(ready(), bad, nobody, NOW)
    for word in ("ttl_sec", "weights", "as_of", "realized_returns"):
        assert word in str(refused.value)


@pytest.mark.parametrize("where", ["weights", "returns", "stress", "stats"])
def test_a_stranger_is_unknown_wherever_it_is_named(where: str) -> None:
    there: dict[str, Any] = {
        "weights": {ALPHA: 0.5, OMEGA: 0.5},
        "returns": {OMEGA: listed(0.1)},
        "stress": {OMEGA: {"crash": 0.1}},
        "stats": {OMEGA: {"trades_total": 1.0}},
    }
    with pytest.raises(UnknownStrategy, match="omega"):
        store(ready(), posted(**{where: there[where]}), nobody, NOW)


# ---- What is new -------------------------------------------------------------------------------

HELD = Series(np.array([10, 20, 30]), np.array([0.1, 0.2, 0.3]), np.ones(3, np.bool_))
AS_OF = instant(100)
BAR = 10 * US


def fresh(series: PostedSeries, held: Series = HELD, as_of: datetime = AS_OF) -> list[Any]:
    last = int(held.t[-1]) if len(held.t) else NEVER
    t, r = new_points(ALPHA, series, as_of, last, lambda: held, BAR)
    assert t.dtype == np.int64
    return list(zip(t.tolist(), r.tolist(), strict=True))


def at(t: list[int], r: list[float]) -> PostedSeries:
    return PostedSeries(np.array(t, np.int64), np.array(r, np.float64))


@pytest.mark.parametrize(
    ("what", "series", "new"),
    [
        ("beyond", at([40, 50], [0.4, 0.5]), [(40, 0.4), (50, 0.5)]),
        ("all and more", at([10, 20, 30, 40], [0.1, 0.2, 0.3, 0.4]), [(40, 0.4)]),
        ("the end and more", at([30, 40], [0.3, 0.4]), [(40, 0.4)]),
        ("all again", at([10, 20, 30], [0.1, 0.2, 0.3]), []),
        ("the middle", at([20], [0.2]), []),
        ("the beginning", at([10, 20], [0.1, 0.2]), []),
        ("the end", at([20, 30], [0.2, 0.3]), []),
    ],
)
def test_only_what_goes_beyond_is_new(what: str, series: PostedSeries, new: list[Any]) -> None:
    assert fresh(series) == new, what


@pytest.mark.parametrize(
    ("what", "series"),
    [
        ("another return", at([20, 30], [0.2, 0.30001])),
        ("another time", at([20, 31], [0.2, 0.3])),
        ("one left out", at([10, 30, 40], [0.1, 0.3, 0.4])),
        ("one put between", at([10, 15, 20, 30], [0.1, 0.0, 0.2, 0.3])),
        ("one before all", at([5, 10, 20, 30], [0.0, 0.1, 0.2, 0.3])),
        ("only one before all", at([5], [0.0])),
        ("only one between", at([15], [0.0])),
        ("the last left out", at([10, 20, 40], [0.1, 0.2, 0.4])),
    ],
)
def test_history_that_differs_is_refused(what: str, series: PostedSeries) -> None:
    with pytest.raises(Conflict) as refused:
        fresh(series)
    assert refused.value.reasons == (R.EVIDENCE_CHANGED,), what


def test_what_is_held_is_not_read_for_what_goes_beyond() -> None:
    def held() -> Series:
        raise AssertionError("not read")

    assert len(new_points(ALPHA, at([40], [0.4]), AS_OF, 30, held, BAR)[0]) == 1
    assert len(new_points(ALPHA, listed(0.4), AS_OF, NEVER, held, BAR)[0]) == 1


@pytest.mark.parametrize(
    ("what", "r", "new"),
    [
        ("all again", [0.1, 0.2, 0.3], []),
        ("a prefix", [0.1], []),
        ("one more", [0.1, 0.2, 0.3, 0.4], [(100, 0.4)]),
        ("two more", [0.1, 0.2, 0.3, 0.4, 0.5], [(90, 0.4), (100, 0.5)]),
    ],
)
def test_a_list_is_stamped_back_from_as_of(what: str, r: list[float], new: list[Any]) -> None:
    assert fresh(listed(*r)) == new, what


def test_a_first_list_is_stamped_back_however_far() -> None:
    assert fresh(listed(0.1, 0.2), EMPTY) == [(90, 0.1), (100, 0.2)]


def test_a_list_never_reaches_back_into_what_is_held() -> None:
    twelve = [0.1, 0.2, 0.3] + [0.5] * 12
    times = [t for t, _ in fresh(listed(*twelve))]
    assert times[-1] == 100
    assert times[0] > 30
    assert np.diff(times).tolist() == [5] * 11  # 70 microseconds for 12 of them.


@pytest.mark.parametrize(
    ("what", "r", "as_of"),
    [
        ("another past", [0.1, 0.2, 0.31, 0.4], 100),
        ("another past, shorter", [0.2], 100),
        ("no time has passed", [0.1, 0.2, 0.3, 0.4], 30),
        ("time went back", [0.1, 0.2, 0.3, 0.4], 20),
        ("more points than microseconds", [0.1, 0.2, 0.3, 0.4, 0.5], 31),
    ],
)
def test_a_list_that_cannot_be_is_refused(what: str, r: list[float], as_of: int) -> None:
    with pytest.raises(Conflict):
        fresh(listed(*r), as_of=instant(as_of))


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=8),
    st.integers(0, 8),
    st.integers(0, 8),
    st.integers(0, 8),
)
def test_any_piece_of_one_history_agrees_with_any_other(
    gaps: list[int], held_to: int, start: int, stop: int
) -> None:
    t: Int64 = np.cumsum(np.array(gaps, np.int64))
    r = t / 1000.0
    held = Series(t[:held_to], r[:held_to], np.ones(len(t[:held_to]), np.bool_))
    piece = PostedSeries(t[start:stop], r[start:stop])
    if not len(piece.r) or start > len(held.t):
        return  # Nothing posted, or a hole: that is another series.
    found = fresh(piece, held, instant(int(t[-1])))
    assert [time for time, _ in found] == t[max(start, held_to) : max(stop, held_to)].tolist()


def test_a_stored_snapshot_carries_new_points_only() -> None:
    view = ready()
    paper = daily(good(12), START + 12 * DAY)
    more = PostedSeries(np.append(paper.t, micros(NOW)), np.append(paper.r, 0.5))  # type: ignore[arg-type]  # It has times.
    held = Series(paper.t, paper.r, np.ones(12, np.bool_))  # type: ignore[arg-type]  # It has times.
    fact = store(view, posted(returns={ALPHA: more}), lambda _: held, NOW)
    assert fact.points.strategies == (ALPHA,)
    assert fact.points.times().tolist() == [micros(NOW)]
    assert fact.points.returns().tolist() == [0.5]
    same = store(view, posted(returns={ALPHA: paper}), lambda _: held, NOW)
    assert same.points.strategies == ()
    assert same.covered == (ALPHA,)


# ---- Restatement -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sid", "series", "error"),
    [
        (OMEGA, at([1], [0.1]), UnknownStrategy),
        (ALPHA, listed(0.1), Invalid),
        (ALPHA, at([], []), Invalid),
        (ALPHA, at([1], [NAN]), Invalid),
        (ALPHA, at([2, 1], [0.1, 0.1]), Invalid),
        (ALPHA, timed([NOW + CLOCK_SKEW_MAX + US], [0.1]), Invalid),
    ],
)
def test_a_restatement_is_checked_like_a_snapshot(
    sid: StrategyId, series: PostedSeries, error: type[Refusal]
) -> None:
    with pytest.raises(error):
        restate(ready(), Stage.PAPER, sid, series, "why", NOW)


def test_a_restatement_carries_all_of_it() -> None:
    fact = restate(ready(), Stage.PAPER, ALPHA, at([1, 2], [0.1, 0.2]), "why", NOW)
    assert (fact.points.counts, fact.points.times().tolist()) == ((2,), [1, 2])


# ---- Freshness ---------------------------------------------------------------------------------

TAKEN = micros(START)
TTL_US = 900_000_000


def told(age: timedelta, policy: Policy = POLICY, as_of: int = TAKEN) -> Reason | None:
    track = {"covered_as_of": as_of, "covered_seq": 7, "covered_ttl_us": TTL_US}
    found = freshness(ready(track=track), 0, Stage.PAPER, policy, START + age)
    match found:
        case Fresh(seq):
            assert seq == 7
            return None
        case NotFresh(reason, detail):
            assert detail
            return reason


TTL = timedelta(seconds=900)
AGED = replace(POLICY, risk=replace(POLICY.risk, snapshot_max_age=MINUTE))
LONG = replace(POLICY, risk=replace(POLICY.risk, snapshot_max_age=DAY))


@pytest.mark.parametrize(
    ("age", "policy", "reason"),
    [
        (timedelta(0), POLICY, None),
        (TTL, POLICY, None),
        (TTL + US, POLICY, R.RISK_SNAPSHOT_EXPIRED),
        (-CLOCK_SKEW_MAX, POLICY, None),
        (-CLOCK_SKEW_MAX - US, POLICY, R.RISK_SNAPSHOT_STALE),
        (MINUTE, AGED, None),
        (MINUTE + US, AGED, R.RISK_SNAPSHOT_STALE),
        (TTL + US, AGED, R.RISK_SNAPSHOT_EXPIRED),
        (TTL, LONG, None),
        (TTL + US, LONG, R.RISK_SNAPSHOT_EXPIRED),  # A policy makes no snapshot last longer.
    ],
)
def test_a_snapshot_is_fresh_to_the_microsecond(
    age: timedelta, policy: Policy, reason: Reason | None
) -> None:
    assert told(age, policy) is reason


def test_no_snapshot_is_missing() -> None:
    assert told(timedelta(0), as_of=NEVER) is R.RISK_SNAPSHOT_MISSING
