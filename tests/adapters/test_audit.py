"""`adapters/audit`: what was allowed is ok, and one broken thing in a forged journal is found."""

import ast
import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from qmtl.adapters import audit as package
from qmtl.adapters.audit.allowed import Transition, Unreadable, audit
from qmtl.adapters.audit.evidence import STANDARD
from qmtl.adapters.memory import MemoryStore
from qmtl.core.activation import Change
from qmtl.sim.scene import DAY
from tests.exports import Told, chained, exported, told_of
from tests.worlds import ALPHA, AUTO, climbed, live

W = "w"
Entry = dict[str, Any]
Forge = Callable[[Told], None]


@cache
def _whole() -> str:
    """Alpha live at its first step, and then at its second."""
    scene = climbed(MemoryStore())
    scene.apply(ALPHA)
    return json.dumps(told_of(scene.store, scene.world_id))


def whole() -> Told:
    told: Told = json.loads(_whole())
    return told


def found(told: Told) -> list[Transition]:
    return audit(exported(chained(told, W), W))


def of(told: Told, kind: str, nth: int = 0) -> Entry:
    return [entry for entry in told if entry["kind"] == kind][nth]


def before(told: Told, entry: Entry, kind: str, actor: str = "otto", /, **fact: Any) -> None:
    """Another entry just before this one, at the same instant."""
    new = {**entry, "actor": actor, "kind": kind, "fact": {**fact, "kind": kind}}
    told.insert(told.index(entry), new)


def first(told: Told) -> Entry:
    return of(told, "promotion_applied")


def second(told: Told) -> Entry:
    return of(told, "promotion_applied", 1)


def governance(told: Told) -> Any:
    return of(told, "policy_added")["fact"]["policy"]["governance"]


def asked(told: Told, e_value: float) -> None:
    """The policy asks for evidence after all."""
    policy = of(told, "policy_added")["fact"]["policy"]
    policy["evidence"] = {"alpha": 0.05, "multiplicity": "e_bh", "paper": dict(STANDARD)}
    policy["governance"]["ramp"][0]["e_value"] = e_value


def candidate(told: Told) -> str:
    return str(first(told)["fact"]["candidate_id"])


def later(entry: Entry, span: timedelta) -> None:
    at = datetime.fromisoformat(entry["at"]) + span
    entry["at"] = at.isoformat().replace("+00:00", "Z")


def run_of(told: Told, nth: int) -> Any:
    return of(told, "evaluations_recorded", nth)["fact"]["runs"][0]


def newest_snapshot(told: Told) -> Any:
    """The one that the first promotion relied on."""
    return told[first(told)["fact"]["snapshot_seq"] - 1]["fact"]


def approval(told: Told) -> Entry:
    return of(told, "approval_given")


def crowd(told: Told, weight: float, count: int = 1) -> None:
    """Others, live already at this weight, as an edited journal would have it."""
    entry = first(told)
    for i in range(count):
        bound = of(told, "strategy_bound")["fact"]
        before(told, entry, "strategy_bound", **{**bound, "strategy_id": f"other{i}"})
        applied = {
            **entry["fact"],
            "strategy_id": f"other{i}",
            "candidate_id": "",
            "weight": weight,
        }
        before(told, entry, "promotion_applied", **applied)


def each(*forges: Forge) -> Forge:
    """One after the other."""

    def forge(told: Told) -> None:
        for one in forges:
            one(told)

    return forge


FORGED: list[tuple[str, Forge, str]] = [
    (
        "live was never allowed",
        lambda t: t.remove(of(t, "live_allowed")),
        "the world did not allow live",
    ),
    (
        "live was forbidden before",
        lambda t: before(t, first(t), "live_allowed", allowed=False),
        "the world did not allow live",
    ),
    ("killed before", lambda t: before(t, first(t), "killed", reason=""), "the world was killed"),
    (
        "suspended before",
        lambda t: before(t, first(t), "state_changed", state="suspended"),
        "the world was suspended",
    ),
    (
        "the policy promotes nobody",
        lambda t: governance(t)["live_promotion"].update(mode="disabled"),
        "policy 1 promotes nobody to live",
    ),
    ("no policy", lambda t: t.remove(of(t, "default_policy_set")), "no policy was in force"),
    (
        "the policy asks for evidence",
        lambda t: asked(t, e_value=3.0),
        "its e-value was None; the step asks for 3",
    ),
    (
        "another policy since",
        each(
            lambda t: before(
                t, first(t), "policy_added", **{**of(t, "policy_added")["fact"], "version": 2}
            ),
            lambda t: before(t, first(t), "default_policy_set", version=2),
        ),
        "the candidate was void",
    ),
    (
        "held",
        lambda t: before(
            t,
            of(t, "candidate_proposed"),
            "demoted",
            strategy_id="alpha",
            to="paper_campaign",
            reason="manual",
            detail="",
            held=True,
        ),
        "it was demoted by hand, and held",
    ),
    (
        "a freeze is open",
        lambda t: governance(t)["freeze"].append({"cron": "0 0 17 * *", "length": "P0DT3600S"}),
        "a freeze of policy 1 was open",
    ),
    (
        "nobody proposed it",
        lambda t: first(t)["fact"].update(candidate_id="0" * 24),
        "nobody had proposed the candidate",
    ),
    (
        "rejected",
        lambda t: before(t, first(t), "candidate_rejected", candidate_id=candidate(t), reason=""),
        "the candidate was rejected",
    ),
    (
        "void",
        lambda t: before(t, first(t), "candidate_voided", candidate_id=candidate(t), reason="x"),
        "the candidate was void",
    ),
    (
        "of another policy",
        lambda t: of(t, "candidate_proposed")["fact"].update(policy_version=2),
        "the candidate was of policy 2, not 1",
    ),
    (
        "of another fingerprint",
        lambda t: of(t, "candidate_proposed")["fact"].update(fingerprint="f2"),
        "the candidate was of another fingerprint",
    ),
    (
        "of another entry",
        lambda t: of(t, "candidate_proposed")["fact"].update(entered_at="2026-01-04T00:00:00Z"),
        "the candidate was of another entry into the phase",
    ),
    (
        "of another strategy",
        lambda t: of(t, "candidate_proposed")["fact"].update(strategy_id="beta"),
        "the candidate was of beta",
    ),
    (
        "an approval is missing",
        lambda t: t.remove(approval(t)),
        "it had 1 of 2 approvals that count",
    ),
    (
        "an approval was withdrawn",
        lambda t: before(t, first(t), "approval_withdrawn", "pia", candidate_id=candidate(t)),
        "it had 1 of 2 approvals that count",
    ),
    (
        "an approval expired",
        lambda t: later(approval(t), -3 * DAY),
        "it had 1 of 2 approvals that count",
    ),
    (
        "the author approved",
        lambda t: approval(t).update(actor="ann"),
        "it had 1 of 2 approvals that count",
    ),
    (
        "the proposer approved",
        lambda t: approval(t).update(actor="loop"),
        "it had 1 of 2 approvals that count",
    ),
    (
        "one approved twice",
        lambda t: approval(t).update(actor="pete"),
        "it had 1 of 2 approvals that count",
    ),
    (
        "one made the credential of the other",
        lambda t: approval(t)["fact"].update(sponsor="pete"),
        "it had 1 of 2 approvals that count",
    ),
    (
        "the author made a credential",
        lambda t: approval(t)["fact"].update(sponsor="ann"),
        "it had 1 of 2 approvals that count",
    ),
    (
        "the approvals were for what was released since",
        each(
            lambda t: before(
                t, first(t), "candidate_rejected", candidate_id=candidate(t), reason=""
            ),
            lambda t: before(
                t, first(t), "candidate_released", candidate_id=candidate(t), reason=""
            ),
        ),
        "it had 0 of 2 approvals that count",
    ),
    (
        "the paper run failed",
        lambda t: run_of(t, 1).update(verdict="fail"),
        "the verdict of its latest paper run was fail",
    ),
    (
        "the paper run is inconclusive",
        lambda t: run_of(t, 1).update(verdict="inconclusive"),
        "the verdict of its latest paper run was inconclusive",
    ),
    (
        "there is no paper run",
        lambda t: t.remove(of(t, "evaluations_recorded", 1)),
        "there was no paper run since it entered the phase",
    ),
    (
        "judged by another policy",
        lambda t: run_of(t, 1).update(policy_version=2),
        "its latest paper run was judged by policy 2",
    ),
    (
        "another run is the latest",
        lambda t: run_of(t, 1).update(run_id="another"),
        "the latest was another",
    ),
    (
        "the window is short",
        lambda t: run_of(t, 1).update(observed_sec=9.5 * 86_400),
        "its paper window was 9.5 of 10 days",
    ),
    (
        "too few observations",
        lambda t: run_of(t, 1).update(observations=7),
        "it had 7 of 8 paper observations",
    ),
    (
        "not selected",
        lambda t: of(t, "evaluations_recorded", 1)["fact"].update(selected=[]),
        "the latest cohort had not selected it",
    ),
    (
        "the snapshot expired",
        lambda t: newest_snapshot(t).update(ttl_sec=59),
        "the snapshot had expired",
    ),
    (
        "the snapshot is older than the policy takes",
        lambda t: of(t, "policy_added")["fact"]["policy"]["risk"].update(
            snapshot_max_age="P0DT59S"
        ),
        "the snapshot was stale",
    ),
    (
        "the snapshot is from the future",
        lambda t: newest_snapshot(t).update(as_of="2026-01-17T00:02:01Z"),
        "the snapshot was from the future",
    ),
    (
        "the snapshot does not have it",
        lambda t: newest_snapshot(t).update(covered=[]),
        "the newest paper one was another",
    ),
    (
        "it relied on another snapshot",
        lambda t: first(t)["fact"].update(snapshot_seq=18),
        "it relied on the snapshot of entry 18",
    ),
    (
        "too much stress",
        lambda t: newest_snapshot(t).update(stress={"alpha": {"crash": 0.26}}),
        "its stress loss was 0.26, at most 0.25",
    ),
    (
        "stress unknown",
        lambda t: newest_snapshot(t).update(stress=None),
        "its stress loss was None, at most 0.25",
    ),
    ("slots full", lambda t: crowd(t, 0.1, 2), "2 of 2 live slots were taken"),
    ("too much weight", lambda t: crowd(t, 0.75), "live weight came to 0.85, at most 0.8"),
    (
        "what was taken back is still acted on",
        each(
            lambda t: crowd(t, 0.75),
            lambda t: before(
                t,
                first_of_alpha(t),
                "demoted",
                strategy_id="other0",
                to="retired",
                reason="manual",
                detail="",
                held=True,
            ),
        ),
        "live weight came to 0.85, at most 0.8",
    ),
    ("cooling down", lambda t: crowd(t, 0.1), "the cooldown is 1 day"),
    (
        "wrong weight",
        lambda t: first(t)["fact"].update(weight=0.2),
        "its weight was 0.2; the ramp gives 0.1",
    ),
    (
        "a step is skipped",
        lambda t: first(t)["fact"].update(step=1, weight=0.4),
        "it took ramp step 2; the next was 1",
    ),
    (
        "beyond the ramp",
        lambda t: first(t)["fact"].update(step=2),
        "the ramp of policy 1 has 2 steps",
    ),
    (
        "the live run failed",
        lambda t: run_of(t, 2).update(verdict="fail"),
        "the verdict of its latest live run was fail",
    ),
    (
        "not observed long enough for the step",
        lambda t: run_of(t, 2).update(observed_sec=4 * 86_400),
        "its live window was 4 of 5 days",
    ),
    (
        "demoted since",
        lambda t: before(
            t,
            second(t),
            "demoted",
            strategy_id="alpha",
            to="paper_campaign",
            reason="drawdown_breached",
            detail="",
            held=False,
        ),
        "it was in paper_campaign, not in live_campaign",
    ),
    (
        "its history was restated since",
        lambda t: before(
            t,
            first(t),
            "series_restated",
            stage="paper",
            strategy_id="alpha",
            reason="",
            points=newest_snapshot(t)["points"],
        ),
        "the candidate was void",
    ),
    (
        "weight by hand, above what was applied",
        lambda t: before(
            t,
            second(t),
            "activation_lowered",
            strategy_id="alpha",
            weight=0.2,
            freeze=False,
            drain=False,
        ),
        "weight 0.2 is above the 0.1 that was applied",
    ),
    (
        "weight by hand, after a kill",
        each(
            lambda t: before(t, second(t), "killed", reason=""),
            lambda t: before(
                t,
                second(t),
                "activation_lowered",
                strategy_id="alpha",
                weight=0.1,
                freeze=False,
                drain=False,
            ),
        ),
        "it was not live: only a promotion gives weight",
    ),
]


def first_of_alpha(told: Told) -> Entry:
    applied = [entry for entry in told if entry["kind"] == "promotion_applied"]
    return next(entry for entry in applied if entry["fact"]["strategy_id"] == "alpha")


def test_what_was_allowed_is_ok() -> None:
    assert [(each.what, each.violations) for each in found(whole())] == [
        ("live at ramp step 1, weight 0.1", ()),
        ("live at ramp step 2, weight 0.4", ()),
    ]


@pytest.mark.parametrize(
    ("forge", "said"), [case[1:] for case in FORGED], ids=[c[0] for c in FORGED]
)
def test_one_broken_thing_is_found(forge: Forge, said: str) -> None:
    told = whole()
    forge(told)
    assert told != whole()
    violations = [violation for each in found(told) for violation in each.violations]
    matching = [violation for violation in violations if said in violation.what]
    assert matching, [violation.what for violation in violations]


def test_a_violation_names_the_entries_that_it_rests_on() -> None:
    told = whole()
    before(told, first(told), "killed", reason="")
    killed = told.index(of(told, "killed")) + 1
    broken = found(told)[0].violations
    assert killed in next(v.rests_on for v in broken if "was killed" in v.what)


def test_a_weight_may_be_given_back_up_to_what_was_applied() -> None:
    scene = live(MemoryStore())
    scene.lower(ALPHA, Change(weight=0.05))
    scene.lower(ALPHA, Change(freeze=True))
    scene.lower(ALPHA, Change(weight=0.1, freeze=False))
    transitions = audit(exported(told_of(scene.store, scene.world_id), W))
    assert [(each.what, each.violations) for each in transitions[1:]] == [
        ("weight 0.1 by hand", ())
    ]


def test_applying_by_itself_takes_no_approval() -> None:
    scene = live(MemoryStore(), AUTO)
    (only,) = audit(exported(told_of(scene.store, scene.world_id), W))
    assert not only.violations


@pytest.mark.parametrize(
    "fact", [{"kind": "of_next_year"}, {"kind": "demoted", "strategy_id": "x"}]
)
def test_what_it_cannot_read_it_says(fact: dict[str, Any]) -> None:
    told = [*whole(), {**first(whole()), "kind": fact["kind"], "fact": fact}]
    with pytest.raises(Unreadable, match=rf"entry {len(told)} \({fact['kind']}\)"):
        found(told)


def test_it_imports_nothing_of_the_code_that_it_checks() -> None:
    def imported(path: Path) -> Iterator[str]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (name.name for name in node.names)
            elif isinstance(node, ast.ImportFrom):
                where = "." * node.level + (node.module or "")
                yield from [where] if node.module else (where + name.name for name in node.names)

    files = sorted(Path(str(package.__file__)).parent.glob("*.py"))
    assert len(files) == 4
    ours = {name for path in files for name in imported(path) if name.startswith(("qmtl", "."))}
    assert ours == {".evidence", ".past", "qmtl.adapters.wire.verify"}
