"""A report's data as one file: HTML that needs nothing beside it and prints well, or text.

Whatever is put into a page is escaped; nothing here marks a text of somebody's as safe.
"""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from qmtl import __version__
from qmtl.core.words import counted, listed, one_line, percent

NOTHING: Final = "–"
HERE: Final = Path(__file__).parent / "templates"
WIDTH: Final = 320.0  # Of a curve, in its own units.
HEIGHT: Final = 90.0


def html(data: Mapping[str, Any], pages: str | None = None) -> str:
    """The report as a whole page.  `pages`: where the dashboard is, to link to."""
    name = {"candidate": "dossier.html", "day": "day.html"}[data["report"]]
    return ENVIRONMENT.get_template(name).render(r=data, pages=pages, style=STYLE)


def text(data: Mapping[str, Any]) -> str:
    """A day in plain text, for a mail or a terminal."""
    assert data["report"] == "day", "a dossier is read as a page"
    return PLAIN.get_template("day.txt").render(r=data)


# ---- How values are written ------------------------------------------------------------------


def moment(at: str | None) -> str:
    """An RFC 3339 instant in UTC, to the second."""
    return NOTHING if at is None else f"{at[:10]} {at[11:19]} UTC"


def minute(at: str) -> str:
    """The time of a day."""
    return at[11:16]


def number(value: float | None, digits: int = 4) -> str:
    """So many significant digits; a whole number with all of its own."""
    if value is None or not math.isfinite(value):
        return NOTHING
    whole = value == int(value) and abs(value) < 1e12
    return (f"{value:,.0f}" if whole else f"{value:,.{digits}g}").replace("-", "−")


def share(value: float | None, digits: int = 2) -> str:
    """A share of one in percent, always with the same digits, so that a column aligns."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{100 * value:,.{digits}f} %".replace("-", "−")


def signed(value: float | None, digits: int = 2) -> str:
    told = share(value, digits)
    return f"+{told}" if value is not None and value > 0 else told


def words(name: str) -> str:
    return name.replace("_", " ")


def as_yaml(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=80)


def curve(growth: Sequence[float]) -> dict[str, Any]:
    """The points of a polyline, and where its line of no gain is."""
    low, high = min(1.0, *growth), max(1.0, *growth)
    room = (high - low) or 1.0

    def y(value: float) -> float:
        return round(HEIGHT * (1.0 - (value - low) / room), 2)

    step = WIDTH / max(1, len(growth) - 1)
    points = " ".join(f"{round(n * step, 2)},{y(value)}" for n, value in enumerate(growth))
    return {"points": points, "flat": y(1.0), "width": WIDTH, "height": HEIGHT}


def _environment(*, escaped: bool) -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=None if escaped else lambda value: one_line(str(value)),
    )
    made.filters |= {
        "moment": moment,
        "minute": minute,
        "number": number,
        "share": share,
        "signed": signed,
        "percent": percent,
        "words": words,
        "yaml": as_yaml,
        "curve": curve,
        "listed": listed,
        "quoted": lambda part: quote(str(part), safe=""),
    }
    made.globals |= {"counted": counted, "version": __version__, "nothing": NOTHING}
    return made


def _style_source(environment: Environment) -> str:
    """What a Content-Security-Policy calls the one style sheet that a report has in it."""
    style = environment.get_template("report.css").render()
    return f"'sha256-{b64encode(sha256(style.encode()).digest()).decode()}'"


ENVIRONMENT: Final = _environment(escaped=True)
STYLE: Final = _style_source(ENVIRONMENT)
PLAIN: Final = _environment(escaped=False)  # Of text, and of nothing else.
