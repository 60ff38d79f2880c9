"""An Idempotency-Key: the same request answers as the first time, and happens once."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from qmtl.entry.auth import STOPS
from tests.http.harness import DAY, Harness, W, stamp, submission, with_candidate, with_world

KEY = {"Idempotency-Key": "k1"}
LIVE = f"/worlds/{W}/promotions/live"


def test_the_same_request_answers_as_the_first_time(each_store: Harness) -> None:
    h = each_store
    with_world(h)
    first = h.call("olga", "POST", f"/worlds/{W}/strategies", {"strategy_id": "x"}, headers=KEY)
    before = h.state()
    again = h.call("olga", "POST", f"/worlds/{W}/strategies", {"strategy_id": "x"}, headers=KEY)
    assert first.status_code == again.status_code == 201, "not 200, as without a key"
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert h.state() == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"/worlds/{W}/strategies", {"strategy_id": "y"}),
        (f"/worlds/{W}/bindings", {"strategy_id": "x"}),
        (f"/worlds/{W}/strategies?", {"strategy_id": "x", "name": ""}),
    ],
)
def test_another_request_is_refused(harness: Harness, path: str, body: dict[str, str]) -> None:
    with_world(harness)
    harness.ok("olga", "POST", f"/worlds/{W}/strategies", {"strategy_id": "x"}, headers=KEY)
    before = harness.state()
    other = harness.call("olga", "POST", path, body, headers=KEY)
    assert other.status_code == 409
    assert "Idempotency-Key" in other.json()["detail"]
    assert harness.state() == before


def test_a_key_is_its_actors_own(harness: Harness) -> None:
    with_world(harness)
    harness.ok("olga", "POST", f"/worlds/{W}/strategies", {"strategy_id": "x"}, headers=KEY)
    mine = harness.call("ann", "POST", f"/worlds/{W}/strategies", {"strategy_id": "y"}, headers=KEY)
    assert mine.status_code == 201


def test_a_refusal_is_remembered_too(each_store: Harness) -> None:
    h = each_store
    with_world(h)
    run_id = with_candidate(h)
    body = {"strategy_id": "s1", "run_id": run_id}
    blocked = h.call("olga", "POST", f"{LIVE}/apply", body, headers=KEY)
    assert blocked.status_code == 409
    for who in ("al", "bo"):
        h.ok(who, "POST", f"{LIVE}/approve", {**body, "reason": "x"})
    again = h.call("olga", "POST", f"{LIVE}/apply", body, headers=KEY)
    assert (again.status_code, again.content) == (409, blocked.content)
    assert again.headers["content-type"] == "application/problem+json"
    assert h.call("olga", "POST", f"{LIVE}/apply", body).status_code == 200


def test_who_may_not_is_not_remembered(harness: Harness) -> None:
    with_world(harness)
    path = f"/worlds/{W}/kill"
    assert harness.call("rea", "POST", path, {}, headers=KEY).status_code == 403
    assert harness.store.remembered("rea", "k1") is None  # type: ignore[arg-type]  # An ActorId.
    unknown = harness.call("al", "POST", f"{LIVE}/reject", {}, headers=KEY)
    assert unknown.status_code == 422


def test_at_once_it_happens_once(each_store: Harness) -> None:
    h = each_store
    with_world(h)
    before = h.state()[W][0]

    def bind(number: int) -> tuple[int, bytes]:
        key = {"Idempotency-Key": "all-the-same"}
        body = {"strategy_id": "x"}
        answer = h.call("olga", "POST", f"/worlds/{W}/strategies", body, headers=key)
        return answer.status_code, answer.content

    with ThreadPoolExecutor(8) as pool:
        answers = Counter(pool.map(bind, range(24)))
    assert len(answers) == 1
    assert next(iter(answers))[0] == 201
    assert h.state()[W][0] == before + 1


def test_a_token_is_not_kept_for_a_repeat(harness: Harness) -> None:
    body = {"actor": "new", "roles": ["reader"]}
    made = harness.call("adam", "POST", "/tokens", body, headers=KEY)
    assert made.status_code == 201
    again = harness.call("adam", "POST", "/tokens", body, headers=KEY)
    assert again.status_code == 409
    assert "kept nowhere" in again.json()["detail"]
    kept = harness.store.remembered("adam", "k1")  # type: ignore[arg-type]  # An ActorId.
    assert kept is not None
    assert made.json()["token"].encode() not in kept[2]
    assert len(harness.ok("adam", "GET", "/tokens")["tokens"]) == 10


def test_what_failed_halfway_is_undone(each_store: Harness) -> None:
    """A submission binds, stores and evaluates; refused at the last step, none of it is there."""
    h = each_store
    h.ok("admin", "POST", "/worlds", {"id": W})  # Without a policy nothing can be judged.
    before = h.state()
    for headers in (None, KEY):
        answer = h.call("ann", "POST", "/strategies", submission("s1"), headers=headers)
        assert answer.status_code == 409
        assert h.state() == before


def test_a_clock_that_many_move_stands_nobody_still(each_store: Harness) -> None:
    """With a key the clock is moved by the writer, without by a thread that waits for it."""
    h = each_store
    times = [stamp(h.now + number * DAY) for number in range(1, 25)]

    def move(number: int) -> int:
        headers = {"Idempotency-Key": f"k{number}"} if number % 2 else None
        return h.call(
            "admin", "POST", "/clock", {"now": times[number]}, headers=headers
        ).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(move, range(24))) <= {200, 409}
    assert stamp(h.now) == times[-1]


def test_stopping_is_done_and_not_remembered(each_store: Harness) -> None:
    h = each_store
    with_world(h)
    kill = (f"/worlds/{W}/kill", {"reason": "the first"})
    assert h.ok("olga", "POST", *kill, headers=KEY)["killed"]
    assert not h.ok("olga", "POST", f"/worlds/{W}/resume", {"reason": "over"})["killed"]
    assert h.ok("olga", "POST", *kill, headers=KEY)["killed"]
    assert h.ok("rea", "GET", f"/worlds/{W}")["killed"], "and not only told so"


def test_whatever_stops_is_done_again_when_it_was_undone_since(each_store: Harness) -> None:
    """With the same key and the same body.  An answer from memory would leave it undone."""
    h = each_store
    with_world(h)
    run_id = with_candidate(h)
    body = {"strategy_id": "s1", "run_id": run_id}
    why = {**body, "reason": "x"}

    def stopped() -> tuple[str, int]:
        (found,) = h.ok("rea", "GET", f"{LIVE}/candidates")["candidates"]
        return found["standing"], len(found["approvals"])

    h.ok("al", "POST", f"{LIVE}/approve", why)
    for _ in range(2):
        h.ok("al", "DELETE", f"{LIVE}/approve", params=body, headers=KEY)
        assert stopped() == ("proposed", 0)
        h.ok("al", "POST", f"{LIVE}/approve", why)
    for _ in range(2):
        h.ok("bo", "POST", f"{LIVE}/reject", why, headers=KEY)
        assert stopped()[0] == "rejected"
        h.ok("olga", "POST", f"{LIVE}/release", why)
    for who in ("al", "bo"):
        h.ok(who, "POST", f"{LIVE}/approve", why)
    h.ok("olga", "POST", f"{LIVE}/apply", body)
    for _ in range(2):
        freeze = {"strategy_id": "s1", "freeze": True}
        lease = h.ok("olga", "PUT", f"/worlds/{W}/activation", freeze, headers=KEY)
        assert lease["freeze"]
        h.ok("olga", "PUT", f"/worlds/{W}/activation", {"strategy_id": "s1", "freeze": False})
    for _ in range(2):
        down = {"strategy_id": "s1", "to": "paper", "reason": "x"}
        assert h.ok("olga", "POST", f"/worlds/{W}/demote", down, headers=KEY)["held"]
        assert not h.ok("olga", "POST", f"{LIVE}/release", why)["held"]
    for _ in range(2):
        off = h.ok("admin", "PATCH", f"/worlds/{W}", {"allow_live": False}, headers=KEY)
        assert not off["allow_live"]
        assert h.ok("admin", "PATCH", f"/worlds/{W}", {"allow_live": True})["allow_live"]


def test_a_stop_is_never_refused_for_its_key(harness: Harness) -> None:
    with_world(harness)
    path = f"/worlds/{W}/kill"
    for key in ("k1", "with a space", "x" * 300):
        told = harness.call("olga", "POST", path, {"reason": key}, headers={"Idempotency-Key": key})
        assert told.status_code == 200
    harness.ok("olga", "POST", f"/worlds/{W}/strategies", {"strategy_id": "x"}, headers=KEY)
    assert harness.call("olga", "POST", path, {"reason": "b"}, headers=KEY).status_code == 200


# They write nothing that could come twice.
LOOKS = {f"POST /worlds/{{world_id}}/campaign/{name}" for name in ("tick", "loops")}
# Too long for one job of the writer, and what is gone does not go again.
LONG = {"POST /risk-hub/worlds/{world_id}/retention"}


def test_every_write_says_what_a_key_does_to_it(harness: Harness) -> None:
    paths = harness.client.app.openapi()["paths"]  # type: ignore[attr-defined]  # A FastAPI.
    for path, methods in paths.items():
        for method, operation in methods.items():
            takes = operation.get("parameters", ())
            told = [p for p in takes if p.get("name") == "Idempotency-Key"]
            assert len(told) == (method != "get"), f"{method} {path}"
            again = f"{method.upper()} {path}" in STOPS | LOOKS | LONG
            assert all(("done again" in p["description"]) == again for p in told)
