"""What the demo shows: where each strategy ended and why, and how it came about."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from qmtl.core.metrics import Measure, Undefined, performance
from qmtl.demo.replay import Traded

PERIODS_PER_YEAR = 252.0
STAGES = ("backtest", "paper", "live")
NAME_WIDTH = 22
ENDED = {
    "backtest_campaign": "backtest",
    "paper_campaign": "paper",
    "stopped_at_submit": "stopped",
}
TOLD = frozenset(  # What a reader follows; the journal has the rest.
    {
        "strategy_bound", "phase_entered", "candidate_proposed", "approval_given",
        "promotion_applied", "promotion_blocked", "demoted", "candidate_voided", "killed",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Story:
    """Everything the demo learned from the server, and what it posted itself."""

    names: tuple[str, ...]
    stopped: Mapping[str, str]  # At submit, and why.
    traded: Mapping[str, Traded]
    statuses: Mapping[str, dict[str, Any]]
    envelopes: Mapping[str, dict[str, Any]]
    backtests: Mapping[str, Sequence[tuple[datetime, float]]]
    began: datetime
    journal: tuple[dict[str, Any], ...]


def summary(story: Story) -> dict[str, Any]:
    """`summary.json`: each strategy, where it ended, why, and what it earned in each stage."""
    return {
        "strategies": [_row(story, name) for name in story.names],
        "began": story.began.isoformat(),
        "journal_entries": len(story.journal),
    }


def _row(story: Story, name: str) -> dict[str, Any]:
    if name in story.stopped:
        return {
            "strategy_id": name,
            "name": name,
            "phase": "stopped_at_submit",
            "effective_mode": "compute-only",
            "weight": 0.0,
            "reasons": ["look_ahead"],
            "details": [story.stopped[name]],
            "stages": {},
        }
    status, envelope = story.statuses[name], story.envelopes[name]
    backtest = [r for t, r in story.backtests[name] if t <= story.began]
    series = {"backtest": backtest}
    for stage, points in story.traded[name].by_stage.items():
        series[stage] = [value for _, value in points]
    return {
        "strategy_id": name,
        "name": name,
        "phase": status["phase"],
        "effective_mode": envelope["effective_mode"],
        "weight": envelope["weight"],
        "reasons": status["reasons"],
        "details": status["details"],
        "stages": {stage: _earned(series[stage]) for stage in STAGES if stage in series},
    }


def _earned(returns: Sequence[float]) -> dict[str, float | None]:
    found = performance(np.array(returns), PERIODS_PER_YEAR)
    return {
        "observations": len(returns),
        "return_annual": _number(found["cagr"]),
        "max_drawdown": _number(found["max_drawdown"]),
        "sharpe_annual": _number(found["sharpe_annual"]),
    }


def _number(measure: Measure) -> float | None:
    return None if isinstance(measure, Undefined) else float(measure)


def told(story: Story, console: Console) -> None:
    """The timeline, the table, and why."""
    rows = summary(story)["strategies"]
    for line in timeline(story):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print()
    console.print(_table(rows))
    console.print()
    for row in rows:
        why = "; ".join(row["details"]) or "every gate holds"
        line = f"{row['name']:<{NAME_WIDTH}}{why}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def write(story: Story, out: Path) -> None:
    """`summary.json` and `timeline.txt` in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").write_text(json.dumps(summary(story), indent=2) + "\n")
    (out / "timeline.txt").write_text("\n".join(timeline(story)) + "\n")


def timeline(story: Story) -> list[str]:
    """One line an event, in order: day, strategy, what happened, who."""
    lines = [
        f"{story.began:%Y-%m-%d}  {name:<{NAME_WIDTH}}stopped at submit: {why}"
        for name, why in story.stopped.items()
    ]
    strategy_of = {
        entry["fact"]["candidate_id"]: entry["fact"]["strategy_id"]
        for entry in story.journal
        if entry["kind"] == "candidate_proposed"
    }
    for entry in story.journal:
        if entry["kind"] in TOLD:
            fact = entry["fact"]
            sid = fact.get("strategy_id") or strategy_of.get(fact.get("candidate_id", ""), "")
            lines.append(f"{entry['at'][:10]}  {sid:<{NAME_WIDTH}}{_words(entry)}")
    return lines


def _words(entry: Mapping[str, Any]) -> str:
    fact = entry["fact"]
    match entry["kind"]:
        case "strategy_bound":
            return f"submitted by {fact['author']}"
        case "phase_entered":
            why = f": {fact['reason']}" if fact.get("reason") else ""
            return f"enters {fact['phase']}{why}"
        case "candidate_proposed":
            return f"proposed for live, ramp step {fact['step'] + 1}"
        case "approval_given":
            return f"approved by {entry['actor']}"
        case "promotion_applied":
            return f"LIVE at {fact['weight']:.0%} of capital"
        case "promotion_blocked":
            return f"not promoted: {'; '.join(fact['details'])}"
        case "demoted":
            return f"DEMOTED to {fact['to']}: {fact['detail']}"
        case "candidate_voided":
            return f"candidate void: {fact['reason']}"
        case kind:
            return str(kind)


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title="A year / worst drawdown, stage by stage", title_justify="left")
    table.add_column("strategy", no_wrap=True)
    table.add_column("ended", no_wrap=True)
    for stage in STAGES:
        table.add_column(stage, justify="right", no_wrap=True)
    for row in rows:
        live = row["effective_mode"] == "live"
        ended = f"live, {row['weight']:.0%}" if live else ENDED.get(row["phase"], row["phase"])
        cells = [_cell(row["stages"].get(stage)) for stage in STAGES]
        table.add_row(row["name"], ended, *cells, style="bold" if live else None)
    return table


def _cell(earned: Mapping[str, float | None] | None) -> str:
    if earned is None or earned["return_annual"] is None or earned["max_drawdown"] is None:
        return "-"
    return f"{earned['return_annual']:+.0%} / {earned['max_drawdown']:.0%}"
