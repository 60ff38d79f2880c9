"""What a submission came to: the SDK's own advice, and the world's answer, kept apart."""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qmtl.core.decision import DecisionEnvelope
from qmtl.core.metrics import Measure, Undefined
from qmtl.core.names import Mode, Phase, Verdict
from qmtl.sdk.checks import Finding
from qmtl.sdk.decisions import Held, monotonic
from qmtl.sdk.spool import Flushed

COLUMNS = 80  # Of a terminal; longer sentences are wrapped.
LABEL = 11  # Columns of a heading at the left.
SHOWN = ("sharpe_annual", "cagr", "volatility", "max_drawdown")  # What everybody asks first.
PERCENT = frozenset({"cagr", "volatility", "max_drawdown"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Precheck:
    """Advice: what the SDK found on this machine.  It decides nothing.

    metrics            of `qmtl.core.metrics.performance`, units in its UNITS
    periods_per_year   bars a year of the prices given; the world's policy may say another
    first, last        bars of the prices; of returns made elsewhere the first and last of them
    trades_total       None when nobody said; so are
    turnover_annual    weight traded, as a multiple of equity, a year
    costs_total        sum of what was paid, each as a fraction of the equity of its bar
    findings           what the checks found; none that stops a submission, or there is no result
    """

    metrics: Mapping[str, Measure]
    periods_per_year: float
    bars: int
    first: str
    last: str
    trades_total: float | None
    turnover_annual: float | None
    costs_total: float | None
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldAnswer:
    """Authority: what the world said.  `verdict`, `run_id`, `phase` are None when the gateway took
    the submission and could not ask the world yet.

    explanation  where the strategy is, what it waits for, until when, and what would stop it, as
                 the world said it; empty when it did not
    """

    run_id: str | None
    verdict: Verdict | None
    reasons: tuple[str, ...]
    details: tuple[str, ...]
    phase: Phase | None
    envelope: DecisionEnvelope | None
    warnings: tuple[str, ...]
    explanation: Mapping[str, Any]

    @property
    def sentences(self) -> tuple[str, ...]:
        """The explanation, for people."""
        return tuple(map(str, self.explanation.get("sentences") or ()))


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitResult:
    """A submission: what it was, the precheck's advice, the world's answer.

    strategy_id  the world's name for it: changed code under a known id is a new version, with an id
                 and a campaign of its own (`momentum.2`)
    version      its number among those; None when nobody who knows was asked
    previous     the id of the version before
    changed      which parts of the fingerprint differ from it: code, parameters, data, engine
    world        None when nobody answered; then
    spooled      is the file that keeps the submission until `Runner.flush()`
    flushed      what was kept from before, and became of it, now that there was somebody to send to

    What may be done ages: `effective_mode` is that of the moment it is read.
    """

    strategy_id: str
    world_id: str
    fingerprint: str
    precheck: Precheck
    world: WorldAnswer | None
    decision: Held
    spooled: Path | None = None
    version: int | None = None
    previous: str | None = None
    changed: tuple[str, ...] = ()
    flushed: tuple[Flushed, ...] = ()

    @property
    def effective_mode(self) -> Mode:
        """What the strategy may do now.  In doubt, compute only."""
        return self.decision.mode(monotonic())

    @property
    def downgraded(self) -> bool:
        """Whether that is less than the world decided."""
        return self.downgrade_reason is not None

    @property
    def downgrade_reason(self) -> str | None:
        return self.decision.why_lower(monotonic())

    @property
    def safe_mode(self) -> bool:
        """Nobody could be asked: this is the floor."""
        envelope = self.decision.envelope
        return envelope is None or envelope.safe_mode

    def plain(self) -> dict[str, Any]:
        """All of it, as of now, in values that JSON has."""
        now = monotonic()
        reason = self.decision.why_lower(now)
        return {
            "strategy_id": self.strategy_id,
            "world_id": self.world_id,
            "fingerprint": self.fingerprint,
            "version": self.version,
            "previous": self.previous,
            "changed": list(self.changed),
            "effective_mode": self.decision.mode(now),
            "downgraded": reason is not None,
            "downgrade_reason": reason,
            "safe_mode": self.safe_mode,
            "spooled": None if self.spooled is None else str(self.spooled),
            "flushed": [asdict(each) for each in self.flushed],
            "precheck": _precheck(self.precheck),
            "world": None if self.world is None else _world(self.world),
        }

    def to_json(self) -> str:
        """All of it, as of now, as one JSON object."""
        return json.dumps(self.plain(), indent=2, allow_nan=False)

    def __str__(self) -> str:
        """The world's answer first, then the advice; for a terminal of 80 columns."""
        now = monotonic()
        mode, reason = self.decision.mode(now), self.decision.why_lower(now)
        head = f"{self.strategy_id} in world {self.world_id}: {mode}"
        lines = [head if reason is None else f"{head}, downgraded ({reason})"]
        if self.previous is not None:
            parts = ", ".join(self.changed) or "not told"
            lines += _under("version", [f"{self.version}, after {self.previous}; changed: {parts}"])
        lines += _under("before", [_line(each) for each in self.flushed])
        lines += _under("world", _told(self.world, self.spooled))
        lines += _under("next", self.world.sentences if self.world else ())
        lines += _under("precheck", _checked(self.precheck))
        lines += _under("advice", _advice(self.precheck))
        return "\n".join(lines)


# ---- For people ------------------------------------------------------------------------------


def _under(label: str, sentences: "tuple[str, ...] | list[str] | Iterator[str]") -> list[str]:
    """Wrapped sentences with a heading beside the first; no heading where there is nothing."""
    margin = " " * (2 + LABEL)
    lines: list[str] = []
    for sentence in sentences:
        first = margin if lines else f"  {label:<{LABEL}}"
        lines += textwrap.wrap(
            sentence,
            width=COLUMNS,
            initial_indent=first,
            subsequent_indent=margin + "  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _line(each: Flushed) -> str:
    said = f"{each.outcome} {each.strategy_id} to {each.world_id}, kept from before"
    return f"{said}: {each.detail}" if each.detail else said


def _told(answer: WorldAnswer | None, spooled: Path | None) -> Iterator[str]:
    if answer is None:
        yield f"away; the submission is kept: {spooled}"
        yield "qmtl flush, or the next submission, sends it when the world is back"
    elif answer.verdict is None:
        yield "has not answered yet; the gateway keeps the submission"
    else:
        yield f"{answer.verdict}, {answer.phase}, run {answer.run_id}"
        yield from (f"because: {each}" for each in answer.details or answer.reasons)
        yield from (f"warning: {each}" for each in answer.warnings)


def _checked(check: Precheck) -> Iterator[str]:
    yield ", ".join(f"{name} {_shown(name, check.metrics[name])}" for name in SHOWN)
    traded = ""
    if check.trades_total is not None:
        traded += f", {check.trades_total:,.0f} trades"
    if check.turnover_annual is not None:
        traded += f", turnover {check.turnover_annual:.1f} a year"
    yield f"{check.bars:,} bars from {check.first} to {check.last}{traded}"


def _advice(check: Precheck) -> Iterator[str]:
    for finding in check.findings:
        yield f"{finding.message}."
        yield f"-> {finding.remedy}{'' if finding.remedy.endswith('?') else '.'}"
    if not check.findings:
        yield "none"


def _shown(name: str, value: Measure) -> str:
    if isinstance(value, Undefined):
        return f"undefined ({value})"
    return f"{value:.1%}" if name in PERCENT else f"{value:.2f}"


# ---- For programs ----------------------------------------------------------------------------


def _precheck(check: Precheck) -> dict[str, Any]:
    return {
        **measures(check.metrics),
        "periods_per_year": check.periods_per_year,
        "bars": check.bars,
        "first": check.first,
        "last": check.last,
        "trades_total": check.trades_total,
        "turnover_annual": check.turnover_annual,
        "costs_total": check.costs_total,
        "findings": [asdict(finding) for finding in check.findings],
    }


def measures(metrics: Mapping[str, Measure]) -> dict[str, Any]:
    """Metrics in values that JSON has: `metrics`, null where undefined, and `undefined`, why."""
    return {
        "metrics": {n: None if isinstance(v, Undefined) else v for n, v in metrics.items()},
        "undefined": {n: str(v) for n, v in metrics.items() if isinstance(v, Undefined)},
    }


def _world(answer: WorldAnswer) -> dict[str, Any]:
    envelope = answer.envelope
    return {
        "run_id": answer.run_id,
        "verdict": answer.verdict,
        "reasons": list(answer.reasons),
        "details": list(answer.details),
        "phase": answer.phase,
        "warnings": list(answer.warnings),
        "explanation": dict(answer.explanation),
        "envelope": None if envelope is None else _envelope(envelope),
    }


def _envelope(envelope: DecisionEnvelope) -> dict[str, Any]:
    return {
        "effective_mode": envelope.effective_mode,
        "execution_domain": envelope.execution_domain,
        "weight": envelope.weight,
        "ramp_fraction": envelope.ramp_fraction,
        "reasons": list(envelope.reasons),
        "policy_version": envelope.policy_version,
        "generation": envelope.generation,
        "issued_at": envelope.issued_at.isoformat(),
        "expires_at": envelope.expires_at.isoformat(),
    }
