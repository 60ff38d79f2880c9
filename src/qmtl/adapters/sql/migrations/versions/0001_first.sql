CREATE TABLE bodies (
	digest TEXT NOT NULL,
	body BLOB NOT NULL,
	PRIMARY KEY (digest)
)
 STRICT

CREATE TABLE clock (
	id INTEGER NOT NULL,
	at INTEGER NOT NULL,
	PRIMARY KEY (id),
	CHECK (id = 1)
)
 WITHOUT ROWID,
 STRICT

CREATE TABLE idempotency (
	actor TEXT NOT NULL,
	"key" TEXT NOT NULL,
	request TEXT NOT NULL,
	status INTEGER NOT NULL,
	body BLOB NOT NULL,
	at INTEGER NOT NULL,
	PRIMARY KEY (actor, "key")
)
 STRICT

CREATE INDEX idempotency_by_age ON idempotency (at)

CREATE TABLE worlds (
	world_id TEXT NOT NULL,
	seq INTEGER NOT NULL,
	evidence_generation INTEGER NOT NULL,
	governance_generation INTEGER NOT NULL,
	head_hash TEXT NOT NULL,
	last_at INTEGER NOT NULL,
	allow_live INTEGER NOT NULL,
	state TEXT NOT NULL,
	killed INTEGER NOT NULL,
	default_version INTEGER,
	promoted_at INTEGER,
	PRIMARY KEY (world_id),
	CHECK (evidence_generation >= 0 AND governance_generation >= 0),
	CHECK (seq > 0 AND evidence_generation + governance_generation <= seq),
	CHECK (length(head_hash) = 64),
	CHECK (state IN ('active', 'suspended', 'archived')),
	CHECK (allow_live IN (0, 1)),
	CHECK (killed IN (0, 1))
)
 WITHOUT ROWID,
 STRICT

CREATE TABLE checkpoints (
	world_id TEXT NOT NULL,
	seq INTEGER NOT NULL,
	hash TEXT NOT NULL,
	layout TEXT NOT NULL,
	digest TEXT NOT NULL,
	dense BLOB NOT NULL,
	sparse BLOB NOT NULL,
	PRIMARY KEY (world_id),
	FOREIGN KEY(world_id) REFERENCES worlds (world_id)
)
 STRICT

CREATE TABLE confirmations (
	world_id TEXT NOT NULL,
	confirmation_id TEXT NOT NULL,
	what TEXT NOT NULL,
	policy_version INTEGER,
	"by" TEXT NOT NULL,
	at INTEGER NOT NULL,
	PRIMARY KEY (world_id, confirmation_id),
	FOREIGN KEY(world_id) REFERENCES worlds (world_id)
)
 WITHOUT ROWID,
 STRICT

CREATE TABLE journal (
	world_id TEXT NOT NULL,
	seq INTEGER NOT NULL,
	stream TEXT NOT NULL,
	generation INTEGER NOT NULL,
	at INTEGER NOT NULL,
	actor TEXT NOT NULL,
	kind TEXT NOT NULL,
	body_digest TEXT NOT NULL,
	hash TEXT NOT NULL,
	PRIMARY KEY (world_id, seq),
	FOREIGN KEY(world_id) REFERENCES worlds (world_id),
	CHECK (stream IN ('evidence', 'governance')),
	CHECK (seq > 0 AND generation > 0),
	CHECK (length(body_digest) = 64 AND length(hash) = 64)
)
 WITHOUT ROWID,
 STRICT

CREATE TABLE policies (
	world_id TEXT NOT NULL,
	version INTEGER NOT NULL,
	checksum TEXT NOT NULL,
	policy TEXT NOT NULL,
	at INTEGER NOT NULL,
	PRIMARY KEY (world_id, version),
	FOREIGN KEY(world_id) REFERENCES worlds (world_id),
	CHECK (version > 0)
)
 WITHOUT ROWID,
 STRICT

CREATE TABLE snapshots (
	world_id TEXT NOT NULL,
	seq INTEGER NOT NULL,
	version TEXT NOT NULL,
	stage TEXT NOT NULL,
	as_of INTEGER NOT NULL,
	ttl_sec INTEGER NOT NULL,
	content TEXT NOT NULL,
	actor TEXT NOT NULL,
	created_at INTEGER NOT NULL,
	PRIMARY KEY (world_id, seq),
	FOREIGN KEY(world_id) REFERENCES worlds (world_id),
	UNIQUE (world_id, version),
	CHECK (stage IN ('backtest', 'paper', 'shadow', 'live')),
	CHECK (ttl_sec > 0)
)
 WITHOUT ROWID,
 STRICT

CREATE INDEX snapshots_latest ON snapshots (world_id, as_of, seq)

CREATE INDEX snapshots_latest_of_actor ON snapshots (world_id, actor, as_of, seq)

CREATE INDEX snapshots_latest_of_stage ON snapshots (world_id, stage, as_of, seq)

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
	PRIMARY KEY (world_id, strategy_id),
	FOREIGN KEY(world_id) REFERENCES worlds (world_id),
	UNIQUE (world_id, "row"),
	CHECK (phase IN ('backtest_campaign', 'paper_campaign', 'live_campaign', 'retired')),
	CHECK (step >= -1 AND (step = -1 OR phase = 'live_campaign')),
	CHECK (held IN (0, 1)),
	CHECK (selected IN (0, 1))
)
 WITHOUT ROWID,
 STRICT

CREATE TABLE tokens (
	world_id TEXT NOT NULL,
	token_sha256 TEXT NOT NULL,
	actor TEXT NOT NULL,
	roles TEXT NOT NULL,
	valid_in TEXT,
	expires_at INTEGER,
	created_at INTEGER NOT NULL,
	PRIMARY KEY (world_id, token_sha256),
	FOREIGN KEY(world_id) REFERENCES worlds (world_id)
)
 WITHOUT ROWID,
 STRICT

CREATE TABLE world_list (
	world_id TEXT NOT NULL,
	listed TEXT NOT NULL,
	name TEXT NOT NULL,
	description TEXT NOT NULL,
	labels TEXT NOT NULL,
	allow_live INTEGER NOT NULL,
	created_at INTEGER NOT NULL,
	created_by TEXT NOT NULL,
	PRIMARY KEY (world_id, listed),
	FOREIGN KEY(world_id) REFERENCES worlds (world_id),
	CHECK (allow_live IN (0, 1))
)
 WITHOUT ROWID,
 STRICT

CREATE TABLE candidates (
	candidate_id TEXT NOT NULL,
	world_id TEXT NOT NULL,
	strategy_id TEXT NOT NULL,
	fingerprint TEXT,
	policy_version INTEGER NOT NULL,
	entered_at INTEGER NOT NULL,
	step INTEGER NOT NULL,
	run_id TEXT NOT NULL,
	evidence TEXT NOT NULL,
	proposed_at INTEGER NOT NULL,
	proposer TEXT NOT NULL,
	standing TEXT NOT NULL,
	standing_at INTEGER,
	standing_by TEXT,
	standing_reason TEXT,
	applied_seq INTEGER,
	approvals TEXT NOT NULL,
	PRIMARY KEY (world_id, candidate_id),
	FOREIGN KEY(world_id, strategy_id) REFERENCES strategies (world_id, strategy_id),
	FOREIGN KEY(world_id, policy_version) REFERENCES policies (world_id, version),
	CHECK (step >= 0),
	CHECK (standing IN ('proposed', 'approved', 'rejected', 'applied', 'void')),
	CHECK ((standing = 'proposed') = (standing_at IS NULL)),
	CHECK ((standing = 'rejected') = (standing_by IS NOT NULL)),
	CHECK ((standing IN ('rejected', 'void')) = (standing_reason IS NOT NULL)),
	CHECK ((standing = 'applied') = (applied_seq IS NOT NULL)),
	CHECK (standing <> 'approved' OR json_array_length(approvals) > 0)
)
 WITHOUT ROWID,
 STRICT

CREATE INDEX candidates_of_strategy ON candidates (world_id, strategy_id)

CREATE TABLE latest_runs (
	world_id TEXT NOT NULL,
	strategy_id TEXT NOT NULL,
	stage TEXT NOT NULL,
	run_id TEXT NOT NULL,
	revision INTEGER NOT NULL,
	verdict TEXT NOT NULL,
	problems TEXT NOT NULL,
	at INTEGER NOT NULL,
	PRIMARY KEY (world_id, strategy_id, stage),
	FOREIGN KEY(world_id, strategy_id) REFERENCES strategies (world_id, strategy_id),
	CHECK (stage IN ('backtest', 'paper', 'shadow', 'live')),
	CHECK (verdict IN ('pass', 'fail', 'inconclusive'))
)
 WITHOUT ROWID,
 STRICT

CREATE TABLE run_revisions (
	world_id TEXT NOT NULL,
	strategy_id TEXT NOT NULL,
	run_id TEXT NOT NULL,
	revision INTEGER NOT NULL,
	seq INTEGER NOT NULL,
	at INTEGER NOT NULL,
	actor TEXT NOT NULL,
	verdict TEXT NOT NULL,
	run TEXT NOT NULL,
	PRIMARY KEY (world_id, strategy_id, run_id, revision),
	FOREIGN KEY(world_id, strategy_id) REFERENCES strategies (world_id, strategy_id),
	CHECK (verdict IN ('pass', 'fail', 'inconclusive'))
)
 STRICT

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

CREATE TABLE series_state (
	world_id TEXT NOT NULL,
	strategy_id TEXT NOT NULL,
	stage TEXT NOT NULL,
	points INTEGER NOT NULL,
	digest TEXT,
	first_t INTEGER,
	last_t INTEGER,
	window_from INTEGER,
	window_first_t INTEGER,
	window_last_t INTEGER,
	window_us INTEGER NOT NULL,
	window_points INTEGER NOT NULL,
	equity REAL NOT NULL,
	peak REAL NOT NULL,
	drawdown REAL NOT NULL,
	covered_seq INTEGER NOT NULL,
	covered_as_of INTEGER,
	covered_ttl_us INTEGER NOT NULL,
	stress_loss REAL,
	verdict TEXT,
	judged_digest TEXT,
	judged_policy INTEGER NOT NULL,
	judged_t INTEGER,
	PRIMARY KEY (world_id, strategy_id, stage),
	FOREIGN KEY(world_id, strategy_id) REFERENCES strategies (world_id, strategy_id),
	CHECK (stage IN ('backtest', 'paper', 'shadow', 'live')),
	CHECK (verdict IN ('pass', 'fail', 'inconclusive')),
	CHECK (window_points BETWEEN 0 AND points AND window_us >= 0),
	CHECK ((points = 0) = (first_t IS NULL) AND (points = 0) = (last_t IS NULL)),
	CHECK (first_t <= last_t AND window_first_t <= window_last_t),
	CHECK (equity >= 0 AND peak >= equity AND drawdown BETWEEN 0 AND 1)
)
 WITHOUT ROWID,
 STRICT

CREATE TABLE activations (
	world_id TEXT NOT NULL,
	strategy_id TEXT NOT NULL,
	candidate_id TEXT NOT NULL,
	run_id TEXT NOT NULL,
	step INTEGER NOT NULL,
	applied_weight REAL NOT NULL,
	weight REAL NOT NULL,
	freeze INTEGER NOT NULL,
	drain INTEGER NOT NULL,
	sequence INTEGER NOT NULL,
	at INTEGER NOT NULL,
	acknowledged INTEGER NOT NULL,
	PRIMARY KEY (world_id, strategy_id),
	FOREIGN KEY(world_id, strategy_id) REFERENCES strategies (world_id, strategy_id),
	FOREIGN KEY(world_id, candidate_id) REFERENCES candidates (world_id, candidate_id),
	CHECK (step >= 0),
	CHECK (0 <= weight AND weight <= applied_weight AND applied_weight <= 1),
	CHECK (freeze IN (0, 1)),
	CHECK (drain IN (0, 1))
)
 WITHOUT ROWID,
 STRICT

CREATE TABLE runs (
	world_id TEXT NOT NULL,
	strategy_id TEXT NOT NULL,
	run_id TEXT NOT NULL,
	stage TEXT NOT NULL,
	revision INTEGER NOT NULL,
	seq INTEGER NOT NULL,
	PRIMARY KEY (world_id, strategy_id, run_id),
	FOREIGN KEY(world_id, strategy_id) REFERENCES strategies (world_id, strategy_id),
	FOREIGN KEY(world_id, strategy_id, run_id, revision) REFERENCES run_revisions (world_id, strategy_id, run_id, revision),
	CHECK (stage IN ('backtest', 'paper', 'shadow', 'live'))
)
 WITHOUT ROWID,
 STRICT

CREATE INDEX runs_by_seq ON runs (world_id, strategy_id, seq)

CREATE TRIGGER journal_is_not_updated BEFORE UPDATE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END

CREATE TRIGGER journal_is_not_deleted BEFORE DELETE ON journal BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END

CREATE TRIGGER bodies_are_not_updated BEFORE UPDATE ON bodies BEGIN SELECT RAISE(ABORT, 'a body is its digest'); END
