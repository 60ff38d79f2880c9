"""Fixtures as functions: a ready world, and one change at a time.

`ready()` is a view in which `alpha` clears every gate to its first live step; `climbing()` one in
which it is live there, and clears every gate to the second.  Both come about as they would in life:
submitted, observed bar by bar, evaluated, approved.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache, wraps
from typing import Any, Concatenate, ParamSpec

import numpy as np
from immutables import Map
from numpy.typing import ArrayLike

from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.policies import checksum
from qmtl.app.ports import Store
from qmtl.core.evaluation_run import EvaluationRun
from qmtl.core.names import Reason, RunId, Stage, StrategyId, Verdict
from qmtl.core.policy import (
    AutoApply,
    Bound,
    Campaign,
    Data,
    Gates,
    Governance,
    LivePromotion,
    ManualApproval,
    Policy,
    RampStep,
    Risk,
    Selection,
    TopK,
    Window,
)
from qmtl.core.promotion import Blocked, Clearance, Dossier, clear_for_live
from qmtl.core.view import Candidate, WorldView
from qmtl.sim import cast
from qmtl.sim.scene import DAY, START, Scene

P = ParamSpec("P")
ALPHA, BETA, GAMMA = StrategyId("alpha"), StrategyId("beta"), StrategyId("gamma")
MINUTE = timedelta(minutes=1)
PAPER_DAYS, LIVE_DAYS = 12, 7
NOW = START + PAPER_DAYS * DAY + MINUTE  # When alpha is ready.
LATER = NOW + LIVE_DAYS * DAY  # When it is ready to climb.
STRESS = {ALPHA: {"crash": 0.2}}

POLICY = Policy(
    data=Data(periods_per_year=365.25, max_lag=5 * DAY),  # A bar is a day.
    campaign=Campaign(
        backtest=Window(span=20 * DAY, min_observations=20),
        paper=Window(span=10 * DAY, min_observations=8, max_window=60 * DAY),
        evaluate_every=DAY,
    ),
    gates=Gates(
        by_stage={
            Stage.BACKTEST: (Bound(metric="sharpe_annual", min=0.5),),
            Stage.PAPER: (
                Bound(metric="max_drawdown", max=0.2),
                Bound(metric="sharpe_annual", min=0.5),
            ),
            Stage.LIVE: (Bound(metric="max_drawdown", max=0.15),),
        }
    ),
    evidence=None,
    selection=Selection(top_k=TopK(metric="sharpe_annual", k=2)),
    governance=Governance(
        live_promotion=ManualApproval(),
        cooldown=DAY,
        max_live_slots=2,
        max_live_weight=0.8,
        ramp=(RampStep(fraction=0.25), RampStep(fraction=1.0, observe=5 * DAY)),
    ),
    risk=Risk(max_stress_loss=0.25, max_pairwise_correlation_to_live=0.8),
)
AUTO = replace(POLICY, governance=replace(POLICY.governance, live_promotion=AutoApply()))
# As POLICY, and nobody has to be selected: one strategy may go its way alone.
LONELY = replace(POLICY, selection=None)
DOSSIER = Dossier(verdict=Verdict.PASS, correlations={BETA: 0.1})


def governed(policy: Policy = POLICY, **changes: Any) -> Policy:
    """The policy with these parts of its governance changed."""
    return replace(policy, governance=replace(policy.governance, **changes))


def good(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Returns that pass every gate here: up, and a little down again."""
    return np.where(np.arange(count) % 2 == 0, 0.01, -0.004)


def good_bar(scene: Scene) -> float:
    """Of `good`, the one for the scene's day."""
    return float(good(2)[(scene.now - START) // DAY % 2])


# ---- Scenes: stores in which it happened -------------------------------------------------------

Build = Callable[Concatenate[Store, P], Scene]


def at_once(build: Build[P]) -> Build[P]:
    """The scene made as one job of the store: a disk is waited for once, not at every step."""

    @wraps(build)
    def built(store: Store, *args: P.args, **kwargs: P.kwargs) -> Scene:
        return store.write(lambda: build(store, *args, **kwargs))

    return built


@at_once
def opened(store: Store, policy: Policy = POLICY) -> Scene:
    """A world that allows live, under a policy, and nobody in it."""
    scene = Scene(store)
    scene.create(allow_live=True)
    scene.add_policy(policy, checksum(policy))
    return scene


@at_once
def in_paper(store: Store, policy: Policy = POLICY, *sids: StrategyId) -> Scene:
    """Strategies (alpha, unless others are named) that have just entered paper."""
    scene = opened(store, policy)
    for sid in sids or (ALPHA,):
        scene.submit(sid, good(30), stats={"trades_total": 50.0})
    return scene


def observe(scene: Scene, stage: Stage, days: int, *sids: StrategyId) -> None:
    """Good bars of a stage, one a day, each posted a minute after it ends."""
    for _ in range(days):
        scene.wait(DAY - MINUTE if (scene.now - START) % DAY else DAY)
        at = scene.now
        returns = {sid: good_bar(scene) for sid in sids or (ALPHA,)}
        scene.wait(MINUTE)
        scene.bar(stage, returns, at=at, stress=dict.fromkeys(returns, STRESS[ALPHA]))


@at_once
def observed(store: Store, policy: Policy = POLICY) -> Scene:
    """Alpha has a full paper window, and nobody has judged it yet."""
    scene = in_paper(store, policy)
    observe(scene, Stage.PAPER, PAPER_DAYS)
    return scene


@at_once
def proposed(store: Store, policy: Policy = POLICY) -> Scene:
    """Alpha is a candidate, as yet approved by nobody."""
    scene = observed(store, policy)
    scene.cohort([ALPHA])
    return scene


@at_once
def approved(store: Store, policy: Policy = POLICY) -> Scene:
    """Alpha is ready: only `apply` is left.  Approved unless nobody approves."""
    scene = proposed(store, policy)
    if isinstance(policy.governance.live_promotion, ManualApproval):
        scene.approve(ALPHA, cast.PIA)
        scene.approve(ALPHA, cast.PETE)
    return scene


@at_once
def live(store: Store, policy: Policy = POLICY) -> Scene:
    """Alpha is live at its first step."""
    scene = approved(store, policy)
    scene.apply(ALPHA)
    return scene


@at_once
def climbed(store: Store, policy: Policy = POLICY) -> Scene:
    """Alpha is live, and ready for its second step."""
    scene = live(store, policy)
    observe(scene, Stage.LIVE, LIVE_DAYS)
    scene.evaluate(ALPHA)
    if isinstance(policy.governance.live_promotion, ManualApproval):
        scene.approve(ALPHA, cast.PIA)
        scene.approve(ALPHA, cast.PETE)
    return scene


# ---- Views: the same, once, and then one change at a time --------------------------------------


@cache
def _view(scene: Callable[[Store, Policy], Scene], mode: type[LivePromotion]) -> WorldView:
    return scene(MemoryStore(), POLICY if mode is ManualApproval else AUTO).view


def ready(mode: type[LivePromotion] = ManualApproval, **changes: Any) -> WorldView:
    """A world in which `alpha` clears every gate, with these changes (see `changed`)."""
    return changed(_view(approved, mode), Stage.PAPER, **changes)


def climbing(mode: type[LivePromotion] = ManualApproval, **changes: Any) -> WorldView:
    """A world in which `alpha` is live and clears every gate up, with these changes."""
    return changed(_view(climbed, mode), Stage.LIVE, **changes)


def changed(
    view: WorldView,
    stage: Stage,
    *,
    policy: Policy | None = None,
    standing: Mapping[str, ArrayLike] | None = None,
    track: Mapping[str, ArrayLike] | None = None,
    proof: Mapping[str, ArrayLike] | None = None,
    candidate: Mapping[str, Any] | None = None,
    **fields: Any,
) -> WorldView:
    """The view with fields replaced; with another policy in force under the same version; with
    columns of alpha's changed, in the standings, the proof or the track of `stage`; its candidate
    changed.
    """
    view = replace(view, **fields)
    row = view.strategies[ALPHA].row
    if policy is not None:
        assert view.default_version is not None
        version = replace(view.policies[view.default_version], policy=policy)
        view = replace(view, policies=view.policies.set(version.version, version))
    if standing is not None:
        view = replace(view, standings=view.standings.put(row, **standing))
    if proof is not None:
        view = replace(view, proof=view.proof.put(row, **proof))
    if track is not None:
        mine = view.tracks[stage].put(row, **track)
        view = replace(view, tracks={**view.tracks, stage: mine})
    if candidate is not None:
        mine_too = replace(open_candidate(view), **candidate)
        candidates = view.candidates.set(mine_too.candidate_id, mine_too)
        view = replace(view, candidates=candidates)
    return view


def open_candidate(view: WorldView, sid: StrategyId = ALPHA) -> Candidate:
    found = view.open_candidate(sid)
    assert found is not None, f"{sid} has no open candidate"
    return found


def cleared(
    view: WorldView, now: datetime = NOW, dossier: Dossier = DOSSIER
) -> Clearance | Blocked:
    """What the gate says of alpha's candidate, whatever became of it."""
    return clear_for_live(view, ALPHA, newest_candidate(view), dossier, now)


def newest_candidate(view: WorldView) -> Candidate | None:
    mine = [c for c in view.candidates.values() if c.strategy_id == ALPHA]
    return max(mine, key=lambda c: c.step, default=None)


def beside(view: WorldView, *others: StrategyId, weight: float = 0.1) -> Map[Any, Any]:
    """A live set in which others are, too: enough of them for the gate to count."""
    any_live = next(iter(_view(climbed, ManualApproval).live.values()))
    return view.live.update(
        {
            other: replace(any_live, strategy_id=other, applied_weight=weight, weight=weight)
            for other in others
        }
    )


def judged(view: WorldView, stage: Stage, verdict: Verdict, **changes: Any) -> EvaluationRun:
    """A run of alpha's that was just recorded in the view."""
    made = EvaluationRun(
        strategy_id=ALPHA,
        run_id=RunId("r"),
        stage=stage,
        revision=1,
        verdict=verdict,
        problems=((Reason.VALIDATION_FAILED, "why"),) if verdict is Verdict.FAIL else (),
        metrics={},
        gates=(),
        policy_version=1,
        snapshot_version=None,
        evidence=view.digest(0, stage),
        observations=0,
        observed_sec=0.0,
    )
    return replace(made, **changes)
