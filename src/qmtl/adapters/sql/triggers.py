"""What SQLite refuses to do to the journal, whoever asks it.  PostgreSQL's are in `postgres.py`."""

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
