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
    Column,
    Dialect,
    ForeignKeyConstraint,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable, SchemaItem
from sqlalchemy.sql import ClauseElement

from qmtl.adapters.chain import HASH_CHARS
from qmtl.core.names import Phase, Stage, Stream, Verdict, WorldState

from .declared import blob, check, integer, one_of, real, text, truths, where
from .triggers import TRIGGERS

# Oldest first; the last is this program's.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")
HEAD = REVISIONS[-1]
BACKUP = "-backup"  # Behind the version of a copy: no server takes it for a database of its own.
CHUNK_POINTS = 128  # A chunk is rewritten at every append, so half a page; read as one row.
PART_CHUNKS = 32  # Full chunks that leave the database as one object: 70 KB.  A power of two.
OBJECT_BYTES_MIN = 65_536  # A smaller body is not worth a request to an object store.

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
    return [re.sub(r"\s*\n", "\n", each).strip() for each in statements]


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
    return text("world_id"), ForeignKeyConstraint(["world_id"], ["worlds.world_id"])


def _of_strategy() -> tuple[SchemaItem, ...]:
    key = ["world_id", "strategy_id"]
    return (
        text("world_id"),
        text("strategy_id"),
        ForeignKeyConstraint(key, [f"strategies.{name}" for name in key]),
    )


worlds = _table(
    "worlds",
    ["world_id"],
    text("world_id"),
    integer("seq"),  # Of its newest journal entry.
    integer("evidence_generation"),
    integer("governance_generation"),
    text("head_hash"),  # Of its newest journal entry.
    integer("last_at"),  # The latest instant that anything was recorded at.
    integer("allow_live"),
    text("state"),
    integer("killed"),
    integer("default_version", null=True),
    integer("promoted_at", null=True),
    check("evidence_generation >= 0 AND governance_generation >= 0"),
    check("seq > 0 AND evidence_generation + governance_generation <= seq"),
    check(f"length(head_hash) = {HASH_CHARS}"),
    one_of("state", WorldState),
    *truths("allow_live", "killed"),
)

journal = _table(
    "journal",
    ["world_id", "seq"],
    *_of_world(),
    integer("seq"),
    text("stream"),
    integer("generation"),
    integer("at"),
    text("actor"),
    text("kind"),
    text("body_digest"),  # No foreign key: retention may drop the body, and the chain holds.
    text("hash"),
    one_of("stream", Stream),
    check("seq > 0 AND generation > 0"),
    check(f"length(body_digest) = {HASH_CHARS} AND length(hash) = {HASH_CHARS}"),
)

bodies = _table("bodies", ["digest"], text("digest"), blob("body"), rowid=True)
# What is to leave the database, if there is anywhere to go: found without reading the rest.
Index("bodies_due", bodies.c.digest, **where(f"length(body) >= {OBJECT_BYTES_MIN}"))

reduced = _table(  # Entries of snapshots of which retention left a part: another body is theirs.
    "reduced",
    ["world_id", "seq"],
    *_of_world(),
    integer("seq"),
    text("digest"),
    check(f"length(digest) = {HASH_CHARS}"),
)

objects = _table(  # Bodies, and parts of series, that an object store holds.
    "objects",
    ["digest"],
    text("digest"),  # Of its bytes.
    text("key"),
    integer("size"),
    UniqueConstraint("key"),
    check(f"length(digest) = {HASH_CHARS} AND size > 0"),
)

policies = _table(
    "policies",
    ["world_id", "version"],
    *_of_world(),
    integer("version"),
    text("checksum"),
    text("policy"),
    integer("at"),
    check("version > 0"),
)

strategies = _table(
    "strategies",
    ["world_id", "strategy_id"],
    *_of_world(),
    text("strategy_id"),
    integer("row"),
    text("name"),
    text("author"),
    text("fingerprint", null=True),
    integer("variants_tried", null=True),
    integer("bound_at"),
    text("phase"),
    integer("entered_at", null=True),
    integer("held"),
    integer("selected"),
    integer("step"),
    integer("step_window_us"),
    integer("extension_us"),
    text("blocked"),  # Reasons why its apply was last refused.
    text("family"),  # The id of its first version.
    integer("version"),
    text("previous", null=True),  # The version before.
    text("parts"),  # Of its fingerprint.
    UniqueConstraint("world_id", "row"),
    UniqueConstraint("world_id", "family", "version"),
    UniqueConstraint("world_id", "family", "fingerprint"),
    one_of("phase", Phase),
    check(f"step >= -1 AND (step = -1 OR phase = '{Phase.LIVE}')"),
    check("version > 0 AND (version = 1) = (previous IS NULL)"),
    check("(version = 1) = (family = strategy_id)"),
    *truths("held", "selected"),
)

series_state = _table(
    "series_state",
    ["world_id", "strategy_id", "stage"],
    *_of_strategy(),
    text("stage"),
    integer("points"),
    text("digest", null=True),
    integer("first_t", null=True),
    integer("last_t", null=True),
    integer("window_from", null=True),
    integer("window_first_t", null=True),
    integer("window_last_t", null=True),
    integer("window_us"),
    integer("window_points"),
    real("equity"),
    real("peak"),
    real("drawdown"),
    integer("covered_seq"),
    integer("covered_as_of", null=True),
    integer("covered_ttl_us"),
    real("stress_loss", null=True),
    text("verdict", null=True),
    text("judged_digest", null=True),
    integer("judged_policy"),
    integer("judged_t", null=True),
    one_of("stage", Stage),
    one_of("verdict", Verdict),  # NULL: not judged.
    check("window_points BETWEEN 0 AND points AND window_us >= 0"),
    check("(points = 0) = (first_t IS NULL) AND (points = 0) = (last_t IS NULL)"),
    check("first_t <= last_t AND window_first_t <= window_last_t"),
    check("equity >= 0 AND peak >= equity AND drawdown BETWEEN 0 AND 1"),
)

series = _table(
    "series",
    ["world_id", "strategy_id", "stage", "chunk"],
    *_of_strategy(),
    text("stage"),
    integer("chunk"),
    integer("points"),
    integer("first_t"),
    integer("last_t"),
    blob("t"),  # int64, little-endian.
    blob("r"),  # float64, little-endian.
    blob("accepted"),  # A byte each, 0 or 1.
    integer("checksum"),  # Of the three blobs: see `project.checksum`.
    one_of("stage", Stage),
    check(f"points BETWEEN 1 AND {CHUNK_POINTS}"),
    check("length(t) = 8 * points AND length(r) = 8 * points AND length(accepted) = points"),
    rowid=True,
)

LAST_OF_PART = f"chunk & {PART_CHUNKS - 1} = {PART_CHUNKS - 1} AND points = {CHUNK_POINTS}"
Index(
    "series_due",
    *(series.c[name] for name in ("world_id", "strategy_id", "stage", "chunk")),
    **where(LAST_OF_PART),
)

parts = _table(  # Of series: full chunks in a row, which an object store holds.
    "parts",
    ["world_id", "strategy_id", "stage", "chunk"],
    *_of_strategy(),
    text("stage"),
    integer("chunk"),  # The first.
    integer("chunks"),
    text("digest"),
    ForeignKeyConstraint(["digest"], ["objects.digest"]),
    one_of("stage", Stage),
    check("chunk >= 0 AND chunks > 0"),
)

snapshots = _table(
    "snapshots",
    ["world_id", "seq"],
    *_of_world(),
    integer("seq"),  # The content is the journal entry's.
    text("version"),
    text("stage"),
    integer("as_of"),
    integer("ttl_sec"),
    text("content"),
    text("actor"),
    integer("created_at"),
    UniqueConstraint("world_id", "version"),
    Index("snapshots_latest", "world_id", "as_of", "seq"),
    Index("snapshots_latest_of_stage", "world_id", "stage", "as_of", "seq"),
    Index("snapshots_latest_of_actor", "world_id", "actor", "as_of", "seq"),
    one_of("stage", Stage),
    check("ttl_sec > 0"),
)

run_revisions = _table(
    "run_revisions",
    ["world_id", "strategy_id", "run_id", "revision"],
    *_of_strategy(),
    text("run_id"),
    integer("revision"),
    integer("seq"),
    integer("at"),
    text("actor"),
    text("verdict"),
    text("run"),
    one_of("verdict", Verdict),
    rowid=True,
)

runs = _table(
    "runs",
    ["world_id", "strategy_id", "run_id"],
    *_of_strategy(),
    text("run_id"),
    text("stage"),
    integer("revision"),  # The newest.
    integer("seq"),
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
    one_of("stage", Stage),
)

latest_runs = _table(
    "latest_runs",
    ["world_id", "strategy_id", "stage"],
    *_of_strategy(),
    text("stage"),
    text("run_id"),
    integer("revision"),
    text("verdict"),
    text("problems"),
    integer("at"),
    one_of("stage", Stage),
    one_of("verdict", Verdict),
)

candidates = _table(
    "candidates",
    ["world_id", "candidate_id"],
    text("candidate_id"),
    *_of_strategy(),
    text("fingerprint", null=True),
    integer("policy_version"),
    integer("entered_at"),
    integer("step"),
    text("run_id"),
    text("evidence"),
    integer("proposed_at"),
    text("proposer"),
    text("standing"),
    integer("standing_at", null=True),
    text("standing_by", null=True),
    text("standing_reason", null=True),
    integer("applied_seq", null=True),
    text("approvals"),
    Index("candidates_of_strategy", "world_id", "strategy_id"),
    ForeignKeyConstraint(["world_id", "policy_version"], ["policies.world_id", "policies.version"]),
    check("step >= 0"),
    one_of("standing", ("proposed", "approved", "rejected", "applied", "void")),
    check("(standing = 'proposed') = (standing_at IS NULL)"),
    check("(standing = 'rejected') = (standing_by IS NOT NULL)"),
    check("(standing IN ('rejected', 'void')) = (standing_reason IS NOT NULL)"),
    check("(standing = 'applied') = (applied_seq IS NOT NULL)"),
    check("standing <> 'approved' OR json_array_length(approvals) > 0"),
)

activations = _table(
    "activations",
    ["world_id", "strategy_id"],
    *_of_strategy(),
    text("candidate_id"),
    text("run_id"),
    integer("step"),
    real("applied_weight"),
    real("weight"),
    integer("freeze"),
    integer("drain"),
    integer("sequence"),
    integer("at"),
    integer("acknowledged"),
    ForeignKeyConstraint(
        ["world_id", "candidate_id"], ["candidates.world_id", "candidates.candidate_id"]
    ),
    check("step >= 0"),
    check("0 <= weight AND weight <= applied_weight AND applied_weight <= 1"),
    *truths("freeze", "drain"),
)

confirmations = _table(
    "confirmations",
    ["world_id", "confirmation_id"],
    *_of_world(),
    text("confirmation_id"),
    text("what"),
    integer("policy_version", null=True),
    text("by"),
    integer("at"),
)

world_list = _table(
    "world_list",
    ["world_id", "listed"],
    *_of_world(),  # `_system`, whose journal the list comes from.
    text("listed"),
    text("name"),
    text("description"),
    text("labels"),
    integer("allow_live"),  # As asked for at creation; what it is now is in `worlds`.
    integer("created_at"),
    text("created_by"),
    *truths("allow_live"),
)

tokens = _table(
    "tokens",
    ["world_id", "token_sha256"],
    *_of_world(),
    text("token_sha256"),
    text("actor"),
    text("roles"),
    text("valid_in", null=True),  # A world; NULL: every one.
    integer("expires_at", null=True),
    integer("created_at"),
)

idempotency = _table(
    "idempotency",
    ["actor", "key"],
    text("actor"),
    text("key"),
    text("request"),
    integer("status"),
    blob("body"),
    text("digest"),  # Of all that and the key: see `answers.py`.
    integer("at"),
    Index("idempotency_by_age", "at"),
    rowid=True,
)

checkpoints = _table(
    "checkpoints",
    ["world_id"],
    *_of_world(),
    integer("seq"),
    text("hash"),  # Of the journal entry `seq`.
    text("layout"),
    text("digest"),  # Of both blobs.
    blob("dense"),
    blob("sparse"),
    rowid=True,
)

loops = _table(
    "loops",
    ["world_id", "loop"],
    text("world_id"),
    text("loop"),
    integer("until"),  # By the clock of the database, in microseconds.
)

clock = _table("clock", ["id"], integer("id"), integer("at"), check("id = 1"))

alembic_version = Table(  # As Alembic itself makes it.
    "alembic_version",
    metadata,
    Column("version_num", Text, nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)
