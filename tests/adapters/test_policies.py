"""Policy documents: what is accepted, what is refused and in which words, and what is implied."""

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, get_args

import jsonschema_rs
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from qmtl.adapters import policies
from qmtl.adapters.policies import checksum, document, parse, schema, shipped
from qmtl.adapters.policies.documents import DOCUMENT_BYTES_MAX, JSON, YAML
from qmtl.core import implications as implied
from qmtl.core.errors import Invalid, Malformed, Refusal, TooLarge, UnknownPolicy
from qmtl.core.metrics import UNITS
from qmtl.core.names import Role, Stage
from qmtl.core.policy import (
    FULL_STEP,
    STANDARD_RAMP,
    AutoApply,
    Bound,
    Campaign,
    Consistency,
    Data,
    Disabled,
    Evidence,
    Freeze,
    Futility,
    Gates,
    Governance,
    Hysteresis,
    ManualApproval,
    OnMissing,
    PaperEvidence,
    Policy,
    RampStep,
    Risk,
    Selection,
    TopK,
    Window,
)

Document = dict[str, Any]
Path = tuple[str | int, ...]

STANDARD: Document = yaml.safe_load(shipped("standard"))  # POLICY's example: a key of every kind.
VALIDATOR = jsonschema_rs.validator_for(schema())
LIVE = "governance.live_promotion"
REMOVED = object()
DAY = timedelta(days=1)


def broken(path: str, value: object) -> Document:
    """STANDARD with one thing changed, added, or `REMOVED`."""
    changed = copy.deepcopy(STANDARD)
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner: Any = changed
    for part in way:
        inner = inner[part]
    if value is REMOVED:
        del inner[last]
    else:
        inner[last] = value
    return changed


def problems(found: Document | str) -> list[str]:
    text = found if isinstance(found, str) else json.dumps(found)
    with pytest.raises(Invalid) as caught:
        parse(text, YAML if isinstance(found, str) else JSON)
    assert caught.value.status == 422
    return [str(problem) for problem in caught.value.args]


def parsed(found: Document) -> Policy:
    return parse(json.dumps(found), JSON)


# ---- What is accepted ------------------------------------------------------------------------


def test_the_shipped_policies_parse_and_match_the_schema() -> None:
    for name in policies.SHIPPED:
        parse(shipped(name))
        VALIDATOR.validate(yaml.safe_load(shipped(name)))
    with pytest.raises(UnknownPolicy):
        shipped("../policies/standard")


def test_standard_means_what_it_says() -> None:
    policy = parse(shipped("standard"))
    assert policy == Policy(
        gates=Gates(
            by_stage={
                Stage.BACKTEST: (
                    Bound(metric="max_drawdown", max=0.30),
                    Bound(metric="sharpe_annual", min=0.5),
                    Bound(metric="trades_total", min=30),
                ),
                Stage.PAPER: (Bound(metric="max_drawdown", max=0.20),),
                Stage.LIVE: (Bound(metric="max_drawdown", max=0.15),),
            }
        ),
        selection=Selection(
            top_k=TopK(metric="sharpe_annual", k=10),
            correlation_max=0.8,
            hysteresis=Hysteresis(metric="sharpe_annual", enter=0.6, exit=0.3),
        ),
        governance=Governance(
            live_promotion=ManualApproval(),
            freeze=(Freeze(cron="0 20 * * FRI", length=timedelta(hours=60)),),
        ),
        risk=Risk(max_stress_loss=0.25, max_pairwise_correlation_to_live=0.8),
    )


def test_the_other_two_are_what_they_are_for() -> None:
    sandbox, conservative = parse(shipped("sandbox")), parse(shipped("conservative"))
    assert sandbox.evidence is None
    assert sandbox.governance.ramp == (FULL_STEP,)
    assert sandbox.governance.live_promotion == ManualApproval(min=1)
    assert (sandbox.governance.cooldown, sandbox.governance.max_live_slots) == (timedelta(0), 5)
    assert sandbox.campaign.backtest == Window(span=365 * DAY, min_observations=252)
    assert (sandbox.campaign.paper.span, sandbox.campaign.paper.min_observations) == (20 * DAY, 10)
    for policy in (sandbox, conservative):
        for stage in (Stage.BACKTEST, Stage.PAPER, Stage.LIVE):
            assert "max_drawdown" in {bound.metric for bound in policy.gates.of(stage)}
    assert conservative.evidence is not None
    assert conservative.evidence.paper.method == "bounded"
    assert conservative.risk.max_stress_loss is not None


LEFT_OUT = [
    ({}, Policy()),
    ({"gates": {"paper": {}}}, Policy()),
    ({"campaign": {"paper": {}}}, Policy()),
    ({"evidence": {"paper": {"method": "t_mixture"}}}, Policy()),
    ({"selection": {}, "risk": {}, "governance": {}}, Policy()),
    ({"evidence": "none"}, Policy(evidence=None, governance=Governance(ramp=(FULL_STEP,)))),
    (
        {"governance": {"live_promotion": {"mode": "manual_approval"}}},
        Policy(governance=Governance(live_promotion=ManualApproval(), ramp=STANDARD_RAMP)),
    ),
    (
        {
            "governance": {"live_promotion": {"mode": "auto_apply"}},
            "risk": {"max_stress_loss": 0.2},
        },
        Policy(governance=Governance(live_promotion=AutoApply()), risk=Risk(max_stress_loss=0.2)),
    ),
    (
        {
            "governance": {"live_promotion": {"mode": "auto_apply"}},
            "evidence": {"paper": {"method": "bounded"}},
        },
        Policy(
            governance=Governance(live_promotion=AutoApply()),
            evidence=Evidence(paper=PaperEvidence(method="bounded")),
        ),
    ),
    (
        {
            "governance": {
                "live_promotion": {
                    "mode": "auto_apply",
                    "ramp": [{"fraction": 0.5}, {"fraction": 1}],
                }
            },
            "evidence": "none",
        },
        Policy(
            governance=Governance(
                live_promotion=AutoApply(), ramp=(RampStep(fraction=0.5), FULL_STEP)
            ),
            evidence=None,
        ),
    ),
    (
        {"evidence": dict.fromkeys(("selection", "futility", "consistency", "decay"), "none")},
        Policy(
            evidence=Evidence(
                selection_max_p=None, futility=None, consistency=None, decay_mean_false_alarm=None
            )
        ),
    ),
    (
        {"campaign": {"paper": {"max_window": None}}},
        Policy(campaign=Campaign(paper=replace(Campaign().paper, max_window=None))),
    ),
]


@pytest.mark.parametrize(("given_keys", "meant"), LEFT_OUT)
def test_what_is_left_out_means_what_policy_says(given_keys: Document, meant: Policy) -> None:
    assert parsed({"version": 1, **given_keys}) == meant


def test_dryrun_is_paper() -> None:
    bound = {"max_drawdown": {"max": 0.2}}
    aliased, named = ({"version": 1, "gates": {name: bound}} for name in ("dryrun", "paper"))
    assert checksum(parsed(aliased)) == checksum(parsed(named))
    assert "dryrun" not in document(parsed(aliased))["gates"]


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("72h", timedelta(hours=72)),
        ("5d", timedelta(days=5)),
        ("4w", timedelta(weeks=4)),
        ("36525d", timedelta(days=36525)),
    ],
)
def test_lengths(text: str, length: timedelta) -> None:
    assert parsed(broken("data.max_lag", text)).data.max_lag == length


def test_the_same_meaning_has_the_same_checksum_however_it_is_written() -> None:
    backwards = json.dumps(dict(reversed(STANDARD.items())), indent=1)
    spelled = broken("governance.live_promotion.freeze", ["0  20 * * fri/3600m"])
    spelled["governance"]["live_promotion"]["cooldown"] = "1d"
    spelled["data"]["periods_per_year"] = 252.0
    del spelled["evidence"], spelled["campaign"], spelled["risk"]["snapshot_max_age"]
    sums = {
        checksum(parse(shipped("standard"))),
        checksum(parse(shipped("standard").encode(), "application/yaml; charset=utf-8")),
        checksum(parse(backwards, "Application/JSON")),
        checksum(parsed(spelled)),
    }
    assert len(sums) == 1
    assert sums != {checksum(parsed(broken("data.max_lag", "6d")))}
    assert sums.pop().startswith("sha256:")


def test_the_checksum_of_standard_stays() -> None:
    """It is recorded in journals: a change of the canonical form would be a new policy to all."""
    assert checksum(parse(shipped("standard"))) == (
        "sha256:0480b6058252053ca20c549c31cc9a3585bbe182d2f0484bd1060c38b13ca008"
    )


# ---- What is refused -------------------------------------------------------------------------

BROKEN = [
    # The document.
    ("version", REMOVED, "version", "is missing"),
    ("version", 2, "version", "at most 1, not 2"),
    ("version", True, "version", "must be a whole number, not true"),
    ("gate", {}, "gate", "Did you mean gates?"),
    ("zzz", {}, "zzz", "Known here: version, data, campaign, gates"),
    ("data", None, "data", "must be a group of keys, not nothing"),
    ("evidence", None, "evidence", "is empty: write none to do without"),
    ("evidence", "nothing", "evidence", "must be a group of keys, not 'nothing'"),
    ("evidence", False, "evidence", "must be a group of keys, not false"),
    ("gates", [], "gates", "must be a group of keys, not a list"),
    # Numbers.
    ("data.periods_per_year", "252", "data.periods_per_year", "must be a number, not '252'"),
    ("data.periods_per_year", True, "data.periods_per_year", "must be a number, not true"),
    ("data.periods_per_year", None, "data.periods_per_year", "must be a number, not nothing"),
    ("data.periods_per_year", 0, "data.periods_per_year", "at least 1, not 0"),
    ("campaign.paper.min_observations", 40.0, "campaign.paper.min_observations", "whole number"),
    ("campaign.paper.min_observations", 0, "campaign.paper.min_observations", "at least 1"),
    ("campaign.paper.min_observations", 10**9, "campaign.paper.min_observations", "at most 10000"),
    # Lengths.
    ("data.max_lag", 5, "data.max_lag", "must be a length of time such as 90s"),
    ("data.max_lag", "5", "data.max_lag", "not '5'"),
    ("data.max_lag", "", "data.max_lag", "must be a length of time"),
    ("data.max_lag", "d", "data.max_lag", "must be a length of time"),
    ("data.max_lag", "-5d", "data.max_lag", "must be a length of time"),
    ("data.max_lag", "5 d", "data.max_lag", "must be a length of time"),
    ("data.max_lag", "5d\n", "data.max_lag", "must be a length of time"),
    ("data.max_lag", "5M", "data.max_lag", "must be a length of time"),
    ("data.max_lag", "05d", "data.max_lag", "must be a length of time"),
    ("data.max_lag", "٥d", "data.max_lag", "must be a length of time"),
    ("data.max_lag", "P5D", "data.max_lag", "must be a length of time"),
    ("data.max_lag", "0d", "data.max_lag", "must be longer than nothing"),
    ("data.max_lag", "36526d", "data.max_lag", "must be at most 36525d, not 36526d"),
    ("campaign.backtest.window", "0d", "campaign.backtest.window", "longer than nothing"),
    ("campaign.backtest.max_window", "9d", "campaign.backtest.max_window", "not a key"),
    ("campaign.paper.max_window", "59d", "campaign.paper.max_window", "59d is shorter than the"),
    ("campaign.evaluate_every", "0s", "campaign.evaluate_every", "longer than nothing"),
    # Gates.
    ("gates.backtest.sharpe", {"min": 1}, "gates.backtest.sharpe", "mean sharpe_annual?"),
    ("gates.paper.max_drawdow", {"max": 1}, "gates.paper.max_drawdow", "mean max_drawdown?"),
    ("gates.live.stress", {"max": 1}, "gates.live.stress", "not a metric here"),
    ("gates.paper.max_drawdown", {}, "gates.paper.max_drawdown", "needs a min or a max"),
    ("gates.paper.max_drawdown", None, "gates.paper.max_drawdown", "is empty"),
    ("gates.paper.max_drawdown", 0.2, "gates.paper.max_drawdown", "group of keys, not 0.2"),
    ("gates.paper.max_drawdown.max", None, "gates.paper.max_drawdown.max", "is empty"),
    ("gates.paper.max_drawdown.max", 20, "gates.paper.max_drawdown.max", "at most 1, not 20 (max"),
    ("gates.paper.max_drawdown.max", -0.2, "gates.paper.max_drawdown.max", "at least 0"),
    ("gates.paper.max_drawdown.min", 0.3, "gates.paper.max_drawdown.min", "above max, 0.2"),
    ("gates.backtest.trades_total.min", -1, "gates.backtest.trades_total.min", "at least 0"),
    ("gates.backtest.sharpe_annual.min", 50, "gates.backtest.sharpe_annual.min", "at most 20"),
    ("gates.backtest", None, "gates.backtest", "must be a group of keys, not nothing"),
    ("gates.dryrun", {}, "gates.dryrun", "is another name of paper"),
    ("gates.on_missing", "pass", "gates.on_missing", "'fail' or 'inconclusive', not 'pass'"),
    # Evidence.
    ("evidence.alpha", 0, "evidence.alpha", "at least 1e-06, not 0"),
    ("evidence.alpha", 1, "evidence.alpha", "below 1, not 1"),
    ("evidence.multiplicity", "bonferroni", "evidence.multiplicity", "'e_bh', 'spending' or"),
    ("evidence.trials_default", 0, "evidence.trials_default", "at least 1"),
    ("evidence.selection", None, "evidence.selection", "is empty: write none"),
    ("evidence.selection.max_p", 1.5, "evidence.selection.max_p", "below 1"),
    ("evidence.paper", "none", "evidence.paper", "must be a group of keys"),
    ("evidence.paper.method", "t", "evidence.paper.method", "'t_mixture', 'bounded' or"),
    ("evidence.paper.hurdle_annual", 5, "evidence.paper.hurdle_annual", "at most 1"),
    ("evidence.paper.block", 0, "evidence.paper.block", "at least 1"),
    ("evidence.paper.design_sharpe_annual", 0, "evidence.paper.design_sharpe_annual", "above 0"),
    ("evidence.paper.backtest_credit_cap", 4, "evidence.paper.backtest_credit_cap", "at most 3"),
    ("evidence.futility.sharpe_annual", -1, "evidence.futility.sharpe_annual", "above 0"),
    ("evidence.futility.beta", 1, "evidence.futility.beta", "below 1"),
    ("evidence.consistency.alpha", 0, "evidence.consistency.alpha", "at least 1e-06"),
    ("evidence.decay.mean_false_alarm", 1, "evidence.decay.mean_false_alarm", "at least 2"),
    # Selection.
    ("selection.top_k", None, "selection.top_k", "is empty"),
    ("selection.top_k.k", 0, "selection.top_k.k", "at least 1"),
    ("selection.top_k.k", REMOVED, "selection.top_k.k", "is missing"),
    ("selection.top_k.metric", "sharp", "selection.top_k.metric", "Did you mean sharpe_annual?"),
    ("selection.correlation.max", 1.1, "selection.correlation.max", "at most 1"),
    ("selection.correlation.max", -1.1, "selection.correlation.max", "at least -1"),
    ("selection.hysteresis.exit", 0.7, "selection.hysteresis.exit", "0.7 is above enter, 0.6"),
    ("selection.hysteresis.metric", "pnl", "selection.hysteresis.metric", "is not a metric"),
    # Governance.
    ("governance.live_promotion", {}, f"{LIVE}.mode", "is missing"),
    (f"{LIVE}.mode", "automatic", f"{LIVE}.mode", "'disabled', 'manual_approval' or 'auto_apply'"),
    (f"{LIVE}.mode", "auto_apply", f"{LIVE}.approvers", "nobody approves under auto_apply"),
    (f"{LIVE}.approvers", None, f"{LIVE}.approvers", "is empty"),
    (f"{LIVE}.approvers.min", 0, f"{LIVE}.approvers.min", "at least 1"),
    (f"{LIVE}.approvers.roles", [], f"{LIVE}.approvers.roles", "at least 1, not 0"),
    (f"{LIVE}.approvers.roles", ["boss"], f"{LIVE}.approvers.roles[0]", "not 'boss'"),
    (f"{LIVE}.approvers.roles", "approver", f"{LIVE}.approvers.roles", "must be a list"),
    (f"{LIVE}.approvers.expires", "0h", f"{LIVE}.approvers.expires", "longer than nothing"),
    (f"{LIVE}.cooldown", -1, f"{LIVE}.cooldown", "must be a length of time"),
    (f"{LIVE}.max_live_slots", 0, f"{LIVE}.max_live_slots", "at least 1"),
    (f"{LIVE}.max_live_weight", 0, f"{LIVE}.max_live_weight", "above 0"),
    (f"{LIVE}.max_live_weight", 1.5, f"{LIVE}.max_live_weight", "at most 1, not 1.5"),
    (f"{LIVE}.freeze", "0 20 * * FRI/60h", f"{LIVE}.freeze", "must be a list"),
    (f"{LIVE}.freeze", [60], f"{LIVE}.freeze[0]", 'must be "cron start/length"'),
    (f"{LIVE}.freeze", ["0 20 * * FRI"], f"{LIVE}.freeze[0]", "five cron fields"),
    (f"{LIVE}.freeze", ["*/5 * * * *"], f"{LIVE}.freeze[0]", "five cron fields"),
    (f"{LIVE}.freeze", ["0 0 20 * * FRI/60h"], f"{LIVE}.freeze[0]", "five cron fields"),
    (f"{LIVE}.freeze", ["0 25 * * FRI/60h"], f"{LIVE}.freeze[0]", "Bad hour in '0 25 * * FRI'"),
    (f"{LIVE}.freeze", ["0 20 * * FRI/0h"], f"{LIVE}.freeze[0]", "longer than nothing"),
    (f"{LIVE}.freeze", ["0 20 * * FRI/long"], f"{LIVE}.freeze[0]", "must be a length of time"),
    (f"{LIVE}.freeze", ["0 0 */20 2 SUN#2/1h"], f"{LIVE}.freeze[0]", "never comes"),
    (f"{LIVE}.freeze", ["0 20 * * FRI/1h"] * 21, f"{LIVE}.freeze", "at most 20, not 21"),
    (f"{LIVE}.ramp", [], f"{LIVE}.ramp", "at least 1, not 0"),
    (f"{LIVE}.ramp", None, f"{LIVE}.ramp", "is empty"),
    (f"{LIVE}.ramp.0.fraction", 0, f"{LIVE}.ramp[0].fraction", "above 0"),
    (f"{LIVE}.ramp.0.fraction", REMOVED, f"{LIVE}.ramp[0].fraction", "is missing"),
    (f"{LIVE}.ramp.1.fraction", 0.05, f"{LIVE}.ramp[1].fraction", "0.05 is not above that of"),
    (f"{LIVE}.ramp.2.fraction", 0.9, f"{LIVE}.ramp[2].fraction", "must be the whole, 1.0, not 0.9"),
    (f"{LIVE}.ramp.2.e_value", 9, f"{LIVE}.ramp[2].e_value", "9 is less than the step before"),
    (f"{LIVE}.ramp.2.e_value", REMOVED, f"{LIVE}.ramp[2].e_value", "nothing is less than the"),
    (f"{LIVE}.ramp.2.e_value", None, f"{LIVE}.ramp[2].e_value", "is empty"),
    (f"{LIVE}.ramp.0.e_value", 0.5, f"{LIVE}.ramp[0].e_value", "at least 1"),
    (f"{LIVE}.ramp.0.observe", "soon", f"{LIVE}.ramp[0].observe", "must be a length of time"),
    # Risk.
    ("risk.snapshot_max_age", "0s", "risk.snapshot_max_age", "longer than nothing"),
    ("risk.max_stress_loss", 0, "risk.max_stress_loss", "above 0"),
    ("risk.max_stress_loss", 25, "risk.max_stress_loss", "at most 1, not 25"),
    ("risk.max_stress_loss", None, "risk.max_stress_loss", "is empty"),
    (
        "risk.max_pairwise_correlation_to_live",
        -1.5,
        "risk.max_pairwise_correlation_to_live",
        "at least -1",
    ),
]


@pytest.mark.parametrize(("path", "value", "where", "words"), BROKEN)
def test_one_broken_thing_is_refused_alone(
    path: str, value: object, where: str, words: str
) -> None:
    (problem,) = problems(broken(path, value))
    assert problem.startswith(f"{where}: ")
    assert words in problem
    assert problem.endswith((".", "?"))


def test_without_evidence_no_step_names_an_e_value() -> None:
    assert problems(broken("evidence", "none")) == [
        f"{LIVE}.ramp[{i}].e_value: evidence is none: there are no e-values." for i in range(3)
    ]


def test_auto_apply_needs_a_defence_against_the_unseen_crash() -> None:
    live = {"mode": "auto_apply"}
    (problem,) = problems({"version": 1, "governance": {"live_promotion": live}})
    assert problem.startswith(f"{LIVE}.mode: auto_apply needs evidence.paper.method: bounded, or ")
    assert "a crash that has not happened yet" in problem


def test_every_problem_is_listed_and_not_too_many() -> None:
    found = broken("gates.paper.max_drawdown.max", 20)
    found["gates"]["backtest"]["sharp"] = {"min": 9, "max": 1}
    found["evidence"]["alpha"] = "0.05"
    found["governance"]["live_promotion"]["ramp"][1]["fraction"] = 0.01
    found["risks"] = {}
    assert [problem.split(": ")[0] for problem in problems(found)] == [
        "gates.backtest.sharp",
        "gates.paper.max_drawdown.max",
        "evidence.alpha",
        f"{LIVE}.ramp[1].fraction",
        "risks",
    ]
    many = problems({"version": 1, **{f"key_{i}": 1 for i in range(200)}})
    assert len(many) == policies.PROBLEMS_MAX + 1
    assert many[-1] == "(policy): and 150 more problems."


def keys_of(found: dict[str, Any] | list[Any], way: Path = ()) -> Iterator[Path]:
    """The path of every key, at every depth."""
    inner: Iterable[tuple[str | int, Any]] = (
        found.items() if isinstance(found, dict) else enumerate(found)
    )
    for key, value in inner:
        if isinstance(key, str):
            yield (*way, key)
        if isinstance(value, dict | list):
            yield from keys_of(value, (*way, key))


def misspellings(key: str) -> Iterator[str]:
    for i, letter in enumerate(key):
        yield key[:i] + letter + key[i:]  # Twice.
        yield key[:i] + ("q" if letter != "q" else "x") + key[i + 1 :]  # Another.
        yield key[:i] + key[i + 1 :]  # None.


def respelt(path: Path, key: str) -> Document:
    """STANDARD with the last key of `path` spelt as `key`."""
    changed = copy.deepcopy(STANDARD)
    inner: Any = changed
    for part in path[:-1]:
        inner = inner[part]
    inner[key] = inner.pop(path[-1])
    return changed


@pytest.mark.parametrize("path", list(keys_of(STANDARD)), ids=lambda path: ".".join(map(str, path)))
def test_every_key_misspelt_by_a_letter_is_refused(path: Path) -> None:
    for key in misspellings(str(path[-1])):
        found = respelt(path, key)
        refused = [problem.split(": ")[0] for problem in problems(found)]
        shown = key if key else "''"
        assert any(place == shown or place.endswith(f".{shown}") for place in refused), key
        assert not VALIDATOR.is_valid(found), key


@pytest.mark.parametrize("path", list(keys_of(STANDARD)), ids=lambda path: ".".join(map(str, path)))
def test_no_key_may_be_blank_unless_null_has_a_meaning(path: Path) -> None:
    where = ".".join(map(str, path))
    found = broken(where, None)
    if path[-1] in {"max_window", "snapshot_max_age"}:
        parsed(found)
    else:
        assert problems(found)
        assert not VALIDATOR.is_valid(found)


TEXTS = [
    ("", YAML, Invalid, "must be a group of keys, not nothing"),
    ("[1]", JSON, Invalid, "must be a group of keys, not a list"),
    ("3", JSON, Invalid, "must be a group of keys, not 3"),
    ("version: 1\nversion: 1", YAML, Malformed, "Line 2 is not YAML as it is read here: the key"),
    ('{"version": 1, "version": 1}', JSON, Malformed, "The key 'version' is there twice"),
    ("version: 1\ndata: {max_lag: 5d, max_lag: 6d}", YAML, Malformed, "'max_lag' is there twice"),
    ("version: &one 1", YAML, Malformed, "anchors (&) and aliases (*)"),
    ("data: {}\ncampaign: *one", YAML, Malformed, "anchors (&) and aliases (*)"),
    ("version: !!int '1'", YAML, Malformed, "tags (!)"),
    ("version: !!python/name:os.system 1", YAML, Malformed, "tags (!)"),
    ("<<: {version: 1}", YAML, Invalid, "'<<': is not a key here"),
    ("? [version]\n: 1", YAML, Malformed, "a key must be a word"),
    ("1: 1", YAML, Malformed, "a key must be a word"),
    ("version: 1\n---\nversion: 1", YAML, Malformed, "another document"),
    ("version: [1", YAML, Malformed, "is not YAML"),
    ("version: 1", JSON, Malformed, "Line 1 is not JSON"),
    ('{"version": NaN}', JSON, Malformed, "NaN is not JSON"),
    ('{"version": ' + "9" * 5000 + "}", JSON, Malformed, "more than 20 digits"),
    ('{"version": 1, "data": {"periods_per_year": 1e999}}', JSON, Invalid, "finite number"),
    ("version: 1\ndata: {periods_per_year: 1e999}", YAML, Invalid, "finite number"),
    ("version: 1\ndata: {periods_per_year: .inf}", YAML, Invalid, "not '.inf'"),
    ("version: 1\ndata: {periods_per_year: yes}", YAML, Invalid, "not 'yes'"),
    ("version: 1\ndata: {max_lag: 2026-01-01}", YAML, Invalid, "not '2026-01-01'"),
    ("version: 1\ncampaign: {paper: {min_observations: 1:30}}", YAML, Invalid, "not '1:30'"),
    ("version: 1\ncampaign: {paper: {min_observations: 0504}}", YAML, Invalid, "not '0504'"),
    ("version: 1\ncampaign: {paper: {min_observations: 1_0}}", YAML, Invalid, "not '1_0'"),
    ("version: 1\ncampaign: {paper: {min_observations: 0x1F}}", YAML, Invalid, "not '0x1F'"),
    ("version: 1\nevidence: off", YAML, Invalid, "not 'off'"),
    ("on: 1\nversion: 1", YAML, Invalid, "on: is not a key here"),
    ("[" * 1000, YAML, Malformed, "more than 20 deep"),
    ("[" * 50_000, JSON, Malformed, "too deep"),
    ("version: \x00", YAML, Malformed, "characters that may not be there"),
    ('version: "\\UFFFFFFFF"', YAML, Malformed, "characters that may not be there"),
    (b"\xff\xfe1\x00", YAML, Malformed, "not UTF-8"),
    ("version: \ud800", YAML, Malformed, "not UTF-8"),
    ("version: 1", "text/html", Malformed, "must be application/json or application/yaml"),
    ("#" * (DOCUMENT_BYTES_MAX + 1), YAML, TooLarge, "65536 bytes"),
]


@pytest.mark.parametrize(("text", "media_type", "error", "words"), TEXTS)
def test_text_that_has_no_single_meaning_is_refused(
    text: str | bytes, media_type: str, error: type[Refusal], words: str
) -> None:
    with pytest.raises(error) as caught:
        parse(text, media_type)
    assert words in str(caught.value)
    str(caught.value).encode()


def test_what_yaml_may_say() -> None:
    text = "\ufeffversion: +1\ndata: {periods_per_year: 2.52e2, max_lag: '5d'}\nevidence: none"
    assert parse(text.encode()) == parsed({"version": 1, "evidence": "none"})


def policy_or_none(text: str | bytes, media_type: str) -> Policy | None:
    """None when it is refused, in words that can be sent; any other error is a bug."""
    try:
        return parse(text, media_type)
    except Refusal as refusal:
        str(refusal).encode()
        return None


@given(st.text() | st.binary(), st.sampled_from([JSON, YAML]))
@settings(deadline=None)
def test_any_text_is_a_policy_or_refused(text: str | bytes, media_type: str) -> None:
    policy_or_none(text, media_type)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(st.sampled_from(list(keys_of(STANDARD))), ANY_JSON)
@settings(deadline=None)
def test_any_value_anywhere_is_a_policy_or_refused(path: Path, value: object) -> None:
    found = broken(".".join(map(str, path)), value)
    policy = policy_or_none(json.dumps(found), JSON)
    if policy is not None:
        assert parsed(document(policy)) == policy
        VALIDATOR.validate(found)


# ---- There and back --------------------------------------------------------------------------

counts = st.integers(1, 10_000_000)
pauses = st.integers(0, 3_155_760_000).map(lambda seconds: timedelta(seconds=seconds))
spans = st.integers(1, 3_155_760_000).map(lambda seconds: timedelta(seconds=seconds))
fractions = st.floats(0, 1, exclude_min=True)
probabilities = st.floats(1e-6, 1, exclude_max=True)
sharpes = st.floats(0, 20, exclude_min=True)
correlations = st.floats(-1, 1)
numbers = st.floats(allow_nan=False, allow_infinity=False)
metrics = st.sampled_from(sorted(policies.GATE_UNITS))


@st.composite
def bounds(draw: st.DrawFn) -> tuple[Bound, ...]:
    chosen = []
    for metric in sorted(draw(st.sets(metrics, max_size=4))):
        inside = st.floats(1, 9) if metric == "kurtosis" else st.floats(0, 1)
        low, high = sorted((draw(inside), draw(inside)))
        ends = draw(st.sampled_from([(low, None), (None, high), (low, high)]))
        chosen.append(Bound(metric=metric, min=ends[0], max=ends[1]))
    return tuple(chosen)


@st.composite
def gates(draw: st.DrawFn) -> Gates:
    by_stage = draw(st.dictionaries(st.sampled_from(Stage), bounds().filter(bool)))
    return Gates(by_stage=by_stage, on_missing=draw(st.sampled_from(OnMissing)))


@st.composite
def windows(draw: st.DrawFn) -> Window:
    span, longest = sorted((draw(spans), draw(spans)))
    ends = draw(st.booleans())
    return Window(span=span, min_observations=draw(counts), max_window=longest if ends else None)


evidences = st.builds(
    Evidence,
    alpha=probabilities,
    multiplicity=st.sampled_from(["e_bh", "spending", "per_strategy"]),
    trials_default=counts,
    selection_max_p=st.none() | probabilities,
    paper=st.builds(
        PaperEvidence,
        method=st.sampled_from(["t_mixture", "bounded", "group_sequential"]),
        hurdle_annual=st.floats(-1, 1),
        block=st.integers(1, 10_000),
        design_sharpe_annual=sharpes,
        backtest_credit_cap=st.floats(0, 3),
    ),
    futility=st.none() | st.builds(Futility, sharpe_annual=sharpes, beta=probabilities),
    consistency=st.none()
    | st.builds(
        Consistency,
        max_tracking_error_annual=st.floats(0, 10, exclude_min=True),
        alpha=probabilities,
    ),
    decay_mean_false_alarm=st.none() | st.integers(2, 10_000_000),
)


@st.composite
def selections(draw: st.DrawFn) -> Selection | None:
    exit_, enter = sorted((draw(numbers), draw(numbers)))
    band = Hysteresis(metric=draw(metrics), enter=enter, exit=exit_)
    chosen = Selection(
        top_k=draw(st.none() | st.builds(TopK, metric=metrics, k=st.integers(1, 10_000))),
        correlation_max=draw(st.none() | correlations),
        hysteresis=draw(st.sampled_from([None, band])),
    )
    return None if chosen == Selection() else chosen


@st.composite
def ramps(draw: st.DrawFn, evidence: bool) -> tuple[RampStep, ...]:
    lower = draw(st.sets(fractions.filter(lambda x: x < 1), max_size=4))
    asked = sorted(draw(st.floats(1, 1e12)) for _ in range(len(lower) + 1))
    free = draw(st.integers(0, len(asked))) if evidence else len(asked)
    return tuple(
        RampStep(fraction=fraction, e_value=None if i < free else asked[i], observe=draw(pauses))
        for i, fraction in enumerate((*sorted(lower), 1.0))
    )


@st.composite
def governances(draw: st.DrawFn, evidence: bool, defended: bool) -> Governance:
    manual = st.builds(
        ManualApproval,
        roles=st.frozensets(st.sampled_from(Role), min_size=1),
        min=st.integers(1, 20),
        expires=spans,
    )
    modes = st.just(Disabled()) | manual
    crons = ["0 20 * * FRI", "*/5 9-17 1,15 * MON#1", "0 0 L * *"]
    frozen = st.builds(Freeze, cron=st.sampled_from(crons), length=spans)
    return Governance(
        live_promotion=draw(modes | st.just(AutoApply()) if defended or not evidence else modes),
        cooldown=draw(pauses),
        max_live_slots=draw(st.integers(1, 10_000)),
        max_live_weight=draw(fractions),
        freeze=tuple(draw(st.lists(frozen, max_size=3))),
        ramp=draw(ramps(evidence)),
    )


@st.composite
def any_policy(draw: st.DrawFn) -> Policy:
    evidence = draw(st.none() | evidences)
    risk = Risk(
        snapshot_max_age=draw(st.none() | spans),
        max_stress_loss=draw(st.none() | fractions),
        max_pairwise_correlation_to_live=draw(st.none() | correlations),
    )
    bounded = evidence is not None and evidence.paper.method == "bounded"
    defended = bounded or risk.max_stress_loss is not None
    return Policy(
        data=Data(periods_per_year=draw(st.floats(1, 31_557_600)), max_lag=draw(spans)),
        campaign=Campaign(
            backtest=replace(draw(windows()), max_window=None),
            paper=draw(windows()),
            evaluate_every=draw(spans),
        ),
        gates=draw(gates()),
        evidence=evidence,
        selection=draw(selections()),
        governance=draw(governances(evidence is not None, defended)),
        risk=risk,
    )


@given(any_policy())
@settings(deadline=None)
def test_there_and_back(policy: Policy) -> None:
    written = document(policy)
    back = parse(json.dumps(written), JSON)
    assert back == policy
    assert parse(yaml.safe_dump(written), YAML) == policy
    assert checksum(back) == checksum(policy)
    VALIDATOR.validate(written)


@given(any_policy())
@settings(deadline=None, max_examples=20)  # Each is simulated.
def test_any_policy_implies_something(policy: Policy) -> None:
    for row in implied.implications(policy):
        assert len(row.shares) in (0, 3)
        assert len(row.years) in (0, 3)
        assert all(0.0 <= share <= 1.0 for share in row.shares)
    assert all(implied.warnings(policy))


# ---- What is implied -------------------------------------------------------------------------


def warned(**changes: Any) -> str:
    return "\n".join(policies.warnings(replace(parse(shipped("standard")), **changes)))


def paper(**changes: Any) -> Campaign:
    return Campaign(paper=replace(Campaign().paper, **changes))


def gate(stage: Stage, **bound: Any) -> Gates:
    return Gates(by_stage={stage: (Bound(**bound),)})


def governed(**changes: Any) -> Governance:
    return replace(parse(shipped("standard")).governance, **changes)


def freezes(*crons: str, length: timedelta) -> tuple[Freeze, ...]:
    return tuple(Freeze(cron=cron, length=length) for cron in crons)


WARNED = [
    ({"evidence": None}, "No error rate is promised"),
    ({}, "evidence.paper.method: t_mixture. Its error rates hold for near-symmetric"),
    ({}, "posts no replay of its engine beside the returns does not pass paper"),
    ({"evidence": Evidence(multiplicity="per_strategy")}, "Each strategy has an error rate of its"),
    (
        {"evidence": Evidence(paper=PaperEvidence(backtest_credit_cap=2.0))},
        "evidence.paper.backtest_credit_cap: 2. A backtest that leaks is credited, too",
    ),
    (
        {
            "evidence": Evidence(paper=PaperEvidence(method="group_sequential")),
            "campaign": paper(max_window=None),
        },
        "evidence.paper.method: can never be met: group_sequential needs campaign.paper.max_window",
    ),
    (
        {"evidence": None, "governance": governed(live_promotion=AutoApply())},
        "Neither evidence nor a person",
    ),
    ({"governance": Governance()}, "Nothing goes live under this policy"),
    ({"gates": gate(Stage.BACKTEST, metric="cagr", min=0.1)}, "gates.paper: none."),
    ({"gates": gate(Stage.PAPER, metric="cagr", min=0.1)}, "gates.backtest: none."),
    ({"gates": gate(Stage.PAPER, metric="cagr", min=0.1)}, "gates.live: no max_drawdown below 1"),
    ({"gates": gate(Stage.LIVE, metric="max_drawdown", max=1.0)}, "gates.live: no max_drawdown"),
    ({"gates": gate(Stage.LIVE, metric="max_drawdown", min=0.1)}, "gates.live: no max_drawdown"),
    (
        {"campaign": paper(min_observations=600)},
        "campaign.paper.min_observations: can never be met: max_window 730 days holds about 504",
    ),
    (
        {"campaign": paper(span=DAY, min_observations=10, max_window=60 * DAY)},
        "evidence.paper.block: can never be met: an e-value needs 10 blocks, 50 observations",
    ),
    (
        {"gates": gate(Stage.PAPER, metric="observations", max=30)},
        "gates.paper.observations.max: can never be met: 30 is less than min_observations, 40",
    ),
    (
        {"gates": gate(Stage.PAPER, metric="effective_history_years", min=3)},
        "gates.paper.effective_history_years.min: can never be met: 3 is more than max_window",
    ),
    (
        {"gates": gate(Stage.BACKTEST, metric="effective_history_years", max=1.9)},
        "gates.backtest.effective_history_years.max: can never be met",
    ),
    (
        {"governance": governed(freeze=freezes("0 * * * *", length=timedelta(hours=1)))},
        "nothing can ever be promoted",
    ),
    (
        {"governance": governed(freeze=freezes("0 0 1 1 *", length=366 * DAY))},
        "nothing can ever be promoted",
    ),
    (
        {"governance": governed(freeze=freezes("0 0 * * *", "0 12 * * *", length=DAY / 2))},
        "nothing can ever be promoted",
    ),
    (
        {"governance": governed(live_promotion=ManualApproval(roles=frozenset({Role.READER})))},
        "every reader may approve",
    ),
    ({"governance": governed(ramp=(FULL_STEP,))}, "the last step names no e_value"),
    ({"selection": Selection(top_k=TopK(metric="volatility", k=3))}, "selection.top_k.metric"),
    (
        {"selection": Selection(hysteresis=Hysteresis(metric="max_drawdown", enter=1, exit=0))},
        "selection.hysteresis.metric",
    ),
]


@pytest.mark.parametrize(("changes", "words"), WARNED)
def test_a_warning_is_there_when_its_cause_is(changes: dict[str, Any], words: str) -> None:
    assert words in warned(**changes)
    if changes:
        assert words not in warned()


NOT_WARNED = [
    {"campaign": paper(min_observations=504)},
    {"campaign": paper(min_observations=10_000, max_window=None)},
    {"gates": gate(Stage.PAPER, metric="observations", max=40)},
    {"gates": gate(Stage.BACKTEST, metric="observations", min=10_000)},
    {"governance": governed(freeze=freezes("0 0 1 1 *", length=364 * DAY))},
    {"governance": governed(freeze=freezes("* 0-19 * * *", length=timedelta(hours=1)))},
    {"governance": governed(freeze=freezes("0 * * * *", length=timedelta(minutes=59)))},
    {"governance": governed(freeze=freezes("0 * * 1-11 *", length=timedelta(hours=1)))},
    {"governance": governed(freeze=freezes("* * 1-15 * *", length=timedelta(minutes=1)))},
]


@pytest.mark.parametrize("changes", NOT_WARNED)
def test_never_is_said_only_of_what_is_never(changes: dict[str, Any]) -> None:
    assert " never be met" not in warned(**changes)
    assert "can ever be promoted" not in warned(**changes)


def rows_of(name: str = "standard", **changes: Any) -> dict[str, list[implied.Implication]]:
    found: dict[str, list[implied.Implication]] = {}
    for row in implied.implications(replace(parse(shipped(name)), **changes)):
        found.setdefault(row.path, []).append(row)
    return found


def test_a_sharpe_gate_says_how_many_pass_and_how_long_telling_takes() -> None:
    """Sharpe 2 against 1, daily: EVIDENCE's minimum track record is 2.73 years."""
    assert implied.years_to_tell(2, 1, 252) == pytest.approx(2.73, abs=0.005)
    assert implied.years_to_tell(2, 1, 52) == pytest.approx(2.81, abs=0.005)
    assert implied.years_to_tell(1, 1, 252) is None
    assert implied.passes(0, 0.5, 2, 252) == pytest.approx(0.2398, abs=1e-4)
    assert implied.passes(1, 1, 2, 252) == 0.5
    (row,) = rows_of()["gates.backtest.sharpe_annual.min"]
    assert row.shares == pytest.approx((0.760, 0.983, 1.0), abs=1e-3)
    assert row.years == (), "it takes its window, however long telling would"
    assert "after 2 years by 24% of strategies without skill" in row.says
    assert (
        "to tell a true 1, 2, 3 from 0.5 at 95 % takes: 11 years, 1.2 years, 161 days" in row.says
    )
    (row,) = rows_of(gates=gate(Stage.PAPER, metric="sharpe_annual", min=1))[
        "gates.paper.sharpe_annual.min"
    ]
    assert "takes: never, 2.7 years" in row.says
    (row,) = rows_of(gates=gate(Stage.LIVE, metric="sharpe_annual", min=1))[
        "gates.live.sharpe_annual.min"
    ]
    assert "no window" in row.says
    assert not row.shares


def test_a_drawdown_gate_says_how_many_keep_it_and_at_which_volatility() -> None:
    (row,) = rows_of()["gates.live.max_drawdown"]
    assert row.says == "at most 0.15; in 1 year, at a volatility of 10% a year."
    assert row.shares == pytest.approx((0.96, 0.995, 1.0), abs=0.02)
    said = warned(gates=gate(Stage.PAPER, metric="max_drawdown", max=0.0001))
    assert "gates.paper.max_drawdown: at most 0.0001; in 60 days, at a volatility of 10%" in said
    assert "None of 4000 simulated strategies of a true Sharpe ratio of 3 passes it in time" in said
    live = warned(gates=gate(Stage.LIVE, metric="max_drawdown", max=0.0001))
    assert "passes it in time" not in live, "nobody has to pass it to go live"


def test_the_ramp_says_what_luck_can_get_and_where_that_is_so() -> None:
    rows = rows_of()
    assert "at most 7.4% of an allocation" in rows[f"{LIVE}.ramp"][0].says  # EVIDENCE, "Ramp".
    assert "break t_mixture" in rows[f"{LIVE}.ramp"][0].says
    assert rows[f"{LIVE}.ramp[0]"][0].says.startswith("0.50% of capital, without skill")
    sandbox = rows_of("sandbox")
    assert "100% of an allocation" in sandbox[f"{LIVE}.ramp"][0].says
    assert "nothing is promised" in sandbox[f"{LIVE}.ramp"][0].says
    assert sandbox[f"{LIVE}.ramp[0]"][0].says == "20.00% of capital."
    (bounded,) = rows_of("conservative")[f"{LIVE}.ramp"]
    assert "of returns above -0.1 a bar" in bounded.says
    assert "t_mixture" not in bounded.says


def test_evidence_says_how_many_get_there_and_when_half_have() -> None:
    """docs/evidence.md: within 504 days E >= 3 by .58 at Sharpe 1 and .93 at 2; EVIDENCE: E >= 20
    in 5.7, 1.7 and .9 years in the median."""
    rows = rows_of()
    first, last = rows[f"{LIVE}.ramp[0].e_value"][0], rows[f"{LIVE}.ramp[2].e_value"][0]
    assert first.says == "an e-value of 3 (t mixture); in 2 years."
    assert first.shares == pytest.approx((0.58, 0.93, 1.0), abs=0.02)
    assert last.shares == pytest.approx((0.15, 0.606, 0.94), abs=0.02)
    assert last.years == pytest.approx((5.7, 1.7, 0.9), rel=0.05)
    among = [row.says for row in rows["evidence.multiplicity"]]
    assert "10 campaigns begun and nobody at the top" in among[0]
    assert ["takes an e-value of 200;" in said for said in among] == [True, False]
    assert "50 campaigns begun and nobody at the top" in among[1]
    assert "takes an e-value of 1000;" in among[1]


Method = Literal["t_mixture", "bounded", "group_sequential"]


@pytest.mark.parametrize("method", get_args(Method))
@pytest.mark.parametrize("e_value", [3.0, 3.5, 10.0])
def test_half_are_there_in_time_when_the_row_says_so(method: Method, e_value: float) -> None:
    asked = Evidence(paper=PaperEvidence(method=method), multiplicity="spending")
    ramp = (replace(FULL_STEP, e_value=e_value),)
    floor = gate(Stage.LIVE, metric="max_bar_loss", max=0.1)
    rows = rows_of(evidence=asked, governance=governed(ramp=ramp), gates=floor)
    timed = [row for each in rows.values() for row in each if row.years]
    assert [row.path for row in timed] == [
        f"{LIVE}.ramp[0].e_value",
        *["evidence.multiplicity"] * 2,
    ]
    assert "spending, 10 campaigns" in timed[1].says
    for row in timed:
        for share, years in zip(row.shares, row.years, strict=True):
            assert (share >= 0.5) == (years is not None and years <= 730 / 365.25), row
            said = int(implied.percent_of(share).strip("%<"))
            assert (said >= 50) == (share >= 0.5), row
        assert ("at a volatility of 10% a year" in row.says) == (method == "bounded")


def test_shares_in_words_round_no_half_and_no_none() -> None:
    shares = (0.0, 0.001, 0.006, 0.496, 0.5, 0.996, 1.0)
    said = [implied.percent_of(share) for share in shares]
    assert said == ["0%", "<1%", "1%", "49%", "50%", "100%", "100%"]
    assert [implied.median_of(y) for y in (None, 0.914, 9.96)] == ["never", "0.91", "10"]


NOBODY = [
    ({"governance": Governance()}, "governance.live_promotion.mode"),
    ({"data": Data(periods_per_year=12)}, "campaign.paper.min_observations"),
    ({"data": Data(periods_per_year=12)}, "evidence.paper.block"),
    (
        {"governance": governed(freeze=freezes("0 * * * *", length=timedelta(hours=1)))},
        "governance.live_promotion.freeze",
    ),
]


@pytest.mark.parametrize(("changes", "path"), NOBODY)
def test_where_nobody_goes_live_nobody_is_told_when(changes: dict[str, Any], path: str) -> None:
    rows = rows_of(**changes)
    assert any(row.never for row in rows[path])
    timed = [row for each in rows.values() for row in each if row.years]
    assert all(row.years == (None, None, None) and not row.shares for row in timed)
    assert all("never, since nobody goes live" in row.says for row in timed)


def test_a_bare_policy_says_that_nobody_goes_live() -> None:
    bare = parse("version: 1")
    assert [row.path for row in implied.impossible(bare)] == ["governance.live_promotion.mode"]
    assert not implied.impossible(parse(shipped("standard")))


def test_bets_without_a_floor_are_named() -> None:
    asked = Evidence(paper=PaperEvidence(method="bounded"))
    said = warned(evidence=asked)
    assert "bounded without gates.live.max_bar_loss. Its loss floor is 100 %" in said
    assert f"{LIVE}.ramp[0].e_value: an e-value of 3 (bounded); in 2 years" in said
    floored = warned(evidence=asked, gates=gate(Stage.LIVE, metric="max_bar_loss", max=0.1))
    assert "loss floor" not in floored
    assert "None of" not in floored


def test_every_metric_has_a_unit() -> None:
    assert set(UNITS) < set(policies.GATE_UNITS)
    assert set(policies.GATE_UNITS) > implied.LOWER_IS_BETTER
