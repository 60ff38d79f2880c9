"""What a submission came to: the SDK's own advice, and the world's answer, kept apart."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qmtl.core.decision import DecisionEnvelope
from qmtl.core.metrics import Measure, Undefined
from qmtl.core.names import Mode, Phase, Verdict
from qmtl.sdk.decisions import Held, monotonic

SHOWN = ("sharpe_annual", "cagr", "volatility", "max_drawdown")  # What everybody asks first.
PERCENT = frozenset({"cagr", "volatility", "max_drawdown"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Precheck:
    """Advice: what the SDK found on this machine.  It decides nothing.

    metrics            of `qmtl.core.metrics.performance`, units in its UNITS
    periods_per_year   bars a year of the prices given; the world's policy may say another
    turnover_annual    weight traded, as a multiple of equity, a year
    """

    metrics: Mapping[str, Measure]
    periods_per_year: float
    bars: int
    first: str
    last: str
    trades_total: int
    turnover_annual: float
    costs_total: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldAnswer:
    """Authority: what the world said.  `verdict`, `run_id`, `phase` are None when the gateway took
    the submission and could not ask the world yet."""

    run_id: str | None
    verdict: Verdict | None
    reasons: tuple[str, ...]
    details: tuple[str, ...]
    phase: Phase | None
    envelope: DecisionEnvelope | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitResult:
    """A submission: what it was, the precheck's advice, the world's answer.

    `world` is None when nobody answered; then `spooled` is the file that keeps the submission until
    `Runner.flush()`.  What may be done ages: `effective_mode` is that of the moment it is read.
    """

    strategy_id: str
    world_id: str
    fingerprint: str
    precheck: Precheck
    world: WorldAnswer | None
    decision: Held
    spooled: Path | None = None

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

    def to_json(self) -> str:
        """All of it, as of now, as one JSON object."""
        now = monotonic()
        reason = self.decision.why_lower(now)
        plain = {
            "strategy_id": self.strategy_id,
            "world_id": self.world_id,
            "fingerprint": self.fingerprint,
            "effective_mode": self.decision.mode(now),
            "downgraded": reason is not None,
            "downgrade_reason": reason,
            "safe_mode": self.safe_mode,
            "spooled": None if self.spooled is None else str(self.spooled),
            "precheck": _precheck(self.precheck),
            "world": None if self.world is None else _world(self.world),
        }
        return json.dumps(plain, indent=2, allow_nan=False)

    def __str__(self) -> str:
        mode, reason = self.effective_mode, self.downgrade_reason
        lines = [f"{self.strategy_id} in world {self.world_id}: {mode}"]
        if reason is not None:
            lines[0] += f", downgraded ({reason})"
        lines += _told(self.world, self.spooled)
        check = self.precheck
        shown = ", ".join(f"{name} {_shown(name, check.metrics[name])}" for name in SHOWN)
        lines.append(f"  precheck  {shown}")
        lines.append(
            f"            {check.bars:,} bars from {check.first} to {check.last}, "
            f"{check.trades_total:,} trades, turnover {check.turnover_annual:.1f} a year"
        )
        lines += [f"            advice: {warning}" for warning in check.warnings]
        return "\n".join(lines)


def _told(answer: WorldAnswer | None, spooled: Path | None) -> list[str]:
    if answer is None:
        return ["  world     away; the submission is kept: " + str(spooled)]
    if answer.verdict is None:
        return ["  world     has not answered yet; the gateway keeps the submission"]
    lines = [f"  world     {answer.verdict}, {answer.phase}, run {answer.run_id}"]
    why = answer.details or answer.reasons
    lines += [f"            because: {each}" for each in why]
    return lines + [f"            warning: {each}" for each in answer.warnings]


def _shown(name: str, value: Measure) -> str:
    if isinstance(value, Undefined):
        return f"undefined ({value})"
    return f"{value:.1%}" if name in PERCENT else f"{value:.2f}"


def _precheck(check: Precheck) -> dict[str, Any]:
    return {
        "metrics": {n: None if isinstance(v, Undefined) else v for n, v in check.metrics.items()},
        "undefined": {n: str(v) for n, v in check.metrics.items() if isinstance(v, Undefined)},
        "periods_per_year": check.periods_per_year,
        "bars": check.bars,
        "first": check.first,
        "last": check.last,
        "trades_total": check.trades_total,
        "turnover_annual": check.turnover_annual,
        "costs_total": check.costs_total,
        "warnings": list(check.warnings),
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
