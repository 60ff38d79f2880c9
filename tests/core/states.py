"""Every state a strategy can be in, one row each: how it comes about, and what is then said."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
from immutables import Map

from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.policies import checksum
from qmtl.app.explanations import explanation
from qmtl.core.activation import Change
from qmtl.core.columns import PHASES
from qmtl.core.explain import Explanation, explain
from qmtl.core.names import (
    Phase,
    Reason,
    Stage,
    StrategyId,
    Verdict,
    WorldState,
)
from qmtl.core.policy import (
    STANDARD_RAMP,
    AutoApply,
    Bound,
    Disabled,
    Evidence,
    Freeze,
    Gates,
    OnMissing,
    Policy,
    Window,
)
from qmtl.core.promotion import Dossier
from qmtl.core.snapshot import PostedSeries
from qmtl.core.times import micros
from qmtl.core.view import Confirmation, Outstanding, Rejected, WorldView
from qmtl.sim import cast
from qmtl.sim.scene import DAY, START, Scene, daily
from tests.worlds import (
    ALPHA,
    AUTO,
    BETA,
    DOSSIER,
    GAMMA,
    LATER,
    LONELY,
    MINUTE,
    NOW,
    POLICY,
    beside,
    climbed,
    climbing,
    good,
    governed,
    in_paper,
    live,
    observe,
    observed,
    open_candidate,
    opened,
    proposed,
    ready,
)

R = Reason
HOUR = timedelta(hours=1)
State = tuple[WorldView, datetime, Dossier]
Made = Callable[[], Explanation]


def of(scene: Scene) -> Explanation:
    """As the server would say it."""
    return explanation(scene.store, scene.view, ALPHA, scene.now)


def said_of(view: WorldView, now: datetime = NOW, dossier: Dossier = DOSSIER) -> Explanation:
    return explain(view, ALPHA, dossier, now)


@dataclass(frozen=True)
class Row:
    what: str
    made: Made
    said: tuple[str, ...]  # Each in one sentence or another,
    reasons: tuple[Reason, ...]  # and just these are waited for.
    dates: dict[Reason, datetime]

    @property
    def told(self) -> Explanation:
        return _told(self.made)


@cache
def _told(made: Made) -> Explanation:
    return made()


def row(
    what: str, made: Made, *said: str, waits: tuple[Reason, ...] = (), **dates: datetime
) -> Row:
    return Row(what, made, said, waits, {Reason(reason): at for reason, at in dates.items()})


def taken_back(weight: float, *sids: StrategyId) -> Map[StrategyId, Outstanding]:
    """From beta, or from each of these, an hour longer than from the one before."""
    ends = enumerate(sids or (BETA,), 1)
    return Map(
        {sid: Outstanding(weight=weight, until=NOW + i * HOUR, sequence=1) for i, sid in ends}
    )


# ---- How each comes about ----------------------------------------------------------------------


def blank() -> Scene:
    scene = Scene(MemoryStore())
    scene.create()
    scene.bind(ALPHA)
    return scene


def bound(policy: Policy = POLICY) -> Scene:
    scene = opened(MemoryStore(), policy)
    scene.bind(ALPHA)
    return scene


def submitted(r: Any, policy: Policy = POLICY, **more: Any) -> Scene:
    scene = opened(MemoryStore(), policy)
    scene.submit(ALPHA, r, **more)
    return scene


def gated(stage: Stage, *bounds: Bound, on_missing: OnMissing = OnMissing.FAIL) -> Policy:
    by_stage = {**POLICY.gates.by_stage, stage: bounds}
    return replace(LONELY, gates=Gates(by_stage=by_stage, on_missing=on_missing))


def after(scene: Scene, *acts: Callable[[Scene], object]) -> Scene:
    for act in acts:
        act(scene)
    return scene


def unjudged_backtest() -> Scene:
    scene = bound()
    scene.post(Stage.BACKTEST, {ALPHA: daily(good(30), START - DAY)}, START - DAY)
    return scene


def another_policy(scene: Scene, policy: Policy) -> None:
    scene.add_policy(policy, checksum(policy))
    scene.set_default(2)


def stricter() -> Policy:
    window = Window(span=40 * DAY, min_observations=30)
    return replace(LONELY, campaign=replace(LONELY.campaign, paper=window))


def held_backtest() -> Scene:
    return after(bound(), lambda s: s.demote(ALPHA), lambda s: s.submit(ALPHA, good(30)))


def watched(days: int, policy: Policy = LONELY) -> Scene:
    scene = in_paper(MemoryStore(), policy)
    observe(scene, Stage.PAPER, days)
    return scene


def late(policy: Policy = LONELY) -> Scene:
    """Two good days, and then a return that came six days late."""
    scene = watched(2, policy)
    scene.wait(8 * DAY)
    scene.bar(Stage.PAPER, {ALPHA: 0.01}, at=scene.now - 6 * DAY)
    return scene


def dense() -> Scene:
    scene = in_paper(MemoryStore(), LONELY)
    observe(scene, Stage.PAPER, 12)
    scene.wait(HOUR)
    seconds = np.arange(1_999, -1, -1, dtype=np.int64) * 1_000_000
    series = PostedSeries(micros(scene.now) - seconds, np.full(2_000, 1e-5))
    scene.post(Stage.PAPER, {ALPHA: series})
    return scene


def losing(days: int = 12) -> Scene:
    scene = in_paper(MemoryStore(), LONELY)
    for number in range(days):
        scene.wait(DAY)
        scene.bar(Stage.PAPER, {ALPHA: -0.001 - 0.001 * (number % 2)})
    scene.evaluate(ALPHA)
    return scene


def crashed() -> Scene:
    return after(
        live(MemoryStore(), LONELY),
        lambda s: s.wait(DAY),
        lambda s: s.bar(Stage.LIVE, {ALPHA: -0.172}),
    )


def lost_in_a_bar() -> Scene:
    return after(
        live(MemoryStore(), gated(Stage.LIVE, Bound(metric="max_bar_loss", max=0.05))),
        lambda s: s.wait(DAY),
        lambda s: s.bar(Stage.LIVE, {ALPHA: -0.06}),
    )


def failed_live() -> Scene:
    policy = gated(Stage.LIVE, Bound(metric="volatility", max=0.001))
    scene = live(MemoryStore(), policy)
    observe(scene, Stage.LIVE, 3)
    scene.evaluate(ALPHA)
    return scene


def expired() -> Scene:
    paper = Window(span=50 * DAY, min_observations=8, max_window=3 * DAY)
    scene = watched(5, replace(LONELY, campaign=replace(LONELY.campaign, paper=paper)))
    scene.evaluate(ALPHA)
    return scene


def asked(what: Any) -> Map[str, Confirmation]:
    waiting = Confirmation(
        confirmation_id="k", what=what, policy_version=None, by=cast.POLLY, at=NOW
    )
    return Map({"k": waiting})


def activation(**changes: Any) -> WorldView:
    view = climbing()
    return replace(view, live=view.live.set(ALPHA, replace(view.live[ALPHA], **changes)))


def expired_approvals() -> WorldView:
    old = NOW - timedelta(hours=72)
    approvals = tuple(replace(a, at=old) for a in open_candidate(ready()).approvals)
    return ready(candidate={"approvals": approvals})


TOP = climbing(standing={"step": 1})
FILLING = (R.PAPER_WINDOW_INCOMPLETE, R.OBSERVATIONS_INSUFFICIENT)
FROZEN = governed(freeze=(Freeze(cron="0 0 * * *", length=HOUR),))
ENDLESS = governed(freeze=(Freeze(cron="0 * * * *", length=2 * HOUR),))
DISABLED = governed(live_promotion=Disabled())
EVIDENT = replace(
    POLICY,
    evidence=Evidence(),
    governance=replace(POLICY.governance, ramp=STANDARD_RAMP),
)
TIGHT = replace(POLICY.risk, snapshot_max_age=MINUTE)
FAILS = Dossier(
    verdict=Verdict.FAIL,
    problems=((R.VALIDATION_FAILED, "live max_drawdown must be at most 0.15: it is 0.16"),),
)


def on(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)


BACKTEST_ROWS = [
    row(
        "no policy",
        lambda: of(blank()),
        "alpha is in backtest since 2026-01-05.",
        "The world has no policy yet, so nothing is judged and nothing moves.",
        waits=(R.POLICY_MISSING,),
    ),
    row(
        "bound, and nothing submitted",
        lambda: of(bound()),
        "It may compute only, and trades nothing: it has not passed its backtest.",
        "No backtest has been submitted",
        "Then it goes on paper, and is watched for 10.0 days and 8 observations.",
        waits=(R.BACKTEST_RUN_MISSING,),
    ),
    row(
        "a backtest that is too short",
        lambda: of(submitted(good(15))),
        "Backtest window: 14.0 of 20.0 days observed; submit a longer backtest.",
        "Backtest observations: 15 of 20; submit a longer backtest.",
        waits=(R.BACKTEST_WINDOW_INCOMPLETE, R.OBSERVATIONS_INSUFFICIENT),
    ),
    row(
        "a backtest that fails a gate",
        lambda: of(submitted(-good(30))),
        "Backtest sharpe_annual must be at least 0.5: it is -",
        waits=(R.VALIDATION_FAILED,),
    ),
    row(
        "a metric that nobody told",
        lambda: of(
            submitted(good(30), gated(Stage.BACKTEST, Bound(metric="trades_total", min=30)))
        ),
        "Backtest trades_total must be at least 30: nobody reported it.",
        waits=(R.METRIC_MISSING,),
    ),
    row(
        "a metric that has no value",
        lambda: of(
            submitted(np.full(30, 0.01), gated(Stage.BACKTEST, Bound(metric="sortino", min=1)))
        ),
        "Backtest sortino must be at least 1: undefined (no loss).",
        waits=(R.METRIC_MISSING,),
    ),
    row(
        "a backtest that nobody has judged",
        lambda: of(unjudged_backtest()),
        "Its backtest returns have not been judged yet: it waits until the campaign loop judges "
        "them.",
        waits=(R.EVALUATION_DUE,),
    ),
    row(
        "another policy since it was judged",
        lambda: of(after(submitted(-good(30)), lambda s: another_policy(s, AUTO))),
        "The policy in force has not judged its backtest returns yet",
        waits=(R.VALIDATION_FAILED, R.EVALUATION_DUE),
    ),
    row(
        "held in backtest, which passed",
        lambda: of(held_backtest()),
        "An operator took it down by hand, and holds it until an operator releases it.",
        waits=(R.HELD,),
    ),
    row(
        "released, and about to move",
        lambda: of(after(held_backtest(), lambda s: s.release(ALPHA))),
        "Its backtest run is to be looked at again: it waits until the campaign loop judges it.",
        waits=(R.EVALUATION_DUE,),
    ),
    row(
        "in backtest, and the world is suspended",
        lambda: of(after(bound(), lambda s: s.change_state(WorldState.SUSPENDED))),
        "trades nothing: the world is suspended.",
        "The world is suspended: nothing moves until an operator makes it active again.",
        waits=(R.WORLD_SUSPENDED, R.BACKTEST_RUN_MISSING),
    ),
    row(
        "in backtest, and the world was killed",
        lambda: of(after(bound(), lambda s: s.kill())),
        "it has not passed its backtest and the world was killed.",
        waits=(R.BACKTEST_RUN_MISSING,),
    ),
    row(
        "in backtest again, since it was restated while it was live",
        lambda: of(
            after(
                live(MemoryStore(), LONELY),
                lambda s: s.wait(DAY),
                lambda s: s.restate(Stage.BACKTEST, ALPHA, daily(good(31), START - DAY)),
            )
        ),
        "alpha is in backtest since 2026-01-18.",
        "It was live from 2026-01-17 until 2026-01-18, when the returns it rested on were "
        "restated.",
        waits=(R.EVALUATION_DUE,),
    ),
]

PAPER_ROWS = [
    row(
        "just on paper",
        lambda: of(in_paper(MemoryStore())),
        "alpha is on paper since 2026-01-05.",
        "It may trade on paper, without capital.",
        "Paper window: 0.0 of 10.0 days observed; no paper return has come yet.",
        "Then a passing run proposes it, 2 approvals of the role approver and an operator let it "
        "through, and it goes live at step 1 of 2 of its ramp, a weight of 10 %.",
        "60.0 days of data; none are used",
        waits=FILLING,
    ),
    row(
        "one return",
        lambda: of(watched(1)),
        "Paper observations: 1 of 8; one return does not tell yet when.",
        waits=(*FILLING, R.EVALUATION_DUE),
    ),
    row(
        "filling",
        lambda: of(after(watched(5), lambda s: s.evaluate(ALPHA))),
        "Paper window: 4.0 of 10.0 days observed; complete on 2026-01-16 at the present rate.",
        "Paper observations: 5 of 8; complete on 2026-01-13 at the present rate.",
        "The last of these dates is 2026-01-16.",
        "4.0 days are used: without a promotion it is retired when they are over, which at the "
        "present rate is on 2026-03-07, unless an operator extends it.",
        "A paper run does not pass unless it keeps max_drawdown at most 0.2 and sharpe_annual at "
        "least 0.5; its worst drawdown on paper is 0.4 %.",
        "Returns that come more than 5.0 days late count for nothing.",
        waits=FILLING,
        paper_window_incomplete=on(2026, 1, 16),
        observations_insufficient=on(2026, 1, 13),
    ),
    row(
        "extended",
        lambda: of(after(watched(5), lambda s: s.extend(ALPHA, 30 * DAY))),
        "watched on paper for 90.0 days of data (30.0 days of them an operator's); 4.0 days are "
        "used",
        "is on 2026-04-06",
        waits=(*FILLING, R.EVALUATION_DUE),
    ),
    row(
        "out of time, and not judged since",
        lambda: said_of(
            ready(track={"window_us": 60 * 86_400_000_000}, candidate={"approvals": ()})
        ),
        "which are over: unless an operator extends it, its next run retires it.",
        waits=(R.MANUAL_APPROVAL_REQUIRED,),
    ),
    row(
        "silent",
        lambda: of(after(watched(5), lambda s: s.evaluate(ALPHA), lambda s: s.wait(6 * DAY))),
        "Paper window: 4.0 of 10.0 days observed; at the present rate never: no returns since "
        "2026-01-10.",
        "when they are over, unless an operator extends it.",
        waits=FILLING,
    ),
    row(
        "silent from the first",
        lambda: of(after(in_paper(MemoryStore()), lambda s: s.wait(6 * DAY))),
        "at the present rate never: no returns since 2026-01-05.",
        waits=FILLING,
    ),
    row(
        "late",
        lambda: of(late()),
        "never: returns after 2026-01-07 came more than 5.0 days late and count for nothing.",
        waits=(*FILLING, R.EVALUATION_DUE),
    ),
    row(
        "the next returns complete it",
        lambda: of(after(watched(10), lambda s: s.wait(3 * DAY))),
        "Paper window: 9.0 of 10.0 days observed; the next returns may complete it.",
        waits=(R.PAPER_WINDOW_INCOMPLETE, R.EVALUATION_DUE),
    ),
    row(
        "bars of another length",
        lambda: of(dense()),
        "are no bars of 1.0 days; see the policy's periods_per_year.",
        waits=(R.OBSERVATIONS_INSUFFICIENT, R.EVALUATION_DUE),
    ),
    row(
        "full, and not judged",
        lambda: of(observed(MemoryStore(), LONELY)),
        "Its paper returns have not been judged yet: it waits until the campaign loop judges them.",
        waits=(R.EVALUATION_DUE,),
    ),
    row(
        "full, and no cohort yet",
        lambda: of(observed(MemoryStore())),
        "it waits until the campaign loop judges the cohort.",
        waits=(R.EVALUATION_DUE,),
    ),
    row(
        "new returns since it was judged",
        lambda: of(after(losing(), lambda s: observe(s, Stage.PAPER, 1))),
        "Its paper returns up to 2026-01-18 are not judged yet",
        waits=(R.VALIDATION_FAILED, R.EVALUATION_DUE),
    ),
    row(
        "a paper run that fails",
        lambda: of(losing()),
        "Paper sharpe_annual must be at least 0.5: it is ",
        waits=(R.VALIDATION_FAILED,),
    ),
    row(
        "a paper run that is inconclusive",
        lambda: of(
            after(
                watched(
                    12,
                    gated(
                        Stage.PAPER,
                        Bound(metric="trades_total", min=30),
                        on_missing=OnMissing.INCONCLUSIVE,
                    ),
                ),
                lambda s: s.evaluate(ALPHA),
            )
        ),
        "Paper trades_total must be at least 30: nobody reported it.",
        waits=(R.METRIC_MISSING,),
    ),
    row(
        "it passes now, and did not when it was judged",
        lambda: said_of(ready(track={"verdict": 2})),
        "Its paper run is to be looked at again",
        waits=(R.EVALUATION_DUE,),
    ),
    row(
        "another policy judges paper",
        lambda: of(after(proposed(MemoryStore(), LONELY), lambda s: another_policy(s, stricter()))),
        "The policy in force has not judged its paper returns yet",
        "Paper window: 11.0 of 40.0 days observed; complete on 2026-02-15 at the present rate.",
        waits=(*FILLING, R.EVALUATION_DUE),
    ),
    row(
        "passed, and no cohort has selected anybody",
        lambda: said_of(without_candidate(ready(standing={"selected": False}))),
        "No cohort has selected it yet: the campaign loop judges all in paper together.",
        waits=(R.SELECTION_FAILED,),
    ),
    row(
        "the cohort selected others",
        lambda: of(beaten()),
        "The latest cohort did not select it, but beta and gamma: it waits for a cohort in which "
        "it is among the best.",
        waits=(R.SELECTION_FAILED, R.MANUAL_APPROVAL_REQUIRED),
    ),
    row(
        "statistical evidence is asked for",
        lambda: said_of(ready(policy=EVIDENT)),
        "Evidence: 2 of the 10 blocks of returns that an e-value (t mixture) takes; step 1 of the "
        "ramp asks for 3; expected on 2029-06-30 at a true Sharpe ratio of 1 and on 2026-10-24 at "
        "a true Sharpe ratio of 2.",
        waits=(R.EVIDENCE_INSUFFICIENT,),
    ),
    row(
        "the candidate is gone",
        lambda: said_of(without_candidate(ready())),
        "No candidate stands: one is proposed when its next returns are judged and pass.",
        waits=(R.EVALUATION_DUE,),
    ),
    row(
        "live is off",
        lambda: said_of(ready(allow_live=False)),
        "The world does not allow live until a policy admin allows it.",
        waits=(R.LIVE_NOT_ALLOWED,),
    ),
    row(
        "live is off, and one of two asked for it",
        lambda: said_of(ready(allow_live=False, confirmations=asked("allow_live"))),
        "Polly asked to allow live on 2026-01-17: a second person has to confirm it.",
        waits=(R.LIVE_NOT_ALLOWED, R.CONFIRMATION_PENDING),
    ),
    row(
        "nobody is promoted",
        lambda: said_of(without_candidate(ready(policy=DISABLED))),
        "The policy promotes nobody to live: that takes another policy.",
        "Under a policy that promotes, it then goes live at step 1 of 2",
        waits=(R.PROMOTION_DISABLED,),
    ),
    row(
        "killed",
        lambda: said_of(ready(killed=True)),
        "It may trade on paper, without capital. Nothing in this world may trade live: it was "
        "killed.",
        "The world was killed: nothing goes live until an operator resumes it.",
        waits=(R.WORLD_KILLED,),
    ),
    row(
        "killed, and one of two asked to resume",
        lambda: said_of(ready(killed=True, confirmations=asked("resume"))),
        "Polly asked to resume the world on 2026-01-17: a second person has to confirm it.",
        waits=(R.WORLD_KILLED, R.CONFIRMATION_PENDING),
    ),
    row(
        "suspended",
        lambda: said_of(ready(state=WorldState.SUSPENDED)),
        "trades nothing: the world is suspended.",
        "The world is suspended: nothing moves",
        waits=(R.WORLD_SUSPENDED,),
    ),
    row(
        "archived",
        lambda: said_of(ready(state=WorldState.ARCHIVED)),
        "trades nothing: the world is archived.",
        "The world is archived: nothing moves",
        waits=(R.WORLD_SUSPENDED,),
    ),
    row(
        "held on paper",
        lambda: said_of(ready(standing={"held": True})),
        "An operator took it down by hand",
        waits=(R.HELD,),
    ),
]

CANDIDATE_ROWS = [
    row(
        "nobody has approved",
        lambda: of(proposed(MemoryStore())),
        "It needs 2 approvals and has 0: anyone else with the role approver may approve, but not "
        "ann, who wrote it, nor loop, who proposed it.",
        "Then it goes live at step 1 of 2 of its ramp, a weight of 10 %.",
        "A new default policy voids the candidate and its approvals.",
        "A paper run voids the candidate unless it keeps max_drawdown",
        waits=(R.MANUAL_APPROVAL_REQUIRED,),
    ),
    row(
        "one has approved",
        lambda: of(after(proposed(MemoryStore()), lambda s: s.approve(ALPHA, cast.PIA))),
        "It needs 2 approvals and has 1, by pia on 2026-01-17: anyone else",
        "The approval of pia expires on 2026-01-20 00:01 UTC.",
        waits=(R.APPROVALS_INSUFFICIENT,),
    ),
    row(
        "the author proposed it, too",
        lambda: said_of(ready(candidate={"proposer": cast.ANN, "approvals": ()})),
        "but not ann, who wrote and proposed it.",
        waits=(R.MANUAL_APPROVAL_REQUIRED,),
    ),
    row(
        "the approvals are too old",
        lambda: said_of(expired_approvals()),
        "It needs 2 approvals and has 0",
        "Approvals last 3.0 days; those by pia on 2026-01-14 and pete on 2026-01-14 have expired.",
        waits=(R.APPROVALS_INSUFFICIENT, R.APPROVAL_EXPIRED),
    ),
    row(
        "rejected",
        lambda: said_of(ready(candidate={"standing": Rejected(cast.PIA, NOW, "too thin")})),
        "pia rejected the candidate on 2026-01-17 (too thin): it waits until an operator releases "
        "it.",
        waits=(R.CANDIDATE_REJECTED,),
    ),
    row(
        "superseded",
        lambda: said_of(ready(standing={"entered_at": micros(NOW - 12 * DAY)})),
        "for another fingerprint, policy or entry into the phase: the next passing run replaces",
        waits=(R.CANDIDATE_SUPERSEDED,),
    ),
    row(
        "cleared, and people decide",
        lambda: said_of(ready()),
        "Every gate holds: it waits until an operator applies it.",
        waits=(R.APPLY_DUE,),
    ),
    row(
        "cleared, and the loop decides",
        lambda: said_of(ready(AutoApply)),
        "Every gate holds: it waits until the campaign loop applies it.",
        waits=(R.APPLY_DUE,),
    ),
    row(
        "a candidate that fails now",
        lambda: said_of(
            ready(),
            dossier=replace(
                DOSSIER, verdict=Verdict.FAIL, problems=((R.VALIDATION_FAILED, "paper x is low"),)
            ),
        ),
        "Paper x is low.",
        waits=(R.VALIDATION_FAILED, R.EVALUATION_DUE),
    ),
    row(
        "slots are full",
        lambda: said_of(
            ready(live=beside(ready(), BETA, GAMMA)),
            dossier=replace(DOSSIER, correlations={BETA: 0.0, GAMMA: 0.0}),
        ),
        "The world has 2 live slots, taken by beta and gamma: one has to leave first.",
        waits=(R.MAX_LIVE_SLOTS_EXCEEDED,),
    ),
    row(
        "the weight is taken",
        lambda: said_of(ready(live=beside(ready(), BETA, weight=0.75))),
        "Its weight of 10 % does not fit: the others have 75 % of at most 80 %.",
        waits=(R.MAX_LIVE_WEIGHT_EXCEEDED,),
    ),
    row(
        "cooling down",
        lambda: said_of(ready(promoted_at=NOW - HOUR)),
        "The world promoted on 2026-01-16; its cooldown ends on 2026-01-17 23:01 UTC.",
        waits=(R.COOLDOWN_ACTIVE,),
        cooldown_active=on(2026, 1, 17, 23, 1),
    ),
    row(
        "a weight that was taken back",
        lambda: said_of(ready(outstanding=taken_back(0.75))),
        "Clients that hear nothing may still act on what was taken back, beta 0.75 until "
        "2026-01-17 01:01:00 UTC; with that, live weight would be 0.85, at most 0.8.",
        waits=(R.LEASE_OUTSTANDING,),
        lease_outstanding=on(2026, 1, 17, 1, 1),
    ),
    row(
        "slots that are not let go of",
        lambda: said_of(ready(outstanding=taken_back(0.1, BETA, GAMMA))),
        "beta 0.1 until 2026-01-17 01:01:00 UTC and gamma 0.1 until 2026-01-17 02:01:00 UTC; with "
        "that, 2 of 2 live slots are taken.",
        waits=(R.LEASE_OUTSTANDING,),
        lease_outstanding=on(2026, 1, 17, 1, 1),
    ),
    row(
        "in a freeze",
        lambda: said_of(ready(policy=FROZEN)),
        "The policy's freeze allows no promotion until 2026-01-17 01:00 UTC.",
        waits=(R.FROZEN,),
        frozen=on(2026, 1, 17, 1),
    ),
    row(
        "in a freeze without an end",
        lambda: said_of(ready(policy=ENDLESS)),
        "The policy's freeze allows no promotion without an end in sight.",
        waits=(R.FROZEN,),
    ),
    row(
        "a freeze ahead",
        lambda: said_of(
            ready(policy=governed(freeze=(Freeze(cron="0 20 * * FRI", length=60 * HOUR),))),
            NOW + 20 * timedelta(seconds=1),
        ),
        "The policy's freeze allows no promotion until 2026-01-19 08:00 UTC.",
        "The policy allows no promotion for 2.5 days from 2026-01-23 20:00 UTC on.",
        waits=(R.FROZEN,),
        frozen=on(2026, 1, 19, 8),
    ),
    row(
        "no snapshot",
        lambda: said_of(ready(track={"covered_as_of": -(2**63)})),
        "No paper snapshot holds both its weight and its returns: the gate takes a fresh one only.",
        waits=(R.RISK_SNAPSHOT_MISSING,),
    ),
    row(
        "a snapshot that expired",
        lambda: said_of(ready(), NOW + HOUR),
        "The newest paper snapshot with it, of 2026-01-17 00:00 UTC, expired on 2026-01-17 00:15 "
        "UTC",
        waits=(R.RISK_SNAPSHOT_EXPIRED,),
    ),
    row(
        "a snapshot that is too old",
        lambda: said_of(ready(policy=replace(POLICY, risk=TIGHT)), NOW + MINUTE),
        "of 2026-01-17 00:00 UTC, is too old for the policy since 2026-01-17 00:01 UTC",
        waits=(R.RISK_SNAPSHOT_STALE,),
    ),
    row(
        "a snapshot from the future",
        lambda: said_of(ready(track={"covered_as_of": micros(NOW + HOUR)})),
        "of 2026-01-17 01:01 UTC, is from the future",
        waits=(R.RISK_SNAPSHOT_STALE,),
    ),
    row(
        "correlated with a live one",
        lambda: said_of(
            ready(live=beside(ready(), BETA)), dossier=replace(DOSSIER, correlations={BETA: 0.91})
        ),
        "Correlation with live beta must be at most 0.8: it is 0.91.",
        waits=(R.CORRELATION_EXCEEDED,),
    ),
    row(
        "a correlation nobody knows",
        lambda: said_of(
            ready(live=beside(ready(), BETA)), dossier=replace(DOSSIER, correlations={BETA: None})
        ),
        "Correlation with live beta must be at most 0.8: it is unknown.",
        waits=(R.CORRELATION_EXCEEDED,),
    ),
    row(
        "worse under stress",
        lambda: said_of(ready(track={"stress_loss": 1 / 3})),
        "Worst stress loss must be at most 0.25: it is 0.3333.",
        waits=(R.VALIDATION_FAILED,),
    ),
    row(
        "stress that nobody told",
        lambda: said_of(ready(track={"stress_loss": np.nan})),
        "Worst stress loss must be at most 0.25: no snapshot tells it.",
        waits=(R.VALIDATION_FAILED,),
    ),
    row(
        "far from the gate, which is shut today",
        lambda: said_of(
            without_candidate(
                ready(
                    track={"window_us": 0, "stress_loss": 0.5},
                    live=beside(ready(), BETA, GAMMA, weight=0.4),
                )
            ),
            dossier=Dossier(verdict=Verdict.INCONCLUSIVE, correlations={BETA: 0.9, GAMMA: 0.1}),
        ),
        "As things stand the gate would refuse that: worst stress loss must be at most 0.25: it is "
        "0.5.",
        "As things stand the gate would refuse that: correlation with live beta",
        "As things stand there is no room. The world has 2 live slots, taken by beta and gamma",
        "As things stand there is no room. Its weight of 10 % does not fit",
        waits=(R.PAPER_WINDOW_INCOMPLETE, R.EVALUATION_DUE),
    ),
]

LIVE_ROWS = [
    row(
        "just live",
        lambda: of(live(MemoryStore())),
        "alpha is live since 2026-01-17, on step 1 of 2 of its ramp.",
        "It may trade live with 10 % of capital; its step is 25 % of its full allocation.",
        "Live window: 0.0 of 5.0 days observed; no live return has come yet.",
        "and it climbs to step 2 of 2 of its ramp, a weight of 40 %.",
        "A drawdown above 15 % in live demotes it at once; the worst so far is 0 %.",
        "Without live returns after 2026-01-17 it may compute only from 2026-02-01 00:01 UTC on, "
        "until they come again.",
        "A kill, a suspension of the world, an end of its leave for live or an operator's demotion "
        "takes it out at once.",
        waits=(R.OBSERVATIONS_INSUFFICIENT, R.OBSERVATIONS_INSUFFICIENT),
    ),
    row(
        "the next step is watched",
        lambda: of(
            after(
                live(MemoryStore()),
                lambda s: observe(s, Stage.LIVE, 3),
                lambda s: s.evaluate(ALPHA),
            )
        ),
        "Live window: 2.0 of 5.0 days observed; complete on 2026-01-23 at the present rate.",
        "the worst so far is 0.4 %.",
        "after 2026-01-20 it may compute only from 2026-02-04 00:00 UTC on",
        waits=(R.OBSERVATIONS_INSUFFICIENT,),
        observations_insufficient=on(2026, 1, 23),
    ),
    row(
        "live returns that nobody has judged",
        lambda: of(after(live(MemoryStore()), lambda s: observe(s, Stage.LIVE, 6))),
        "Its live returns have not been judged yet: it waits until the campaign loop judges them.",
        waits=(R.EVALUATION_DUE,),
    ),
    row(
        "approved for the next step",
        lambda: said_of(climbing(), LATER),
        "Every gate holds: it waits until an operator applies it.",
        "Then it climbs to step 2 of 2 of its ramp, a weight of 40 %.",
        "A new default policy voids the candidate for step 2 and its approvals.",
        waits=(R.APPLY_DUE,),
    ),
    row(
        "at the top",
        lambda: of(after(climbed(MemoryStore()), lambda s: s.apply(ALPHA))),
        "It may trade live with 40 % of capital; its step is 100 % of its full allocation.",
        "It is at the top of its ramp: it waits for nothing, and no step is left.",
    ),
    row(
        "frozen",
        lambda: said_of(activation(freeze=True), LATER),
        "trades nothing: an operator froze it.",
        "An operator froze it: it may compute only until an operator lifts that.",
        waits=(R.FROZEN, R.APPLY_DUE),
    ),
    row(
        "draining",
        lambda: said_of(activation(drain=True), LATER),
        "It may trade live with 0 % of capital",
        "An operator drains it: it has no capital until an operator lifts that.",
        waits=(R.DRAINING, R.APPLY_DUE),
    ),
    row(
        "lowered by hand",
        lambda: of(after(live(MemoryStore()), lambda s: s.lower(ALPHA, Change(weight=0.05)))),
        "It may trade live with 5 % of capital",
        "An operator lowered its weight from 10 % to 5 %.",
        waits=(R.OBSERVATIONS_INSUFFICIENT, R.OBSERVATIONS_INSUFFICIENT),
    ),
    row(
        "silent, and so lowered",
        lambda: of(after(live(MemoryStore()), lambda s: s.wait(15 * DAY + MINUTE))),
        "trades nothing: no live returns have come since 2026-01-17.",
        "It may compute only until live returns come again: nobody sees how it does.",
        "at the present rate never: no returns since 2026-01-17.",
        waits=(
            R.RISK_SNAPSHOT_STALE,
            R.OBSERVATIONS_INSUFFICIENT,
            R.OBSERVATIONS_INSUFFICIENT,
        ),
    ),
    row(
        "a live run that would fail",
        lambda: said_of(climbing(), LATER, FAILS),
        "Live max_drawdown must be at most 0.15: it is 0.16.",
        "As things stand its next live run demotes it: live max_drawdown must be at most 0.15: it "
        "is 0.16.",
        waits=(R.VALIDATION_FAILED, R.EVALUATION_DUE),
    ),
    row(
        "live gates beside the drawdown",
        lambda: said_of(
            climbing(policy=gated(Stage.LIVE, Bound(metric="sharpe_annual", min=0.2))), LATER
        ),
        "A live run demotes it unless it keeps sharpe_annual at least 0.2.",
        waits=(R.APPLY_DUE,),
    ),
    row(
        "live, with a limit on a bar",
        lambda: said_of(
            climbing(policy=gated(Stage.LIVE, Bound(metric="max_bar_loss", max=0.05))), LATER
        ),
        "A single bar that loses more than 5 % demotes it at once.",
        waits=(R.APPLY_DUE,),
    ),
    row(
        "live, and the policy promotes nobody any more",
        lambda: said_of(climbing(policy=DISABLED), LATER),
        "The policy promotes nobody to live: that takes another policy.",
        waits=(R.PROMOTION_DISABLED,),
    ),
    row(
        "live, and applied by the loop",
        lambda: of(after(live(MemoryStore(), AUTO))),
        "Then a passing run proposes it, the campaign loop applies it, and it climbs to step 2",
        waits=(R.OBSERVATIONS_INSUFFICIENT, R.OBSERVATIONS_INSUFFICIENT),
    ),
    row(
        "live in no live set",
        lambda: said_of(climbing(live=Map()), LATER),
        "trades nothing: it has no weight.",
        waits=(R.APPLY_DUE,),
    ),
]

DOWN_ROWS = [
    row(
        "demoted for its drawdown",
        lambda: of(crashed()),
        "alpha is on paper since 2026-01-18.",
        "It was live from 2026-01-17 until 2026-01-18, when a drawdown in live demoted it: the "
        "worst was 17.2 %, where at most 15 % is allowed.",
        waits=FILLING,
    ),
    row(
        "demoted for what a bar lost",
        lambda: of(lost_in_a_bar()),
        "when a single bar in live lost too much and demoted it: at most 5 % is allowed.",
        waits=FILLING,
    ),
    row(
        "demoted by a live run",
        lambda: of(failed_live()),
        "when a live run failed and demoted it: live volatility must be at most 0.001: it is",
        waits=FILLING,
    ),
    row(
        "demoted by hand",
        lambda: of(after(live(MemoryStore()), lambda s: s.demote(ALPHA))),
        "It was live from 2026-01-17 until 2026-01-17, when an operator demoted it.",
        waits=(R.HELD, *FILLING),
    ),
    row(
        "back after a kill",
        lambda: of(after(live(MemoryStore(), LONELY), lambda s: s.kill())),
        "alpha is on paper since 2026-01-05.",
        "until 2026-01-17, when the world was killed.",
        waits=(R.WORLD_KILLED,),
    ),
    row(
        "back after a kill that is over",
        lambda: of(after(live(MemoryStore(), LONELY), lambda s: s.kill(), lambda s: s.resume())),
        "No candidate stands: one is proposed when its next returns are judged and pass.",
        waits=(R.EVALUATION_DUE,),
    ),
    row(
        "back since live is off",
        lambda: of(after(live(MemoryStore(), LONELY), lambda s: s.allow_live(False))),
        "until 2026-01-17, when the world ceased to allow live.",
        waits=(R.LIVE_NOT_ALLOWED,),
    ),
    row(
        "back since the world is suspended",
        lambda: of(
            after(live(MemoryStore(), LONELY), lambda s: s.change_state(WorldState.SUSPENDED))
        ),
        "until 2026-01-17, when the world was suspended.",
        waits=(R.WORLD_SUSPENDED,),
    ),
    row(
        "retired, out of time",
        lambda: of(expired()),
        "alpha is retired since 2026-01-10: its time on paper ran out.",
        "trades nothing: it has left the campaign.",
        "Its time ran out after 4.0 days in paper without a promotion: it stays out unless an "
        "operator extends it.",
        waits=(R.CAMPAIGN_EXPIRED,),
    ),
    row(
        "retired, out of time, and held",
        lambda: of(after(expired(), lambda s: s.demote(ALPHA, Phase.RETIRED))),
        "An operator took it down by hand",
        waits=(R.HELD, R.CAMPAIGN_EXPIRED),
    ),
    row(
        "retired, since its returns speak against it",
        lambda: said_of(
            ready(
                policy=EVIDENT,
                standing={"phase": PHASES.index(Phase.RETIRED)},
                proof={"blocks": 60.0, "block_mean": -0.01, "block_m2": 0.03},
            )
        ),
        "its returns speak against it",
        "speak against a Sharpe ratio of 1 a year, with an e-value of",
        "where 10 ends the campaign: nothing brings it back, and changed code is a new version.",
        waits=(R.FUTILE,),
    ),
    row(
        "retired by hand",
        lambda: of(after(live(MemoryStore()), lambda s: s.demote(ALPHA, Phase.RETIRED))),
        "alpha is retired since 2026-01-17: it was taken out of the campaign.",
        "It was live from 2026-01-17 until 2026-01-17, when an operator demoted it.",
        "It has left the campaign and nothing brings it back: changed code is a new version.",
        waits=(R.RETIRED,),
    ),
]


def without_candidate(view: WorldView) -> WorldView:
    return replace(view, current=Map())


def beaten() -> Scene:
    """Three pass, and two are selected: not alpha, whose returns are the smallest."""
    scene = in_paper(MemoryStore(), POLICY, ALPHA, BETA, GAMMA)
    for days in range(12):
        scene.wait(DAY)
        up = 0.01 if days % 2 else -0.004
        returns = {ALPHA: up - 0.002, BETA: up + 0.001, GAMMA: up + 0.002}
        stress = {sid: {"crash": 0.1} for sid in returns}
        scene.bar(Stage.PAPER, returns, stress=stress)
    scene.cohort([ALPHA, BETA, GAMMA])
    return scene


ROWS = [*BACKTEST_ROWS, *PAPER_ROWS, *CANDIDATE_ROWS, *LIVE_ROWS, *DOWN_ROWS]
