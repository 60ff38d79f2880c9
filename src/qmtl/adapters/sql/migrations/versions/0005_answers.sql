CREATE TEMP TABLE was AS SELECT * FROM idempotency

DROP TABLE main.idempotency

CREATE TABLE idempotency (
	actor TEXT NOT NULL,
	"key" TEXT NOT NULL,
	request TEXT NOT NULL,
	status INTEGER NOT NULL,
	body BLOB NOT NULL,
	digest TEXT NOT NULL,
	at INTEGER NOT NULL,
	PRIMARY KEY (actor, "key")
)
 STRICT

CREATE INDEX idempotency_by_age ON idempotency (at)
