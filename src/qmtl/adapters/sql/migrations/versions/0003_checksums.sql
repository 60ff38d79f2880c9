CREATE TEMP TABLE was AS SELECT * FROM series

DROP TABLE main.series

CREATE TABLE series (
	world_id TEXT NOT NULL,
	strategy_id TEXT NOT NULL,
	stage TEXT NOT NULL,
	chunk INTEGER NOT NULL,
	points INTEGER NOT NULL,
	first_t INTEGER NOT NULL,
	last_t INTEGER NOT NULL,
	t BLOB NOT NULL,
	r BLOB NOT NULL,
	accepted BLOB NOT NULL,
	checksum INTEGER NOT NULL,
	PRIMARY KEY (world_id, strategy_id, stage, chunk),
	FOREIGN KEY(world_id, strategy_id) REFERENCES strategies (world_id, strategy_id),
	CHECK (stage IN ('backtest', 'paper', 'shadow', 'live')),
	CHECK (points BETWEEN 1 AND 128),
	CHECK (length(t) = 8 * points AND length(r) = 8 * points AND length(accepted) = points)
)
 STRICT
