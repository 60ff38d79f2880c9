"""Templates, and how numbers and instants are written in them.

Whatever is put into a template is escaped; nothing here marks a text of somebody's as safe.
"""

import math
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from fastapi import Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from qmtl import __version__
from qmtl.core.implications import median_of, percent_of
from qmtl.core.times import DAY_SEC, HOUR_SEC, rfc3339
from qmtl.core.words import minute

from . import static

# No inline script, no inline style, nothing from elsewhere, no form to elsewhere, in no frame.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Vary": "Cookie",
}
NOTHING: Final = "–"


def path(*parts: object) -> str:
    """A path below /ui, its parts quoted."""
    return "/".join(("/ui", *(quote(str(part), safe="") for part in parts)))


def time(at: datetime | None) -> Markup | str:
    """An instant in UTC; a script adds the reader's own on hover."""
    if at is None:
        return NOTHING
    return Markup('<time datetime="{}">{}</time>').format(rfc3339(at), minute(at))


def day(at: datetime | None) -> Markup | str:
    if at is None:
        return NOTHING
    return Markup('<time datetime="{}">{:%Y-%m-%d}</time>').format(rfc3339(at), at)


def percent(share: float | None, digits: int = 1) -> str:
    """A share of one as `4.2 %`; the same number of digits in a column, so that they align."""
    if share is None or not math.isfinite(share):
        return NOTHING
    return f"{100 * share:,.{digits}f} %".replace("-", "−")


def number(value: float | None, digits: int = 4) -> str:
    """So many significant digits; a whole number with all of its own."""
    if value is None or not math.isfinite(value):
        return NOTHING
    whole = abs(value) < 1e12 and (value == int(value) or abs(value) >= 10**digits)
    return (f"{value:,.0f}" if whole else f"{value:,.{digits}g}").replace("-", "−")


def span(seconds: float) -> str:
    """A length of time in the unit that leaves a number of few digits: `90 s`, `15 min`, `36 h`."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 2 * HOUR_SEC:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * DAY_SEC:
        return f"{seconds / HOUR_SEC:.0f} h"
    days = seconds / DAY_SEC
    return f"{days:,.0f} days" if days >= 10 else f"{days:.1f} days"


def short(digest: str | None) -> str:
    return digest.rpartition(":")[2][:12] if digest else NOTHING


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "time": time,
        "day": day,
        "percent": percent,
        "number": number,
        "short": short,
        "span": span,
        "standing": lambda standing: type(standing).__name__.lower(),
        "passing": percent_of,
        "half_after": median_of,
        "plain": lambda word: str(word).replace("_", " "),
    }
    made.globals |= {"static": static.url, "path": path, "version": __version__}
    return made


ENVIRONMENT: Final = _environment()


def page(template: str, status: int = 200, **given: Any) -> Response:
    """A whole page."""
    text = ENVIRONMENT.get_template(template).render(**given)
    return Response(text, status, HEADERS, "text/html; charset=utf-8")
