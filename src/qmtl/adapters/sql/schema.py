"""The tables.  Current state in plain columns; how it came about in the journal.

Names are the core's.  An instant is an INTEGER of microseconds since 1970 UTC, NULL when it has not
happened; a truth value is 0 or 1; what has many parts is JSON.  CHECKs refuse rows that cannot be.
Every table is STRICT: a number in a text column is an error here, not a surprise later.

`migrations/` is how a database of last year becomes this; a fresh one is made from the tables below
at once, and a test holds the two to be the same to the letter.
"""

import re
from collections.abc import Iterable

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable, SchemaItem
from sqlalchemy.sql import ClauseElement
from sqlalchemy.types import TypeEngine

from qmtl.adapters.chain import HASH_CHARS
from qmtl.core.names import Phase, Stage, Stream, Verdict, WorldState

# Oldest first; the last is this program's.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006")
HEAD = REVISIONS[-1]
BACKUP = "-backup"  # Behind the version of a copy: no server takes it for a database of its own.
CHUNK_POINTS = 128  # A chunk is rewritten at every append, so half a page; read as one row.

SQLITE: Dialect = sqlite.dialect(paramstyle="named")
BOTH: Dialect = sqlite.dialect(paramstyle="named")  # As either reads it.
BOTH.identifier_preparer.reserved_words = {*BOTH.identifier_preparer.reserved_words, "freeze"}
metadata = MetaData()


def sql(statement: ClauseElement) -> str:
    """The statement with `:name` parameters: rendered once, run often."""
    return str(statement.compile(dialect=BOTH))


def definition() -> list[str]:
    """The statements that make the tables, indices and triggers below, in SQLite."""
    return [*tables(SQLITE), *TRIGGERS]


def tables(of: Dialect) -> list[str]:
    """The statements that make the tables and indices."""
    statements = []
    for table in metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=of)))
        indices = sorted(table.indexes, key=lambda index: str(index.name))
        statements += [str(CreateIndex(index).compile(dialect=of)) for index in indices]
    # SQLAlchemy leaves spaces at the ends of lines, and SQLite keeps them.
    return [re.sub(r"\s*\n", "\n", text).strip() for text in statements]


# Texts are compared byte by byte, as SQLite does, whatever the database's language is.
TEXT = Text().with_variant(Text(collation="C"), "postgresql")
INTEGER = Integer().with_variant(BigInteger(), "postgresql")
DOUBLE: TypeEngine[float] = REAL().with_variant(postgresql.DOUBLE_PRECISION(), "postgresql")


def _text(name: str, null: bool = False) -> Column[str]:
    return Column(name, TEXT, nullable=null)


def _integer(name: str, null: bool = False) -> Column[int]:
    return Column(name, INTEGER, nullable=null)


def _real(name: str, null: bool = False) -> Column[float]:
    return Column(name, DOUBLE, nullable=null)


def _blob(name: str) -> Column[bytes]:
    return Column(name, LargeBinary, nullable=False)


def _one_of(name: str, words: Iterable[str]) -> CheckConstraint:
    return _check(f"{name} IN ({', '.join(repr(str(word)) for word in words)})")


def _check(rule: str) -> CheckConstraint:
    return CheckConstraint(rule)


def _truths(*names: str) -> Iterable[CheckConstraint]:
    return (_check(f"{name} IN (0, 1)") for name in names)


def _table(name: str, key: Iterable[str], *items: SchemaItem, rowid: bool = False) -> Table:
    """Rows live in the key's own tree unless they hold blobs, which would make it deep."""
    return Table(
        name,
        metadata,
        *items,
        PrimaryKeyConstraint(*key),
        sqlite_strict=True,
        sqlite_with_rowid=rowid,
    )


def _of_world() -> tuple[SchemaItem, SchemaItem]:
    return _text("world_id"), ForeignKeyConstraint(["world_id"], ["worlds.world_id"])


def _of_strategy() -> tuple[SchemaItem, ...]:
    key = ["world_id", "strategy_id"]
    return (
        _text("world_id"),
        _text("strategy_id"),
        ForeignKeyConstraint(key, [f"strategies.{name}" for name in key]),
    )


worlds = _table(
    "worlds",
    ["world_id"],
    _text("world_id"),
    _integer("seq"),  # Of its newest journal entry.
    _integer("evidence_generation"),
    _integer("governance_generation"),
    _text("head_hash"),  # Of its newest journal entry.
    _integer("last_at"),  # The latest instant that anything was recorded at.
    _integer("allow_live"),
    _text("state"),
    _integer("killed"),
    _integer("default_version", null=True),
    _integer("promoted_at", null=True),
    _check("evidence_generation >= 0 AND governance_generation >= 0"),
    _check("seq > 0 AND evidence_generation + governance_generation <= seq"),
    _check(f"length(head_hash) = {HASH_CHARS}"),
    _one_of("state", WorldState),
    *_truths("allow_live", "killed"),
)

journal = _table(
    "journal",
    ["world_id", "seq"],
    *_of_world(),
    _integer("seq"),
    _text("stream"),
    _integer("generation"),
    _integer("at"),
    _text("actor"),
    _text("kind"),
    _text("body_digest"),  # No foreign key: retention may drop the body, and the chain holds.
    _text("hash"),
    _one_of("stream", Stream),
    _check("seq > 0 AND generation > 0"),
    _check(f"length(body_digest) = {HASH_CHARS} AND length(hash) = {HASH_CHARS}"),
)

bodies = _table("bodies", ["digest"], _text("digest"), _blob("body"), rowid=True)

policies = _table(
    "policies",
    ["world_id", "version"],
    *_of_world(),
    _integer("version"),
    _text("checksum"),
    _text("policy"),
    _integer("at"),
    _check("version > 0"),
)

strategies = _table(
    "strategies",
    ["world_id", "strategy_id"],
    *_of_world(),
    _text("strategy_id"),
    _integer("row"),
    _text("name"),
    _text("author"),
    _text("fingerprint", null=True),
    _integer("variants_tried", null=True),
    _integer("bound_at"),
    _text("phase"),
    _integer("entered_at", null=True),
    _integer("held"),
    _integer("selected"),
    _integer("step"),
    _integer("step_window_us"),
    _integer("extension_us"),
    _text("blocked"),  # Reasons why its apply was last refused.
    _text("family"),  # The id of its first version.
    _integer("version"),
    _text("previous", null=True),  # The version before.
    _text("parts"),  # Of its fingerprint.
    UniqueConstraint("world_id", "row"),
    UniqueConstraint("world_id", "family", "version"),
    UniqueConstraint("world_id", "family", "fingerprint"),
    _one_of("phase", Phase),
    _check(f"step >= -1 AND (step = -1 OR phase = '{Phase.LIVE}')"),
    _check("version > 0 AND (version = 1) = (previous IS NULL)"),
    _check("(version = 1) = (family = strategy_id)"),
    *_truths("held", "selected"),
)

series_state = _table(
    "series_state",
    ["world_id", "strategy_id", "stage"],
    *_of_strategy(),
    _text("stage"),
    _integer("points"),
    _text("digest", null=True),
    _integer("first_t", null=True),
    _integer("last_t", null=True),
    _integer("window_from", null=True),
    _integer("window_first_t", null=True),
    _integer("window_last_t", null=True),
    _integer("window_us"),
    _integer("window_points"),
    _real("equity"),
    _real("peak"),
    _real("drawdown"),
    _integer("covered_seq"),
    _integer("covered_as_of", null=True),
    _integer("covered_ttl_us"),
    _real("stress_loss", null=True),
    _text("verdict", null=True),
    _text("judged_digest", null=True),
    _integer("judged_policy"),
    _integer("judged_t", null=True),
    _one_of("stage", Stage),
    _one_of("verdict", Verdict),  # NULL: not judged.
    _check("window_points BETWEEN 0 AND points AND window_us >= 0"),
    _check("(points = 0) = (first_t IS NULL) AND (points = 0) = (last_t IS NULL)"),
    _check("first_t <= last_t AND window_first_t <= window_last_t"),
    _check("equity >= 0 AND peak >= equity AND drawdown BETWEEN 0 AND 1"),
)

series = _table(
    "series",
    ["world_id", "strategy_id", "stage", "chunk"],
    *_of_strategy(),
    _text("stage"),
    _integer("chunk"),
    _integer("points"),
    _integer("first_t"),
    _integer("last_t"),
    _blob("t"),  # int64, little-endian.
    _blob("r"),  # float64, little-endian.
    _blob("accepted"),  # A byte each, 0 or 1.
    _integer("checksum"),  # Of the three blobs: see `project.checksum`.
    _one_of("stage", Stage),
    _check(f"points BETWEEN 1 AND {CHUNK_POINTS}"),
    _check("length(t) = 8 * points AND length(r) = 8 * points AND length(accepted) = points"),
    rowid=True,
)

snapshots = _table(
    "snapshots",
    ["world_id", "seq"],
    *_of_world(),
    _integer("seq"),  # The content is the journal entry's.
    _text("version"),
    _text("stage"),
    _integer("as_of"),
    _integer("ttl_sec"),
    _text("content"),
    _text("actor"),
    _integer("created_at"),
    UniqueConstraint("world_id", "version"),
    Index("snapshots_latest", "world_id", "as_of", "seq"),
    Index("snapshots_latest_of_stage", "world_id", "stage", "as_of", "seq"),
    Index("snapshots_latest_of_actor", "world_id", "actor", "as_of", "seq"),
    _one_of("stage", Stage),
    _check("ttl_sec > 0"),
)

run_revisions = _table(
    "run_revisions",
    ["world_id", "strategy_id", "run_id", "revision"],
    *_of_strategy(),
    _text("run_id"),
    _integer("revision"),
    _integer("seq"),
    _integer("at"),
    _text("actor"),
    _text("verdict"),
    _text("run"),
    _one_of("verdict", Verdict),
    rowid=True,
)

runs = _table(
    "runs",
    ["world_id", "strategy_id", "run_id"],
    *_of_strategy(),
    _text("run_id"),
    _text("stage"),
    _integer("revision"),  # The newest.
    _integer("seq"),
    ForeignKeyConstraint(
        ["world_id", "strategy_id", "run_id", "revision"],
        [
            "run_revisions.world_id",
            "run_revisions.strategy_id",
            "run_revisions.run_id",
            "run_revisions.revision",
        ],
    ),
    Index("runs_by_seq", "world_id", "strategy_id", "seq"),
    _one_of("stage", Stage),
)

latest_runs = _table(
    "latest_runs",
    ["world_id", "strategy_id", "stage"],
    *_of_strategy(),
    _text("stage"),
    _text("run_id"),
    _integer("revision"),
    _text("verdict"),
    _text("problems"),
    _integer("at"),
    _one_of("stage", Stage),
    _one_of("verdict", Verdict),
)

candidates = _table(
    "candidates",
    ["world_id", "candidate_id"],
    _text("candidate_id"),
    *_of_strategy(),
    _text("fingerprint", null=True),
    _integer("policy_version"),
    _integer("entered_at"),
    _integer("step"),
    _text("run_id"),
    _text("evidence"),
    _integer("proposed_at"),
    _text("proposer"),
    _text("standing"),
    _integer("standing_at", null=True),
    _text("standing_by", null=True),
    _text("standing_reason", null=True),
    _integer("applied_seq", null=True),
    _text("approvals"),
    Index("candidates_of_strategy", "world_id", "strategy_id"),
    ForeignKeyConstraint(["world_id", "policy_version"], ["policies.world_id", "policies.version"]),
    _check("step >= 0"),
    _one_of("standing", ("proposed", "approved", "rejected", "applied", "void")),
    _check("(standing = 'proposed') = (standing_at IS NULL)"),
    _check("(standing = 'rejected') = (standing_by IS NOT NULL)"),
    _check("(standing IN ('rejected', 'void')) = (standing_reason IS NOT NULL)"),
    _check("(standing = 'applied') = (applied_seq IS NOT NULL)"),
    _check("standing <> 'approved' OR json_array_length(approvals) > 0"),
)

activations = _table(
    "activations",
    ["world_id", "strategy_id"],
    *_of_strategy(),
    _text("candidate_id"),
    _text("run_id"),
    _integer("step"),
    _real("applied_weight"),
    _real("weight"),
    _integer("freeze"),
    _integer("drain"),
    _integer("sequence"),
    _integer("at"),
    _integer("acknowledged"),
    ForeignKeyConstraint(
        ["world_id", "candidate_id"], ["candidates.world_id", "candidates.candidate_id"]
    ),
    _check("step >= 0"),
    _check("0 <= weight AND weight <= applied_weight AND applied_weight <= 1"),
    *_truths("freeze", "drain"),
)

confirmations = _table(
    "confirmations",
    ["world_id", "confirmation_id"],
    *_of_world(),
    _text("confirmation_id"),
    _text("what"),
    _integer("policy_version", null=True),
    _text("by"),
    _integer("at"),
)

world_list = _table(
    "world_list",
    ["world_id", "listed"],
    *_of_world(),  # `_system`, whose journal the list comes from.
    _text("listed"),
    _text("name"),
    _text("description"),
    _text("labels"),
    _integer("allow_live"),  # As asked for at creation; what it is now is in `worlds`.
    _integer("created_at"),
    _text("created_by"),
    *_truths("allow_live"),
)

tokens = _table(
    "tokens",
    ["world_id", "token_sha256"],
    *_of_world(),
    _text("token_sha256"),
    _text("actor"),
    _text("roles"),
    _text("valid_in", null=True),  # A world; NULL: every one.
    _integer("expires_at", null=True),
    _integer("created_at"),
)

idempotency = _table(
    "idempotency",
    ["actor", "key"],
    _text("actor"),
    _text("key"),
    _text("request"),
    _integer("status"),
    _blob("body"),
    _text("digest"),  # Of all that and the key: see `answers.py`.
    _integer("at"),
    Index("idempotency_by_age", "at"),
    rowid=True,
)

checkpoints = _table(
    "checkpoints",
    ["world_id"],
    *_of_world(),
    _integer("seq"),
    _text("hash"),  # Of the journal entry `seq`.
    _text("layout"),
    _text("digest"),  # Of both blobs.
    _blob("dense"),
    _blob("sparse"),
    rowid=True,
)

loops = _table(
    "loops",
    ["world_id", "loop"],
    _text("world_id"),
    _text("loop"),
    _integer("until"),  # By the clock of the database, in microseconds.
)

clock = _table("clock", ["id"], _integer("id"), _integer("at"), _check("id = 1"))

alembic_version = Table(  # As Alembic itself makes it.
    "alembic_version",
    metadata,
    Column("version_num", Text, nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)

TRIGGERS = (
    # INVARIANT: nothing edits the journal.  Bodies may be dropped, and never changed.
    "CREATE TRIGGER journal_is_not_updated BEFORE UPDATE ON journal "
    "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
    "CREATE TRIGGER journal_is_not_deleted BEFORE DELETE ON journal "
    "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
    "CREATE TRIGGER bodies_are_not_updated BEFORE UPDATE ON bodies "
    "BEGIN SELECT RAISE(ABORT, 'a body is its digest'); END",
    # INSERT OR REPLACE deletes what is in its way without asking the triggers on DELETE.
    "CREATE TRIGGER journal_is_not_replaced BEFORE INSERT ON journal "
    "WHEN NEW.seq IS NOT "
    "(SELECT 1 + ifnull(max(seq), 0) FROM journal WHERE world_id = NEW.world_id) "
    "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END",
    "CREATE TRIGGER bodies_are_not_replaced BEFORE INSERT ON bodies "
    "WHEN EXISTS (SELECT 1 FROM bodies WHERE digest = NEW.digest AND body IS NOT NEW.body) "
    "BEGIN SELECT RAISE(ABORT, 'a body is its digest'); END",
)
