"""Times over the wire: RFC 3339 with an offset, and nothing else."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmtl.adapters.wire.instants import column_text, parse, parse_column, rfc3339
from qmtl.core.times import micros

moments = st.datetimes(
    min_value=datetime(2, 1, 1), max_value=datetime(9998, 12, 31), timezones=st.just(UTC)
)
BAD = [
    "",
    "2024-01-01",
    "2024-01-01T00:00:00",
    "2024-01-01T00:00Z",
    "2024-01-01T00:00:00+0100",
    "2024-01-01T24:00:00Z",
    "2024-01-01T23:59:60Z",
    "2024-02-30T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+10:00",
    "9999-12-31T23:59:59-10:00",
    "20240101T000000Z",
    "2024-W01-1T00:00:00Z",
    "1704067200",
    "NaT",
    "now",
    " 2024-01-01T00:00:00Z",
    "2024-01-01T00:00:00Z\n",
    "2024-01-01T00:00:00Z\n2024-01-02T00:00:00Z",
    "２０２４-01-01T00:00:00Z",
]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_time_with_an_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        parse(text)
    with pytest.raises(ValueError, match="time"):
        parse_column([text])
    with pytest.raises(ValueError, match="time"):
        parse_column(["2024-01-01T00:00:00Z", text])


def test_offsets_and_spellings_are_one_instant() -> None:
    noon = datetime(2024, 1, 31, 12, tzinfo=UTC)
    spellings = [
        "2024-01-31T12:00:00Z",
        "2024-01-31t12:00:00z",
        "2024-01-31 12:00:00Z",
        "2024-01-31T12:00:00.000000000Z",
        "2024-01-31T14:00:00+02:00",
        "2024-01-31T06:30:00-05:30",
        "2024-01-31T12:00:00-00:00",
    ]
    assert {parse(text) for text in spellings} == {noon}
    assert set(parse_column(spellings).tolist()) == {micros(noon)}
    assert rfc3339(noon.astimezone(timezone(timedelta(hours=2)))) == "2024-01-31T12:00:00Z"


@given(st.lists(moments, max_size=20))
def test_a_column_comes_back_as_it_went(told: list[datetime]) -> None:
    texts = [rfc3339(moment) for moment in told]
    column = parse_column(texts)
    assert column.tolist() == [micros(moment) for moment in told]
    assert column_text(column) == texts
    assert [parse(text) for text in texts] == told
