"""How `schema.py` declares a column, a rule or an index, for either engine."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import REAL, BigInteger, CheckConstraint, Column, Integer, LargeBinary, Text
from sqlalchemy import text as condition
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

# Texts are compared byte by byte, as SQLite does, whatever the database's language is.
TEXT = Text().with_variant(Text(collation="C"), "postgresql")
INTEGER = Integer().with_variant(BigInteger(), "postgresql")
DOUBLE: TypeEngine[float] = REAL().with_variant(postgresql.DOUBLE_PRECISION(), "postgresql")


def text(name: str, null: bool = False) -> Column[str]:
    return Column(name, TEXT, nullable=null)


def integer(name: str, null: bool = False) -> Column[int]:
    return Column(name, INTEGER, nullable=null)


def real(name: str, null: bool = False) -> Column[float]:
    return Column(name, DOUBLE, nullable=null)


def blob(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False)


def one_of(name: str, words: Iterable[str]) -> CheckConstraint:
    return check(f"{name} IN ({', '.join(repr(str(word)) for word in words)})")


def check(rule: str) -> CheckConstraint:
    return CheckConstraint(rule)


def where(rule: str) -> dict[str, Any]:
    """Of an index: the rows that it is of."""
    return {"sqlite_where": condition(rule), "postgresql_where": condition(rule)}


def truths(*names: str) -> Iterable[CheckConstraint]:
    return (check(f"{name} IN (0, 1)") for name in names)
