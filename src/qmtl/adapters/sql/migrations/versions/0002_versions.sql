PRAGMA defer_foreign_keys = ON

CREATE TEMP TABLE was AS SELECT * FROM strategies

DROP TABLE main.strategies

CREATE TABLE strategies (
	world_id TEXT NOT NULL,
	strategy_id TEXT NOT NULL,
	"row" INTEGER NOT NULL,
	name TEXT NOT NULL,
	author TEXT NOT NULL,
	fingerprint TEXT,
	variants_tried INTEGER,
	bound_at INTEGER NOT NULL,
	phase TEXT NOT NULL,
	entered_at INTEGER,
	held INTEGER NOT NULL,
	selected INTEGER NOT NULL,
	step INTEGER NOT NULL,
	step_window_us INTEGER NOT NULL,
	extension_us INTEGER NOT NULL,
	blocked TEXT NOT NULL,
	family TEXT NOT NULL,
	version INTEGER NOT NULL,
	previous TEXT,
	parts TEXT NOT NULL,
	PRIMARY KEY (world_id, strategy_id),
	FOREIGN KEY(world_id) REFERENCES worlds (world_id),
	UNIQUE (world_id, "row"),
	UNIQUE (world_id, family, version),
	UNIQUE (world_id, family, fingerprint),
	CHECK (phase IN ('backtest_campaign', 'paper_campaign', 'live_campaign', 'retired')),
	CHECK (step >= -1 AND (step = -1 OR phase = 'live_campaign')),
	CHECK (version > 0 AND (version = 1) = (previous IS NULL)),
	CHECK ((version = 1) = (family = strategy_id)),
	CHECK (held IN (0, 1)),
	CHECK (selected IN (0, 1))
)
 WITHOUT ROWID,
 STRICT

INSERT INTO strategies (
  world_id, strategy_id, row, name, author, fingerprint, variants_tried, bound_at, phase,
  entered_at, held, selected, step, step_window_us, extension_us, blocked,
  family, version, previous, parts
)
SELECT
  world_id, strategy_id, row, name, author, fingerprint, variants_tried, bound_at, phase,
  entered_at, held, selected, step, step_window_us, extension_us, blocked,
  strategy_id, 1, NULL, '{}'
FROM temp.was

DROP TABLE temp.was
