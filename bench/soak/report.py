"""What a soak found: for people, and as a document."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.soak.growth import COUNTED, MB_PER_H_MAX, Line, grown
from bench.soak.run import JUDGED_HOURS_MIN, Soak


def document(found: Soak) -> dict[str, Any]:
    """JSON; `growth` is of the second half, and judged when `judged_hours` is not 0."""
    return {
        "ok": found.ok,
        "settings": asdict(found.settings),
        "seconds": round(found.seconds, 1),
        "checks": [{"what": c.what, "ok": c.ok, "wrong": list(c.wrong)} for c in found.checks],
        "acknowledged": found.acknowledged,
        "requests": sum(desk.requests for desk in found.desks),
        "sent_again": sum(desk.again for desk in found.desks),
        "longest_wait_sec": max((desk.longest for desk in found.desks), default=0.0),
        "streams_broke": found.streams_broke,
        "bus_broke": found.bus_broke,
        "bus_told_again": found.bus_again,
        "died": [{**asdict(each.death), "gone_sec": each.gone_sec} for each in found.died],
        "judged_hours": found.judged_hours,
        "growth": [asdict(each) for each in found.growth],
        "database_bytes_per_event": found.database_bytes_per_event,
        "samples": [asdict(each) for each in found.samples],
    }


def show(found: Soak, console: Console) -> None:
    settings, last = found.settings, found.samples[-1] if found.samples else None
    console.print(
        f"\n{settings.strategies:,} strategies, {len(found.samples)} of {settings.days} days, seed "
        f"{settings.seed}, {found.seconds:,.0f} s: {last.events if last else 0:,} events, "
        f"{found.acknowledged:,} writes acknowledged."
    )
    died = ", ".join(f"{name} {times}" for name, times in sorted(found.times_died.items()))
    again = sum(desk.again for desk in found.desks)
    longest = max((desk.longest for desk in found.desks), default=0.0)
    console.print(
        f"Killed: {died or 'nobody'}. Sent again: {again}; the longest wait for an answer was "
        f"{longest:.1f} s. Streams broke {found.streams_broke} times, the bus {found.bus_broke}, "
        f"which told {found.bus_again} events again."
    )
    console.print()
    for check in found.checks:
        console.print(f"{'yes' if check.ok else 'NO '}  {check.what}", highlight=False)
        for wrong in check.wrong[:10]:
            console.print(f"       {wrong}", highlight=False)
        if len(check.wrong) > 10:
            console.print(f"       and {len(check.wrong) - 10} more")
    if not found.judged_hours:
        console.print(
            f"--   nothing grows: not judged, its second half is shorter than "
            f"{JUDGED_HOURS_MIN * 60:.0f} minutes",
            highlight=False,
        )
    if last is not None:
        _resources(found, console)


def _resources(found: Soak, console: Console) -> None:
    table = Table(title="\nFrom the middle to the end", title_justify="left")
    for name in ("process", "resident MB", "MB/h", "B an event", "KB a day", *COUNTED):
        table.add_column(name, justify="left" if name == "process" else "right")
    middle, last = found.samples[len(found.samples) // 2], found.samples[-1]
    lines = {each.name: each for each in grown(found.samples, last.usage)}
    for name, used in last.usage.items():
        was, line = middle.usage[name], lines.get(name)
        slopes = ["started again"] + [""] * 2
        if line is not None:
            slopes = [
                _said(each) for each in (line.per_hour, line.per_event_bytes, line.per_day_kb)
            ]
        counted = [f"{getattr(was, each)} to {getattr(used, each)}" for each in COUNTED]
        table.add_row(name, f"{was.resident_mb:.1f} to {used.resident_mb:.1f}", *slopes, *counted)
    console.print(table)
    console.print(f"At most {MB_PER_H_MAX:g} MB/h, beyond two standard errors.")
    early, late = found.database_bytes_per_event
    console.print(
        f"Database: {last.database_mb:,.0f} MB, {last.connections} connections; "
        f"{early:,.0f} bytes an event in the first half, {late:,.0f} in the second."
    )


def _said(line: Line) -> str:
    return f"{line.slope:.1f} ± {line.error:.1f}"
