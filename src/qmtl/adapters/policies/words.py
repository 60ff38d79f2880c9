"""The words of a policy document: metrics and the range of their gates, lengths, freezes, limits.

Strict: text is not a number, a boolean is not a number, NaN and infinity are nothing.  What is off
is said: a section by the word `none`, a length of time by null.  An empty key is refused: it would
be a gate that is off.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any, Final

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from qmtl.adapters.policies.documents import shown
from qmtl.core.metrics import UNITS
from qmtl.core.policy import Freeze

COUNT_MAX: Final = 10_000_000  # Observations: forty years of one-minute bars of a stock exchange.
PERIODS_PER_YEAR_MAX: Final = 31_557_600  # A bar a second, day and night.
LENGTH_MAX: Final = timedelta(days=36_525)  # A century; keeps sums of lengths far from overflow.
SHARPE_MAX: Final = 20.0  # An annual Sharpe ratio above it is a slip, or a leak.
PARTS_MAX: Final = 20  # Ramp steps, freezes, approvers: more than anyone reads.
SLOTS_MAX: Final = 10_000
FREEZE_CHARS_MAX: Final = 100

GATE_UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        **UNITS,
        "trades_total": "count",  # From the producer.
        "turnover_annual": "multiple of capital per year",  # From the producer.
        "stress_loss_max": "fraction of capital, worst scenario",  # From the hub's stress.
        "ex_ante_volatility": "fraction, annualised",  # From the hub's covariance.
    }
)
"""Every metric a gate may name, and its unit."""

RANGES: Final[Mapping[str, tuple[float, float | None]]] = {
    # A bound out here is a slip of the unit (30 for 0.30), and a gate that is off.
    "sharpe_annual": (-SHARPE_MAX, SHARPE_MAX),
    "volatility": (0, 10),
    "max_drawdown": (0, 1),
    "kurtosis": (1, None),
    "var_p01": (-1, 1),
    "es_p01": (-1, 1),
    "gain_to_pain": (-1, None),
    "time_under_water_ratio": (0, 1),
    "effective_history_years": (0, 1000),
    "observations": (0, None),
    "trades_total": (0, None),
    "turnover_annual": (0, None),
    "stress_loss_max": (0, 1),
    "ex_ante_volatility": (0, 10),
}

_UNIT_SEC: Final = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_LENGTH_PATTERN: Final = r"^(0|[1-9][0-9]{0,9})[smhdw]$"
Problem = tuple[tuple[str | int, ...], str]


def refuse(problems: list[Problem]) -> None:
    """Raise what pydantic gathers with all it finds itself; nothing when there are no problems."""
    if problems:
        raise ValidationError.from_exception_data(
            "policy",
            [
                InitErrorDetails(
                    type=PydanticCustomError("rule", "{words}", {"words": words}),
                    loc=loc,
                    input=None,
                )
                for loc, words in problems
            ],
        )


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean x?`, or nothing when no known word is near."""
    close = difflib.get_close_matches(word[:80], known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]}?" if close else ""


def length_text(length: timedelta) -> str:
    """A length of time as it is written: in days, else in hours, minutes or seconds."""
    whole = length // timedelta(seconds=1)
    assert length == timedelta(seconds=whole), "lengths are whole seconds"
    unit = next(unit for unit in "dhms" if whole % _UNIT_SEC[unit] == 0)
    return f"{whole // _UNIT_SEC[unit]}{unit}"


def _length(text: object) -> timedelta:
    words = "must be a length of time such as 90s, 15m, 72h, 5d or 4w"
    if not isinstance(text, str):
        raise ValueError(f"{words}, not {shown(text)}.")
    digits, unit = text[:-1], text[-1:]
    written = digits.isascii() and digits.isdigit() and len(digits) <= 10
    if not written or unit not in _UNIT_SEC or (digits[0] == "0" and digits != "0"):
        raise ValueError(f"{words}, not {shown(text)}.")
    seconds = int(digits) * _UNIT_SEC[unit]
    if seconds > LENGTH_MAX.total_seconds():
        raise ValueError(f"must be at most {length_text(LENGTH_MAX)}, not {text}.")
    return timedelta(seconds=seconds)


def _positive(length: timedelta) -> timedelta:
    if not length > timedelta(0):
        raise ValueError("must be longer than nothing.")
    return length


def freeze_text(freeze: Freeze) -> str:
    """A freeze as it is written: `cron/length`."""
    return f"{freeze.cron}/{length_text(freeze.length)}"


def _freeze(text: object) -> Freeze:
    words = 'must be "cron start/length", such as "0 20 * * FRI/60h" (UTC)'
    if not isinstance(text, str) or len(text) > FREEZE_CHARS_MAX:
        raise ValueError(f"{words}, not {shown(text)}.")
    start, _, length = text.rpartition("/")  # The last slash: `*/5` has one too.
    fields = start.upper().split()
    if len(fields) != 5:
        raise ValueError(f"{words}: five cron fields and a length, not {shown(text)}.")
    cron = " ".join(fields)
    try:
        # Both ways, since a start that never comes would be a freeze that is off.
        for reverse in (False, True):
            next(CronSim(cron, datetime(2024, 1, 1, tzinfo=UTC), reverse=reverse))
    except CronSimError as error:
        raise ValueError(f"{words}: {error} in {shown(start)}.") from None
    except StopIteration:
        raise ValueError(f"the start {shown(start)} never comes.") from None
    return Freeze(cron=cron, length=_positive(_length(length)))


def _metric(name: str) -> str:
    if name not in GATE_UNITS:
        raise ValueError(f"is not a metric that is known here.{nearest(name, GATE_UNITS)}")
    return name


def _given(value: object) -> object:
    if value is None:
        raise ValueError("is empty: give it a value, or leave it out.")
    return value


def _or_none(value: object) -> object:
    if value is None:
        raise ValueError("is empty: write none to do without, or leave it out for the standard.")
    return None if value == "none" else value


def _instead_of_null(*words: str) -> Callable[[dict[str, Any]], None]:
    """In the JSON Schema, what stands where Python says None."""

    def change(schema: dict[str, Any]) -> None:
        variants = [kind for kind in schema.pop("anyOf") if kind != {"type": "null"}]
        variants += [{"const": word} for word in words]
        schema.update(variants[0] if len(variants) == 1 else {"anyOf": variants})
        if schema.get("default", ...) is None:
            del schema["default"]

    return change


Length = Annotated[
    timedelta,
    PlainValidator(_length),
    PlainSerializer(length_text),
    WithJsonSchema({"type": "string", "pattern": _LENGTH_PATTERN}),
]
Span = Annotated[
    Length,
    AfterValidator(_positive),
    WithJsonSchema({"type": "string", "pattern": _LENGTH_PATTERN.replace("0|", "")}),
]
FreezeEntry = Annotated[
    Freeze,
    PlainValidator(_freeze),
    PlainSerializer(freeze_text),
    WithJsonSchema({"type": "string", "description": '"cron start/length", in UTC'}),
]
Metric = Annotated[
    str, AfterValidator(_metric), WithJsonSchema({"type": "string", "enum": list(GATE_UNITS)})
]
Fraction = Annotated[float, Field(gt=0, le=1)]
PROBABILITY_MIN: Final = 1e-6  # Fewer than one in a million, no number of returns here tells.
Probability = Annotated[float, Field(ge=PROBABILITY_MIN, lt=1)]
Correlation = Annotated[float, Field(ge=-1, le=1)]
Sharpe = Annotated[float, Field(gt=0, le=SHARPE_MAX)]
Count = Annotated[int, Field(ge=1, le=COUNT_MAX)]
Given = (BeforeValidator(_given), Field(json_schema_extra=_instead_of_null()))
OrNone = (BeforeValidator(_or_none), Field(json_schema_extra=_instead_of_null("none")))
