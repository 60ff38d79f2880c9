"""Changed code over HTTP: a version of its own, whatever is sent, and however often and where."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.http.harness import Harness, W, harness_over, submission, with_live, with_world

PARTS = {"code": "sha256:c", "parameters": "lookback 20", "data": "d", "engine": "e"}
KEY = {"Idempotency-Key": "k1"}


def changed(fingerprint: str = "code-2", sid: str = "s1", **parts: Any) -> dict[str, Any]:
    return submission(sid, fingerprint=fingerprint, **parts)


def listed(harness: Harness) -> list[dict[str, Any]]:
    told = harness.ok("rea", "GET", f"/worlds/{W}/strategies")["strategies"]
    names = ("strategy_id", "family", "version", "previous", "parts")
    return [{name: each[name] for name in names} for each in told]


def test_a_version_is_told_and_listed(each_store: Harness) -> None:
    h = each_store
    with_world(h)
    first = h.ok("ann", "POST", "/strategies", submission("m", parts=PARTS))
    assert (first["strategy_id"], first["version"], first["previous"]) == ("m", 1, None)
    assert first["changed"] == []
    body = changed(sid="m", parts={**PARTS, "engine": "f", "code": "sha256:d"})
    told = h.ok("ann", "POST", "/strategies", body)
    assert (told["strategy_id"], told["version"], told["previous"]) == ("m.2", 2, "m")
    assert told["changed"] == ["code", "engine"]
    assert told["phase"] == "paper_campaign"
    assert told["decision"]["strategy_id"] == "m.2"
    assert told["evaluation_run_url"].startswith(f"/worlds/{W}/strategies/m.2/runs/")
    assert listed(h) == [
        {"strategy_id": "s1", "family": "s1", "version": 1, "previous": None, "parts": {}},
        {"strategy_id": "m", "family": "m", "version": 1, "previous": None, "parts": PARTS},
        {
            **{"strategy_id": "m.2", "family": "m", "version": 2, "previous": "m"},
            "parts": body["parts"],
        },
    ]
    before = h.state()
    again = h.ok("ann", "POST", "/strategies", {**body, "strategy_id": "m.2"})
    older = h.ok(
        "ann", "POST", "/strategies", submission("m.2", **{**first_of("m"), "parts": PARTS})
    )
    assert (again["strategy_id"], again["version"], again["changed"]) == ("m.2", 2, told["changed"])
    assert (older["strategy_id"], older["version"], older["previous"]) == ("m", 1, None)
    assert h.state() == before


def first_of(sid: str) -> dict[str, Any]:
    """What was submitted under an id first, to be sent under another."""
    whole = submission(sid)
    return {name: whole[name] for name in ("fingerprint", "returns", "variants_tried")}


def test_what_is_live_stays_live_and_the_answer_is_of_the_new_version(harness: Harness) -> None:
    with_world(harness)
    with_live(harness)
    told = harness.ok("ann", "POST", "/strategies", changed())
    assert told["strategy_id"] == told["decision"]["strategy_id"] == "s1.2"
    assert told["decision"]["effective_mode"] == "paper"
    assert told["decision"]["weight"] == 0.0
    still = harness.ok("ann", "GET", f"/worlds/{W}/decide?strategy_id=s1")
    assert still["effective_mode"] == "live"


def test_many_at_once_are_one(each_store: Harness) -> None:
    h = each_store
    with_world(h)

    def send(number: int) -> tuple[str, int]:
        headers = {"Idempotency-Key": f"k{number}"} if number % 2 else None
        told = h.call("ann", "POST", "/strategies", changed(), headers=headers)
        return told.json()["strategy_id"], told.status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(send, range(16))) == {("s1.2", 200)}
    assert [each["strategy_id"] for each in listed(h)] == ["s1", "s1.2"]


def test_a_key_answers_as_the_first_time_and_once(each_store: Harness) -> None:
    h = each_store
    with_world(h)
    first = h.call("ann", "POST", "/strategies", changed(), headers=KEY)
    before = h.state()
    again = h.call("ann", "POST", "/strategies", changed(), headers=KEY)
    other = h.call("ann", "POST", "/strategies", changed("code-3"), headers=KEY)
    assert (again.status_code, again.content) == (200, first.content)
    assert other.status_code == 409
    assert h.state() == before


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"colour": "red"}, "parts.colour: must match"),
        ({"Code": "c"}, "parts.Code"),
        ({"code": ""}, "parts.code"),
        ({"code": "x" * 201}, "parts.code"),
        ({"code": "a\nb"}, "parts.code"),
        ({"code": "é"}, "parts.code"),
        ({"code": 1}, "parts.code: must be text"),
        ({"code": None}, "parts.code: must be text"),
        (["code"], "parts: must be a group"),
        ("code", "parts: must be a group"),
    ],
)
def test_parts_are_those_of_a_fingerprint(made: Harness, parts: Any, says: str) -> None:
    before = made.state()
    answer = made.call("ann", "POST", "/strategies", changed(parts=parts))
    assert answer.status_code == 422
    assert says in json.dumps(answer.json()["detail"], ensure_ascii=False)
    assert made.state() == before


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One world for what changes nothing."""
    with harness_over("memory", tmp_path_factory.mktemp("versions")) as harness:
        with_world(harness)
        yield harness


@pytest.mark.parametrize("parts", [None, {}, {"data": "d"}, {"code": "a code with spaces"}, PARTS])
def test_parts_need_not_be_told(harness: Harness, parts: Any) -> None:
    with_world(harness)
    told = harness.ok("ann", "POST", "/strategies", changed(parts=parts))
    assert (told["strategy_id"], told["changed"]) == ("s1.2", [])
    assert listed(harness)[1]["parts"] == (parts or {})
