"""The tables agree with the journal, refuse what cannot be, and an audit finds what was edited."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError

from qmtl.adapters.sql import checkpoint
from qmtl.adapters.sql.errors import StoreDamaged
from qmtl.adapters.sql.store import SqlStore

from .by_hand import edit
from .histories import WORLD

CORRUPTIONS = [
    ("worlds", "UPDATE worlds SET allow_live = 1 - allow_live"),
    ("policies", "UPDATE policies SET policy = '{}' WHERE version = 1"),
    ("strategies", "UPDATE strategies SET held = 1 - held WHERE row = 0"),
    ("strategies", "UPDATE strategies SET blocked = '[\"held\"]x' WHERE row = 0"),
    ("strategies", 'UPDATE strategies SET parts = \'{"code":"x"}\' WHERE row = 0'),
    ("strategies", "UPDATE strategies SET version = 9 WHERE version = 2"),
    ("series_state", "UPDATE series_state SET window_us = window_us + 1 WHERE stage = 'paper'"),
    ("latest_runs", "UPDATE latest_runs SET revision = revision + 1"),
    ("candidates", "UPDATE candidates SET evidence = 'forged'"),
    ("activations", "UPDATE activations SET weight = weight / 2"),
    ("activations", "DELETE FROM activations"),
    ("confirmations", "DELETE FROM confirmations"),
    ("world_list", "UPDATE world_list SET allow_live = 1"),
    ("tokens", "UPDATE tokens SET roles = '[\"admin\"]'"),
    ("series", "UPDATE series SET r = zeroblob(length(r))"),
    ("series", "DELETE FROM series WHERE chunk = 1"),
    ("snapshots", "UPDATE snapshots SET as_of = as_of + 1"),
    ("snapshots", "DELETE FROM snapshots"),
    ("runs", "DELETE FROM runs"),
    ("run_revisions", "UPDATE run_revisions SET actor = 'eve'"),
    ("run_revisions", "UPDATE run_revisions SET run = replace(run, 'pass', 'fail')"),
]


@pytest.mark.parametrize(("table", "statement"), CORRUPTIONS)
def test_an_audit_finds_a_table_that_was_edited(
    busy: SqlStore, data: Path, table: str, statement: str
) -> None:
    assert busy.audit(WORLD) == []
    assert edit(data, statement) > 0
    found = busy.audit(WORLD)
    assert found
    assert {difference.split(":")[0] for difference in found} <= {table, "runs"}
    assert table in {difference.split(":")[0] for difference in found}


def test_an_audit_finds_rows_that_nothing_explains(busy: SqlStore, data: Path) -> None:
    edit(data, "INSERT INTO tokens VALUES ('w', 'planted', 'eve', '[]', NULL, NULL, 1)")
    assert busy.audit(WORLD) == ["tokens: ('planted',) should not be there"]


def test_an_audit_finds_a_checkpoint_that_was_forged(busy: SqlStore, data: Path) -> None:
    with busy._reading_at_once(WORLD) as connection:
        found = checkpoint.read(connection, WORLD)
    assert found is not None
    forged = replace(found, view=replace(found.view, allow_live=not found.view.allow_live))
    busy.write(lambda: checkpoint.write(busy._transaction.writing(), forged))
    assert [d.split(":")[0] for d in busy.audit(WORLD)] == ["checkpoints"]


IMPOSSIBLE = [
    "UPDATE worlds SET state = 'asleep'",
    "UPDATE worlds SET killed = 2",
    "UPDATE worlds SET seq = 0",
    "UPDATE worlds SET evidence_generation = seq + 1",
    "UPDATE worlds SET seq = 'many'",
    "UPDATE strategies SET phase = 'dryrun'",
    "UPDATE strategies SET step = 0 WHERE phase = 'paper_campaign'",
    "UPDATE strategies SET step = -2",
    "UPDATE strategies SET version = 0 WHERE row = 0",
    "UPDATE strategies SET version = 2 WHERE row = 0",
    "UPDATE strategies SET previous = NULL WHERE version = 2",
    "UPDATE strategies SET previous = strategy_id WHERE version = 1",
    "UPDATE strategies SET family = 'other' WHERE version = 1",
    "UPDATE strategies SET family = strategy_id WHERE version = 2",
    "INSERT INTO strategies SELECT world_id, 'twice', 99, name, author, 'f9', variants_tried, "
    "bound_at, phase, entered_at, held, selected, step, step_window_us, extension_us, blocked, "
    "family, version, previous, parts FROM strategies WHERE version = 2",
    "INSERT INTO strategies SELECT world_id, 'twice', 99, name, author, fingerprint, "
    "variants_tried, bound_at, phase, entered_at, held, selected, step, step_window_us, "
    "extension_us, blocked, family, 99, previous, parts FROM strategies WHERE version = 2",
    "UPDATE series_state SET stage = 'dryrun'",
    "UPDATE series_state SET verdict = 'passed'",
    "UPDATE series_state SET window_points = points + 1",
    "UPDATE series_state SET drawdown = 1.5",
    "UPDATE series_state SET peak = equity / 2",
    "UPDATE series_state SET last_t = first_t - 1 WHERE points > 0",
    "UPDATE latest_runs SET verdict = 'inherited'",
    "UPDATE candidates SET standing = 'expired'",
    "UPDATE candidates SET standing = 'applied', applied_seq = NULL",
    "UPDATE candidates SET standing_at = NULL WHERE standing = 'applied'",
    "UPDATE candidates SET approvals = '[]', standing = 'approved', standing_at = 1, "
    "standing_by = NULL, standing_reason = NULL, applied_seq = NULL",
    "UPDATE candidates SET standing_reason = NULL WHERE standing = 'void'",
    "UPDATE activations SET weight = applied_weight + 0.1",
    "UPDATE activations SET weight = -0.1",
    "UPDATE activations SET applied_weight = 1.1, weight = 1.1",
    "UPDATE activations SET freeze = 2",
    "UPDATE series SET t = x'00'",
    "UPDATE snapshots SET stage = 'dryrun'",
    "UPDATE run_revisions SET verdict = 'unknown'",
    "INSERT INTO clock VALUES (2, 0)",
    "DELETE FROM strategies",
    "DELETE FROM candidates",
]


@pytest.mark.parametrize("statement", IMPOSSIBLE)
def test_a_row_that_cannot_be_is_refused(busy: SqlStore, statement: str) -> None:
    with pytest.raises((IntegrityError, StoreDamaged)):
        busy.write(lambda: busy._transaction.writing().exec_driver_sql(statement))
    assert busy.audit(WORLD) == []
