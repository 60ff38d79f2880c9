"""What was decided comes out again; a journal in which one number was changed does not."""

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import timedelta
from random import Random
from typing import Any, get_args

import pytest

from qmtl.adapters.memory import MemoryStore, World, after, store_of
from qmtl.adapters.wire.answers import entry as wire_entry
from qmtl.adapters.wire.history import entry_of, in_order, just_before
from qmtl.app.why import Outcome, Why, differences, why
from qmtl.core import facts as f
from qmtl.core.activation import Change
from qmtl.core.errors import Invalid
from qmtl.core.fold import entries as entries_of
from qmtl.core.happened import happened
from qmtl.core.names import Phase, Reason, RunId, Stage, StrategyId, WorldId
from qmtl.core.view import WorldView
from qmtl.sim import cast
from qmtl.sim.chaos import play, refusable
from qmtl.sim.scene import DAY, START, WORLD, Scene, daily
from tests.adapters.histories import History
from tests.worlds import (
    ALPHA,
    AUTO,
    BETA,
    LONELY,
    climbed,
    good,
    in_paper,
    live,
    observe,
    observed,
    opened,
    proposed,
)

KINDS = {fact.__dataclass_fields__["kind"].default: fact for fact in get_args(f.Fact)}
DERIVED = {  # What the system decides; everything else is somebody's act.
    *("evaluations_recorded", "phase_entered", "candidate_proposed", "candidate_voided"),
    *("promotion_blocked", "promotion_applied", "demoted"),
}


def journal(scene: Scene) -> list[f.Entry]:
    """All that happened, as it comes over the wire."""
    told = scene.store.journal(scene.world_id, 0, 100_000)
    return [entry_of(wire_entry(entry)) for entry in told]


def each(entries: list[f.Entry]) -> Iterator[Why]:
    world = World(WorldView(world_id=WORLD), [])
    for entry in in_order(entries):
        yield why(store_of(world), WORLD, entry)
        world.journal.append(entry)
        world = after(world, entry)


def last(scene: Scene, kind: str) -> tuple[list[f.Entry], f.Entry]:
    """The newest entry of a kind, and those before it."""
    entries = journal(scene)
    entry = [e for e in entries if e.fact.kind == kind][-1]
    return entries[: entry.seq - 1], entry


def again(scene: Scene, kind: str) -> Why:
    before, entry = last(scene, kind)
    return why(store_of(just_before(WORLD, [*before, entry])), WORLD, entry)


# ---- How each decision comes about -------------------------------------------------------------


def blocked() -> Scene:
    scene = proposed(MemoryStore())
    scene.apply(ALPHA)
    return scene


def failed_paper() -> Scene:
    """A candidate is void since a later paper run failed."""
    scene = proposed(MemoryStore(), LONELY)
    for _ in range(2):
        scene.wait(DAY)
        scene.bar(Stage.PAPER, {ALPHA: -0.15})
    scene.evaluate(ALPHA)
    return scene


def superseded() -> Scene:
    """A rejection is lifted when there is another policy already."""
    scene = proposed(MemoryStore(), LONELY)
    scene.reject(ALPHA)
    scene.add_policy(replace(LONELY, selection=None), "another")
    scene.set_default(2)
    scene.release(ALPHA)
    return scene


def told_its_code() -> Scene:
    """A candidate of a strategy that tells its fingerprint only now."""
    scene = opened(MemoryStore(), LONELY)
    scene.submit(ALPHA, good(30), fingerprint=None)
    observe(scene, Stage.PAPER, 12)
    scene.evaluate(ALPHA)
    scene.bind(ALPHA, fingerprint="f9")
    return scene


def expired() -> Scene:
    window = replace(LONELY.campaign.paper, span=50 * DAY, max_window=3 * DAY)
    policy = replace(LONELY, campaign=replace(LONELY.campaign, paper=window))
    scene = in_paper(MemoryStore(), policy)
    observe(scene, Stage.PAPER, 5)
    scene.evaluate(ALPHA)
    return scene


def crashed() -> Scene:
    scene = live(MemoryStore())
    scene.wait(DAY)
    scene.bar(Stage.LIVE, {ALPHA: -0.2})
    return scene


def floored(*bounds: tuple[str, float]) -> Any:
    gates = {**LONELY.gates.by_stage, Stage.LIVE: tuple(f_bound(*bound) for bound in bounds)}
    return replace(LONELY, gates=replace(LONELY.gates, by_stage=gates))


def lost_in_a_bar() -> Scene:
    scene = live(MemoryStore(), floored(("max_bar_loss", 0.05)))
    scene.wait(DAY)
    scene.bar(Stage.LIVE, {ALPHA: -0.06})
    return scene


def beyond_a_new_limit() -> Scene:
    """What it had lost already is too much for the policy that is in force now."""
    scene = live(MemoryStore(), LONELY)
    scene.wait(DAY)
    scene.bar(Stage.LIVE, {ALPHA: -0.1})
    scene.add_policy(floored(("max_drawdown", 0.05)), "stricter")
    scene.set_default(2)
    scene.evaluate(ALPHA)
    return scene


def restated() -> Scene:
    scene = live(MemoryStore())
    scene.wait(DAY)
    scene.restate(Stage.BACKTEST, ALPHA, daily(good(31), START - DAY))
    return scene


def failed_live() -> Scene:
    gates = {**LONELY.gates.by_stage, Stage.LIVE: (f_bound("volatility", 0.001),)}
    policy = replace(LONELY, gates=replace(LONELY.gates, by_stage=gates))
    scene = live(MemoryStore(), policy)
    observe(scene, Stage.LIVE, 3)
    scene.evaluate(ALPHA)
    return scene


def f_bound(metric: str, most: float) -> Any:
    return replace(LONELY.gates.of(Stage.LIVE)[0], metric=metric, max=most)


def released_backtest() -> Scene:
    """It passed while it was held; what follows is recorded without a new run."""
    scene = opened(MemoryStore(), LONELY)
    scene.bind(ALPHA)
    scene.demote(ALPHA)
    scene.submit(ALPHA, good(30))
    scene.release(ALPHA)
    scene.loop()
    return scene


def told_metrics() -> Scene:
    """A backtest run with a metric out of its request."""
    scene = opened(MemoryStore(), LONELY)
    scene.submit(ALPHA, good(30))
    scene.evaluate(ALPHA, Stage.BACKTEST, metrics={"trades_total": 12.0}, actor=cast.ANN)
    return scene


def two_at_once() -> Scene:
    """The loop applies two candidates in one commit: beta, and then alpha."""
    policy = replace(AUTO, governance=replace(AUTO.governance, cooldown=timedelta(0)))
    scene = in_paper(MemoryStore(), policy, ALPHA, BETA)
    for days in range(22):
        scene.wait(DAY)
        noise = 0.01 if days % 3 else -0.003
        returns = {ALPHA: 0.01 if days % 2 else -0.004, BETA: noise}
        scene.bar(Stage.PAPER, returns, stress={sid: {"crash": 0.1} for sid in returns})
    scene.cohort([ALPHA, BETA])
    scene.auto_apply()
    return scene


def of_an_older_run() -> Scene:
    """Proposed again on a run that is not the newest, but found the same."""
    scene = observed(MemoryStore(), LONELY)
    for name in ("mine", "again"):
        scene.evaluate(ALPHA, run_id=RunId(name))
    scene.add_policy(replace(LONELY, selection=None, risk=replace(LONELY.risk)), "another")
    scene.set_default(2)
    scene.set_default(1)
    scene.evaluate(ALPHA, run_id=RunId("mine"))
    return scene


DECISIONS: list[tuple[str, Callable[[], Scene], str, tuple[str, ...]]] = [
    ("a backtest", lambda: opened_and_submitted(), "evaluations_recorded", ("gate sharpe_annual",)),
    ("a cohort", lambda: proposed(MemoryStore()), "evaluations_recorded", ("cohort", "selected")),
    ("metrics of a request", told_metrics, "evaluations_recorded", ("run",)),
    ("into paper", lambda: in_paper(MemoryStore()), "phase_entered", ("window", "held")),
    ("into paper, released", released_backtest, "phase_entered", ("run",)),
    ("out of time", expired, "phase_entered", ("out of time",)),
    ("proposed", lambda: proposed(MemoryStore()), "candidate_proposed", ("observations",)),
    ("proposed for the next step", lambda: climbed(MemoryStore()), "candidate_proposed", ("run",)),
    ("proposed on an older run", of_an_older_run, "candidate_proposed", ("run",)),
    ("void since paper failed", failed_paper, "candidate_voided", ("gate max_drawdown",)),
    ("void since superseded", superseded, "candidate_voided", ("still current",)),
    ("void with its fingerprint", told_its_code, "candidate_voided", ("still current",)),
    ("blocked", blocked, "promotion_blocked", ("approvals", "live slots", "snapshot relied upon")),
    (
        "applied",
        lambda: live(MemoryStore()),
        "promotion_applied",
        ("approvals", "gate max_drawdown", "window", "live weight", "snapshot relied upon"),
    ),
    (
        "applied, two at once",
        two_at_once,
        "promotion_applied",
        ("correlation with beta", "live slots"),
    ),
    ("demoted by the breaker", crashed, "demoted", ("gate max_drawdown", "last return")),
    ("demoted for what a bar lost", lost_in_a_bar, "demoted", ("gate max_bar_loss",)),
    ("demoted under a new limit", beyond_a_new_limit, "demoted", ("gate max_drawdown",)),
    ("demoted by a run", failed_live, "demoted", ("gate volatility",)),
    ("demoted by a restatement", restated, "demoted", ("restatement",)),
]


def opened_and_submitted() -> Scene:
    scene = opened(MemoryStore(), LONELY)
    scene.submit(ALPHA, good(30))
    return scene


@pytest.mark.parametrize(
    ("what", "made", "kind", "inputs"), DECISIONS, ids=[case[0] for case in DECISIONS]
)
def test_a_decision_comes_out_again_with_its_inputs(
    what: str, made: Callable[[], Scene], kind: str, inputs: tuple[str, ...]
) -> None:
    found = again(made(), kind)
    assert (found.outcome, found.differences) == (Outcome.SAME, ())
    told = {each.name: each.value for each in found.inputs}
    assert all(told.get(name) for name in inputs), told


def test_every_kind_that_is_decided_has_a_case() -> None:
    assert {case[2] for case in DECISIONS} == DERIVED


def test_a_refusal_shows_its_inputs_with_their_numbers() -> None:
    told = {each.name: each.value for each in again(blocked(), "promotion_blocked").inputs}
    assert told["approvals"] == "0 of 2 valid"
    assert told["snapshot relied upon"].endswith("60 s old, good for 900 s: fresh")
    assert told["live weight"] == "10 %, and with the others 10 % of at most 80 %"
    assert told["gate max_drawdown"] == "at most 0.2: 0.004, pass"
    assert told["window"] == "11.0 of 10.0 days"
    assert told["observations"] == "12 of 8"


def test_nobody_is_correlated_with_itself() -> None:
    scene = climbed(MemoryStore())
    scene.apply(ALPHA)
    names = [each.name for each in again(scene, "promotion_applied").inputs]
    assert not [name for name in names if name.startswith("correlation")]


def test_a_fingerprint_that_is_told_later_is_no_new_strategy() -> None:
    scene = opened(MemoryStore())
    scene.bind(ALPHA, fingerprint=None)
    scene.bind(ALPHA, fingerprint="f1")
    said = [w.sentence for w in each(journal(scene)) if w.entry.fact.kind == "strategy_bound"]
    assert said == [
        "ann bound alpha to the world, written by ann.",
        "ann told the fingerprint of alpha.",
    ]


# ---- A journal that was edited -----------------------------------------------------------------


def numbers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every number in a fact that a person might change."""
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int | float):
        yield path
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from numbers(getattr(value, field.name), (*path, field.name))
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from numbers(part, (*path, key))
    elif isinstance(value, tuple):
        for number, part in enumerate(value):
            yield from numbers(part, (*path, number))


def edited(value: Any, path: tuple[Any, ...]) -> Any:
    """The value with the number at a path raised by a thousandth, or by one."""
    if not path:
        return value + 1 if isinstance(value, int) else value * 1.001 + 1e-6
    head, *rest = path
    if isinstance(value, dict):
        return {**value, head: edited(value[head], tuple(rest))}
    if isinstance(value, tuple):
        return (*value[:head], edited(value[head], tuple(rest)), *value[head + 1 :])
    return replace(value, **{head: edited(getattr(value, head), tuple(rest))})


@pytest.mark.parametrize(
    ("made", "kind"), [(case[1], case[2]) for case in DECISIONS], ids=[c[0] for c in DECISIONS]
)
def test_one_number_that_was_edited_is_found(made: Callable[[], Scene], kind: str) -> None:
    before, entry = last(made(), kind)
    store = store_of(just_before(WORLD, [*before, entry]))
    for path in numbers(entry.fact):
        if path[-2:] == ("trades_total", "value"):
            continue  # Of a request, and nowhere else: only the chain of hashes holds it.
        fact = edited(entry.fact, path)
        found = why(store, WORLD, replace(entry, fact=fact))
        assert found.outcome is Outcome.DIFFERENT, path
        assert found.differences, path


@pytest.mark.parametrize(
    ("made", "kind", "change"),
    [
        (lambda: live(MemoryStore()), "promotion_applied", {"run_id": "another"}),
        (lambda: live(MemoryStore()), "promotion_applied", {"weight": 0.4}),
        (crashed, "demoted", {"detail": "it was all fine"}),
        (crashed, "demoted", {"to": Phase.RETIRED}),
        (lambda: in_paper(MemoryStore()), "phase_entered", {"phase": Phase.RETIRED}),
        (blocked, "promotion_blocked", {"reasons": (Reason.HELD,)}),
    ],
)
def test_whatever_else_was_edited_is_found(
    made: Callable[[], Scene], kind: str, change: dict[str, Any]
) -> None:
    before, entry = last(made(), kind)
    wrong = replace(entry, fact=replace(entry.fact, **change))
    found = why(store_of(just_before(WORLD, [*before, entry])), WORLD, wrong)
    assert found.outcome is Outcome.DIFFERENT
    assert [d.where.partition(".")[0] for d in found.differences] == list(change)


def test_evidence_that_was_edited_changes_what_rests_on_it() -> None:
    """A return of before: the verdict that was recorded no longer follows."""
    entries = journal(proposed(MemoryStore()))
    bar = next(e for e in entries if isinstance(e.fact, f.SnapshotStored) and e.seq > 7)
    assert isinstance(bar.fact, f.SnapshotStored)
    points = replace(bar.fact.points, r=b"\0" * 8)
    entries[bar.seq - 1] = replace(bar, fact=replace(bar.fact, points=points))
    outcomes = {e.fact.kind: w for e, w in zip(entries, each(entries), strict=True)}
    assert outcomes["evaluations_recorded"].outcome is Outcome.DIFFERENT
    assert any("evidence" in d.where for d in outcomes["evaluations_recorded"].differences)


def test_what_would_not_have_been_decided_is_not_the_same() -> None:
    """A promotion of whom nobody approved, and one of a world that has no policy."""
    scene = proposed(MemoryStore())
    candidate = scene.candidate(ALPHA)
    entries = journal(scene)
    forged = f.PromotionApplied(
        candidate_id=candidate.candidate_id,
        strategy_id=ALPHA,
        run_id=candidate.run_id,
        evidence=candidate.evidence,
        snapshot_seq=19,
        step=0,
        weight=0.1,
    )
    head = entries[-1]
    entry = replace(head, seq=head.seq + 1, generation=head.generation + 1, fact=forged)
    found = why(store_of(just_before(WORLD, [*entries, entry])), WORLD, entry)
    assert found.outcome is Outcome.DIFFERENT
    assert found.differences[0].derived.startswith("promotion_blocked: ")
    lone = opened(MemoryStore())
    lone.bind(ALPHA)
    start = [e for e in journal(lone) if e.fact.kind not in ("default_policy_set",)]
    start = [replace(e, seq=number, generation=number) for number, e in enumerate(start, 1)]
    moved = f.PhaseEntered(strategy_id=ALPHA, phase=Phase.PAPER)
    entry = replace(start[-1], seq=len(start) + 1, generation=len(start) + 1, fact=moved)
    found = why(store_of(just_before(WORLD, [*start, entry])), WORLD, entry)
    assert found.outcome is Outcome.DIFFERENT
    assert found.differences[0].derived == "nothing"


def test_rounding_is_no_difference_and_a_thousandth_is() -> None:
    applied = again(live(MemoryStore()), "promotion_applied").entry.fact
    assert isinstance(applied, f.PromotionApplied)
    near = replace(applied, weight=applied.weight * (1 + 1e-12))
    far = replace(applied, weight=applied.weight * 1.001)
    assert differences(applied, near) == ()
    assert [d.where for d in differences(applied, far)] == ["weight"]


# ---- Every kind, and whole lives ---------------------------------------------------------------


def acts() -> Scene:
    """Everything that people may do, once."""
    scene = live(MemoryStore())
    scene.lower(ALPHA, Change(weight=0.05, freeze=True))
    scene.demote(ALPHA)
    scene.release(ALPHA)
    scene.extend(ALPHA, 30 * DAY)
    scene.kill()
    scene.dual_control = True
    pending = scene.resume()
    assert pending is not None
    scene.confirm(pending.confirmation_id)
    scene.dual_control = False
    scene.allow_live(False)
    return scene


def test_every_kind_of_fact_is_said_in_a_sentence() -> None:
    """Over histories that hold all of them, and the world of worlds beside."""
    said: dict[str, str] = {}
    for seed in range(12):
        history = History(Random(seed))
        world = World(WorldView(world_id=WorldId("w")), [])
        for commit in history.commits(60):
            written = entries_of(world.view, commit.facts, commit.actor, commit.at)
            for entry in written:
                said[entry.fact.kind] = happened(world.view, entry)
                world.journal.append(entry)
                world = after(world, entry)
    assert set(said) == set(KINDS)
    for kind, sentence in said.items():
        assert sentence.endswith("."), kind
        assert sentence.split()[0] in ("ann", "bob", "loop"), kind
        assert "_" not in kind or kind not in sentence


def test_a_persons_act_is_said_and_not_derived() -> None:
    found = {w.entry.fact.kind: w for w in each(journal(acts()))}
    killed = found["killed"]
    assert (killed.outcome, killed.sentence) == (Outcome.ACT, "otto killed the world (killed).")
    demoted = found["demoted"]
    assert demoted.outcome is Outcome.ACT
    assert demoted.sentence == (
        "otto took alpha down, which is on paper now, held until an operator releases it: enough."
    )
    assert found["confirmation_requested"].sentence == (
        "otto asked to resume the world: a second person has to confirm it."
    )
    assert found["confirmation_given"].sentence.startswith("paul settled what otto asked on 2026")
    assert found["activation_lowered"].sentence == (
        "otto set the live weight of alpha to 5 %, frozen."
    )
    assert found["campaign_extended"].sentence == (
        "otto gave alpha 30.0 days more on paper: nearly there."
    )
    snapshot = found["snapshot_stored"]
    assert (snapshot.outcome, snapshot.inputs[1].name) == (Outcome.ACT, ALPHA)
    assert snapshot.inputs[1].value == "1 new return, weight 1"


SEEDS = range(6)


@pytest.mark.parametrize("seed", SEEDS)
def test_in_any_life_every_decision_comes_out_again(seed: int) -> None:
    scene = Scene(MemoryStore())
    scene.store.write(lambda: [*play(scene, seed, 30, refusable(scene))])
    decided = 0
    for found in each(journal(scene)):
        kind = found.entry.fact.kind
        assert found.outcome is not Outcome.DIFFERENT, (found.entry, found.differences)
        by_hand = kind == "demoted" and found.outcome is Outcome.ACT
        assert (found.outcome is Outcome.ACT) is (kind not in DERIVED or by_hand), kind
        decided += found.outcome is Outcome.SAME
    assert decided >= 5


# ---- Off the wire ------------------------------------------------------------------------------


def told(scene: Scene) -> list[dict[str, Any]]:
    return [dict(wire_entry(e)) for e in scene.store.journal(scene.world_id, 0, 1_000)]


def test_what_comes_off_the_wire_is_what_was_written() -> None:
    scene = climbed(MemoryStore())
    assert journal(scene) == scene.store.journal(scene.world_id, 0, 1_000)


@pytest.mark.parametrize(
    ("change", "why_"),
    [
        ({"seq": "1"}, "is no entry's"),
        ({"generation": None}, "entry 1: generation"),
        ({"at": "yesterday"}, "entry 1: at must be"),
        ({"kind": "killed"}, "its kind or stream"),
        ({"stream": "evidence"}, "its kind or stream"),
        ({"fact": {"kind": "live_allowed"}}, "its fact cannot be read: live_allowed.allowed"),
        ({"fact": {"kind": "live_allowed", "allowed": True, "more": 1}}, "cannot be read"),
        ({"fact": None}, "cannot be read"),
    ],
)
def test_what_is_no_entry_is_refused(change: dict[str, Any], why_: str) -> None:
    first = told(opened(MemoryStore()))[0]
    with pytest.raises(Invalid, match=why_):
        entry_of({**first, **change})


def test_a_gap_and_a_generation_that_does_not_follow_are_refused() -> None:
    entries = journal(opened(MemoryStore()))
    with pytest.raises(Invalid, match="entry 2 is missing: 3 comes instead"):
        just_before(WORLD, [entries[0], entries[2]])
    with pytest.raises(Invalid, match="entry 2: generation 7 follows 1"):
        just_before(WORLD, [entries[0], replace(entries[1], generation=7)])


def test_an_entry_that_does_not_fit_is_named() -> None:
    entries = journal(opened(MemoryStore()))
    stranger = replace(
        entries[-1],
        seq=len(entries) + 1,
        fact=f.PhaseEntered(strategy_id=StrategyId("nobody"), phase=Phase.PAPER),
    )
    with pytest.raises(Invalid, match=f"entry {len(entries) + 1} does not fit"):
        just_before(WORLD, [*entries, stranger])


def test_a_run_of_before_a_metric_was_known_comes_out_as_it_was() -> None:
    before, entry = last(proposed(MemoryStore()), "evaluations_recorded")
    assert isinstance(entry.fact, f.EvaluationsRecorded)

    def without(name: str) -> Why:
        assert isinstance(entry.fact, f.EvaluationsRecorded)
        runs = tuple(
            replace(run, metrics={n: m for n, m in run.metrics.items() if n != name})
            for run in entry.fact.runs
        )
        told = replace(entry, fact=replace(entry.fact, runs=runs))
        return why(store_of(just_before(WORLD, [*before, told])), WORLD, told)

    assert without("max_bar_loss").outcome is Outcome.SAME
    assert without("max_drawdown").outcome is Outcome.DIFFERENT
