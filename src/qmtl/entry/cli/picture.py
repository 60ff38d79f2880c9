"""A world as `qmtl status` shows it: what the server told, in; something rich can print, out.

Nothing here asks anybody or looks at a clock: ages are against the instant that the server told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from qmtl.core.times import in_words
from qmtl.core.words import counted

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

BAR_CELLS: Final = 10
FULL, EMPTY = "█", "░"
STAGE_OF: Final = {
    "backtest_campaign": "backtest",
    "paper_campaign": "paper",
    "live_campaign": "live",
}
APPROVALS: Final = frozenset({"manual_approval_required", "approvals_insufficient"})
STAGES: Final = ("backtest", "paper", "live")
FED: Final = frozenset({"paper", "live"})  # Their snapshots have to be fresh for a promotion.
CANDIDATES_MAX: Final = 5  # Lines; the table has them first anyway.
# What a person should see first. Between these the table is sorted by id.
PEOPLE, TROUBLE, LIVE, PAPER, BACKTEST, RETIRED = range(6)
ORDER: Final = {"live_campaign": LIVE, "paper_campaign": PAPER, "backtest_campaign": BACKTEST}

Told = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A strategy.  `urgency` is one of PEOPLE..RETIRED; `share` of its window, 0 to 1, if any."""

    strategy_id: str
    phase: str
    share: float | None
    mode: str
    weight: float
    waits: str
    urgency: int


@dataclass(frozen=True, slots=True)
class Away:
    """The world does not answer: why, and how old what is shown is."""

    why: str
    age_sec: float


def rows(told: Told) -> list[Row]:
    """Every strategy, the one that needs attention most first."""
    modes = {each["strategy_id"]: each for each in told["decisions"]}
    found = [
        _row(each, modes.get(each["strategy_id"], {}), _candidate(told, each["strategy_id"]))
        for each in told["campaign"]["strategies"]
    ]
    return sorted(found, key=lambda row: (row.urgency, -(row.share or 0.0), row.strategy_id))


def _row(status: Told, decision: Told, candidate: Told | None) -> Row:
    phase = status["phase"]
    window = status.get(STAGE_OF.get(phase, ""))
    reasons = status["details"] or status["reasons"]
    first = next(iter(reasons), "nothing")
    if window is not None and not window["satisfied"] and phase != "live_campaign":
        first = _short(window)  # Its own time comes before what others could do meanwhile.
    urgency = ORDER.get(phase, RETIRED)
    if candidate is not None and for_whom(candidate) is not None:
        urgency = PEOPLE
    elif status["held"] or (urgency == LIVE and reasons) or decision.get("downgraded"):
        urgency = TROUBLE
    return Row(
        strategy_id=status["strategy_id"],
        phase=phase.removesuffix("_campaign") + (", held" if status["held"] else ""),
        share=None if window is None else window["progress"],
        mode=decision.get("effective_mode", "-"),
        weight=decision.get("weight", 0.0),
        waits=(candidate and for_whom(candidate)) or first,
        urgency=urgency,
    )


def _short(window: Told) -> str:
    observed, needed = in_words(window["observed_sec"]), in_words(window["required_sec"])
    seen, wanted = window["observations"], window["required_observations"]
    return f"its window: {observed} of {needed}, {seen} of {wanted} observations"


def _candidate(told: Told, strategy_id: str) -> Told | None:
    """The one that waits, if any."""
    return next(
        (
            each
            for each in told["candidates"]
            if each["strategy_id"] == strategy_id and each["standing"] != "applied"
        ),
        None,
    )


def for_whom(candidate: Told) -> str | None:
    """Who has to do something about a candidate; None when it is not a person that is missing."""
    if candidate["standing"] == "rejected":
        return "an operator: it was rejected, and is held until released"
    if APPROVALS & set(candidate["blocked_reasons"]):
        given, needed = len(candidate["approvals"]), candidate["approvals_needed"]
        return f"an approver: {given} of {needed} approvals"
    if candidate["eligible"]:
        return "an operator: it may be applied"
    return None


def picture(told: Told, *, rows_max: int | None = None, away: Away | None = None) -> "Group":
    """All of it, with at most `rows_max` strategies, each on one line then."""
    from rich.console import Group
    from rich.text import Text

    def text(words: str, style: str = "") -> Text:
        return Text(words, style=style, no_wrap=rows_max is not None, overflow="ellipsis")

    known = rows(told)
    shown = known if rows_max is None else known[:rows_max]
    parts: list[Any] = [*map(text, _head(told))]
    if away is not None:
        words = f"away: this is {in_words(away.age_sec)} old, and still asking; {away.why}"
        parts.append(text(words, "bold red"))
    parts.append(text(""))
    parts.append(_table(shown, one_line=rows_max is not None) if known else text(NOTHING))
    if len(known) > len(shown):
        left = len(known) - len(shown)
        parts.append(text(f"… and {left:,} more: qmtl world status {told['world']['id']}"))
    commands = _commands(told)
    if commands:
        parts += [text(""), *map(text, commands)]
    return Group(*parts)


NOTHING: Final = "no strategies yet: qmtl submit"


def lines_around(told: Told) -> int:
    """How many lines a picture has beside its strategies."""
    commands = len(_commands(told))
    # A blank line, the names of the columns, what is left out; the notice that the world is away.
    return len(_head(told)) + 4 + (commands + 1 if commands else 0)


def _head(told: Told) -> list[str]:
    world, clock = told["world"], told["clock"]
    state = "KILLED" if world["killed"] else world["state"]
    live = "live allowed" if world["allow_live"] else "live not allowed"
    active = [each for each in told["decisions"] if each["effective_mode"] == "live"]
    weight = sum(each["weight"] for each in active)
    stands = " (a replay clock)" if clock["replay"] else ""
    found = [
        f"{world['id']}: {state}, {live}, policy {world['default_policy_version']}; "
        f"{counted(len(told['campaign']['strategies']), 'strategy')}; "
        f"it is {_minute(clock['now'])}{stands}",
        f"live: {len(active)} at {weight:.4g} of the capital" if active else "live: none",
    ]
    now = datetime.fromisoformat(clock["now"])
    fed = [f"{stage} {_fresh(told['snapshots'].get(stage), now, stage)}" for stage in STAGES]
    return [*found, f"snapshots: {'; '.join(fed)}"]


def _fresh(snapshot: Told | None, now: datetime, stage: str) -> str:
    if snapshot is None:
        return "none"
    age = max(0.0, (now - datetime.fromisoformat(snapshot["as_of"])).total_seconds())
    said = f"{in_words(age)} old"
    if stage not in FED:
        return said
    left = (datetime.fromisoformat(snapshot["expires_at"]) - now).total_seconds()
    return f"{said}, {'expired' if left < 0 else f'fresh for {in_words(left)}'}"


def _minute(text: str) -> str:
    return f"{text[:16]}Z"


def bar(share: float) -> str:
    """A share from 0 to 1 as people see it; full only when it is."""
    cells = min(BAR_CELLS, int(share * BAR_CELLS))
    percent = min(int(share * 100), 100)
    return f"{FULL * cells}{EMPTY * (BAR_CELLS - cells)} {percent:3d}%"


def _table(shown: list[Row], *, one_line: bool) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("strategy", "phase", "window", "mode", "weight"):
        table.add_column(name, no_wrap=True)
    table.add_column("waits for", no_wrap=one_line, overflow="ellipsis" if one_line else "fold")
    styles = {PEOPLE: "yellow", TROUBLE: "red", LIVE: "green", RETIRED: "dim"}
    for row in shown:
        table.add_row(
            row.strategy_id,
            row.phase,
            "-" if row.share is None else bar(row.share),
            row.mode,
            f"{row.weight:.4g}" if row.weight else "-",
            row.waits,
            style=styles.get(row.urgency),
        )
    return table


def _commands(told: Told) -> list[str]:
    """What people can do about the candidates that wait for them."""
    world = told["world"]["id"]
    found = []
    for each in told["candidates"]:
        if each["standing"] == "applied" or for_whom(each) is None:
            continue
        verb = "apply" if each["eligible"] else "approve"
        verb = "release" if each["standing"] == "rejected" else verb
        reason = "" if verb == "apply" else " --reason ..."
        found.append(f"next: qmtl world {verb} {world} {each['strategy_id']}{reason}")
    if len(found) > CANDIDATES_MAX:
        left = len(found) - CANDIDATES_MAX
        found[CANDIDATES_MAX:] = [f"… and {left} more: qmtl world candidates {world}"]
    return found
