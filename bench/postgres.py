"""The same over PostgreSQL: what a snapshot costs there, and what a second server brings.

The database flushes before it answers, as a firm's does.  It, the servers and the clients share the
machine: on two cores a second server has little left to bring, and the figure says so.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from time import perf_counter

import orjson
import psycopg

from bench import wire
from bench.load import BEGAN, REPEATS, Rate, body, make, names, posts, rates, serving
from tests.postgres import Server
from tests.postgres import serving as database
from tests.servers import Served

WORLDS = ("one", "other")


class Bare:
    """One table, durable: a body parsed and written with one commit."""

    def __init__(self, url: str) -> None:
        self._db = psycopg.connect(url, autocommit=True)
        self._db.execute("create table bodies (id bigserial primary key, body bytea)")

    def rate(self, bodies: list[bytes]) -> float:
        began = perf_counter()
        for each in bodies:
            orjson.loads(each)
            self._db.execute("insert into bodies (body) values (%s)", (each,), binary=True)
        return len(bodies) / (perf_counter() - began)


def snapshots(folder: Path, kept: Server, clients: int = 8, each: int = 80) -> Rate:
    """20 strategies of 252 bars each, who had nothing yet."""
    fed = count()
    first = BEGAN - timedelta(days=262)

    def bodies(start: int) -> list[bytes]:
        return [body(names(20 * n, 20), first, 252, n) for n in range(start, start + each)]

    with serving(folder / "one", "--database", kept.database()) as (server, client):
        make(server, client, "bench", 20 * each * (REPEATS + 1))
        bare, written = Bare(kept.database()), bodies(0)

        def ours() -> float:
            asked = posts(server, bodies(next(fed) * each))
            return wire.closed(server.url, asked, clients, wanted=201).per_sec

        return rates(
            f"snapshot 20 x 252 on PostgreSQL, {clients} clients",
            lambda: bare.rate(written),
            ours,
            ">= .5",
        )


def servers(folder: Path, kept: Server, clients: int = 4, each: int = 40) -> Rate:
    """Snapshots of two worlds: both sent to one server, beside one to each of two."""
    fed, first = count(), BEGAN - timedelta(days=262)
    with ExitStack() as opened:
        url, data = kept.database(), folder / "two"
        one, client = opened.enter_context(serving(data, "--database", url))
        other, _ = opened.enter_context(serving(data, "--database", url))
        for named in WORLDS:
            make(one, client, named, 20 * each * 2 * (REPEATS + 1))

        def sent(pair: tuple[Served, Served]) -> float:
            start = next(fed) * each
            threads = []
            for number, (server, named) in enumerate(zip(pair, WORLDS, strict=True)):
                bodies = [
                    body(names(20 * n, 20), first, 252, 2 * n + number)
                    for n in range(start, start + each)
                ]
                asked = posts(server, bodies, named)
                threads.append(Thread(target=wire.closed, args=(server.url, asked, clients, 201)))
            began = perf_counter()
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return 2 * each / (perf_counter() - began)

        return rates(
            "two worlds: two servers, beside one",
            lambda: sent((one, one)),
            lambda: sent((one, other)),
            ">= 1.6",
        )


def rows() -> Iterator[str]:
    with database() as kept:
        kept.stop("fast")
        kept.start(fsync="on")
        for of in (snapshots, servers):
            with TemporaryDirectory() as folder:
                yield of(Path(folder), kept).row()


if __name__ == "__main__":
    for row in rows():
        print(row, flush=True)
