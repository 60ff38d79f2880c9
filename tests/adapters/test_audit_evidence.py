"""`adapters/audit/evidence.py`: it agrees with the core, and finds what was not shown."""

import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from qmtl.adapters.audit import evidence
from qmtl.adapters.audit.allowed import Transition, audit
from qmtl.adapters.audit.evidence import Proof
from qmtl.adapters.codec import policy_to_bytes
from qmtl.core import proof as core
from qmtl.core.columns import Proof as Columns
from qmtl.core.evidence import crowd, eprocess, sharpe
from qmtl.core.names import Stage
from qmtl.core.policy import Bound, Evidence, Gates, PaperEvidence, Policy
from qmtl.sim.scene import DAY, Scene
from tests.app.test_proving import BARE, asking, days, noise, world
from tests.exports import Told, chained, exported, told_of
from tests.worlds import ALPHA, BETA

W = "w"


@cache
def _story(method: str) -> str:
    """Alpha on paper, live, and at the top of its ramp, on evidence alone; beta beside it."""
    floor = Gates(by_stage={Stage.LIVE: (Bound(metric="max_bar_loss", max=0.1),)})
    paper = replace(BARE.paper, method=method, hurdle_annual=0.01)  # type: ignore[arg-type]  # One of three.
    policy = replace(asking(replace(BARE, paper=paper)), gates=floor)
    scene: Scene = world(policy, ALPHA, BETA)
    days(scene, Stage.PAPER, noise(60, 0.012))
    days(scene, Stage.LIVE, noise(60, 0.012, 1))
    assert scene.view.live[ALPHA].step == 1
    return json.dumps(told_of(scene.store, scene.world_id))


def story(method: str = "t_mixture") -> Told:
    told: Told = json.loads(_story(method))
    return told


def found(told: Told) -> list[Transition]:
    return [t for t in audit(exported(chained(told, W), W)) if t.strategy_id == ALPHA]


@pytest.mark.parametrize("method", ["t_mixture", "bounded"])
def test_what_evidence_let_through_was_allowed(method: str) -> None:
    transitions = found(story(method))
    assert [t.violations for t in transitions] == [(), ()]


def points(told: Told, change: Callable[[float], float]) -> None:
    """Other paper returns of alpha than those it was promoted on."""
    for entry in told:
        if entry["kind"] == "snapshot_stored" and entry["fact"]["stage"] == "paper":
            held = entry["fact"]["points"]
            r = [change(x) for x in struct.unpack(f"<{sum(held['counts'])}d", b64decode(held["r"]))]
            held["r"] = b64encode(struct.pack(f"<{len(r)}d", *r)).decode()


def policy_of(told: Told) -> Any:
    return next(e for e in told if e["kind"] == "policy_added")["fact"]["policy"]


def applied(told: Told, nth: int) -> Any:
    return [e for e in told if e["kind"] == "promotion_applied"][nth]["fact"]


FORGED: list[tuple[str, Callable[[Told], object], int, str]] = [
    ("lesser returns", lambda t: points(t, lambda r: r / 4 - 0.002), 0, "its e-value was"),
    ("another number", lambda t: applied(t, 0).update(e_value=4.0), 0, "was told as 4.0; it was"),
    ("no number", lambda t: applied(t, 0).update(e_value=None), 0, "was told as None"),
    (
        "a step that asked for more",
        lambda t: policy_of(t)["governance"]["ramp"][0].update(e_value=1e9),
        0,
        "the step asks for 1e+09",
    ),
    (
        "a world that promised less",
        lambda t: policy_of(t)["evidence"].update(alpha=1e-12),
        1,
        "the step asks for 2e+12",
    ),
    (
        "a place in a queue that was spent",
        lambda t: policy_of(t)["evidence"].update(alpha=1e-12, multiplicity="spending"),
        1,
        "the step asks for",
    ),
    (
        "its own error rate",
        lambda t: policy_of(t)["evidence"].update(alpha=1e-13, multiplicity="per_strategy"),
        1,
        "the step asks for 1e+13",
    ),
]


@pytest.mark.parametrize(("what", "forge", "nth", "said"), FORGED, ids=[f[0] for f in FORGED])
def test_what_was_not_shown_is_found(
    what: str, forge: Callable[[Told], object], nth: int, said: str
) -> None:
    told = story()
    forge(told)
    violations = [v.what for v in found(told)[nth].violations]
    assert any(said in violation for violation in violations), violations


def test_what_spoke_against_it_under_a_declared_end_is_carried() -> None:
    """Bad months under group_sequential; then another policy, under which it is promoted."""
    declared = asking(replace(BARE, paper=replace(BARE.paper, method="group_sequential")))
    window = replace(declared.campaign.paper, max_window=400 * DAY)
    scene = world(replace(declared, campaign=replace(declared.campaign, paper=window)))
    days(scene, Stage.PAPER, noise(20, -0.002))
    other = replace(asking(), campaign=declared.campaign)
    scene.set_default(scene.add_policy(other, "other").version.version)
    days(scene, Stage.PAPER, noise(60, 0.012))
    assert 0.0 < scene.view.proof.carried[0] < 0.9
    transitions = audit(exported(chained(told_of(scene.store, W), W), W))
    assert [t.violations for t in transitions] == [()]


# ---- Beside the core ---------------------------------------------------------------------------


def told_policy(**paper: object) -> tuple[Policy, Any]:
    policy = asking(Evidence(paper=PaperEvidence(**paper)))  # type: ignore[arg-type]  # Its fields.
    return policy, json.loads(policy_to_bytes(policy))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("method", ["t_mixture", "bounded"])
def test_it_computes_what_the_core_does(method: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    policy, told = told_policy(method=method, block=int(rng.integers(1, 6)), hurdle_annual=0.03)
    r = rng.normal(0.0005, 0.01, int(rng.integers(5, 400)))
    asked = core.terms(policy)
    counted = np.ones((1, len(r)), bool)
    excess = (r - asked.hurdle)[None, :]
    held = eprocess.more_blocks(eprocess.no_blocks(1), excess, counted, asked.block)
    columns = Columns.blank(1).put(
        np.array([0]),
        seen=len(r),
        blocks=held.count,
        block_mean=held.mean,
        block_m2=held.m2,
        wealth=eprocess.more_wealth(eprocess.no_wealth(1), excess, counted, asked.floor),
        carried=0.5,
    )
    mine = core.e_values(columns, np.array([0]), asked)[0]
    theirs = evidence.e_value(Proof(carried=0.5, returns=list(r)), told)
    assert (theirs is None) == np.isnan(mine)
    if theirs is not None:
        assert theirs == pytest.approx(mine, rel=1e-9)


@pytest.mark.parametrize("p", [None, 1.0, 0.3, 0.04, 0.01, 0.0])
@pytest.mark.parametrize("cap", [1.0, 2.0, 3.0])
def test_credit_is_the_cores(p: float | None, cap: float) -> None:
    _, told = told_policy(backtest_credit_cap=cap)
    theirs = evidence.credit(Proof(selection_p=p), told)
    assert theirs == pytest.approx(sharpe.credit(np.nan if p is None else p, cap))


@pytest.mark.parametrize("others", [[], [30.0], [199.0, 90.0], [1e6] * 5, [0.0, 1e9, 3.0]])
def test_the_last_threshold_is_the_cores(others: list[float]) -> None:
    _, told = told_policy()
    theirs = evidence.threshold(Proof(), told, 1, 10, others)
    assert theirs == pytest.approx(max(20.0, crowd.e_bh_threshold(10, 0.05, np.array(others))))
