"""Every event that there can be is as the AsyncAPI document says, and the document says no more."""

import json
from random import Random
from typing import Any

import jsonschema_rs
import pytest

from qmtl.core.facts import Entry
from qmtl.entry import asyncapi
from qmtl.entry.events import cloud_event
from tests.adapters.histories import WORLD, History

HISTORIES, COMMITS = 30, 30


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json.dumps(asyncapi.document()))
    return found


def validator(document: dict[str, Any], name: str) -> jsonschema_rs.Draft202012Validator:
    payload = document["components"]["messages"][name]["payload"]
    return jsonschema_rs.Draft202012Validator({**payload, "components": document["components"]})


def events() -> list[dict[str, Any]]:
    """Of histories that tell of everything that can happen."""
    found = []
    for seed in range(HISTORIES):
        history = History(Random(seed))
        before = 0
        for commit in history.commits(COMMITS):
            for fact in commit.facts:
                before += 1
                entry = Entry(
                    seq=before, generation=before, at=commit.at, actor=commit.actor, fact=fact
                )
                found.append(json.loads(json.dumps(cloud_event(WORLD, entry))))
    return found


def test_every_event_is_as_it_is_promised(document: dict[str, Any]) -> None:
    seen: set[str] = set()
    for event in events():
        name = event["type"]
        seen.add(name)
        problems = [str(each) for each in validator(document, name).iter_errors(event)]
        assert problems == [], (event, problems)
    assert seen == set(document["components"]["messages"])


def test_what_is_not_promised_is_found(document: dict[str, Any]) -> None:
    """A check that nothing can fail is none."""
    for event in events():
        name = event["type"]
        check = validator(document, name)
        for word in event:
            assert not check.is_valid({k: v for k, v in event.items() if k != word}), word
        assert not check.is_valid({**event, "more": 1})
        assert not check.is_valid({**event, "id": "0"})
        data = {k: v for k, v in event["data"].items() if k != "generation"}
        assert not check.is_valid({**event, "data": data})
        if "fact" in event["data"]:
            fact = {**event["data"]["fact"], "more": 1}
            assert not check.is_valid({**event, "data": {**event["data"], "fact": fact}}), name


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [each for value in node.values() for each in references(value)]
        if isinstance(node, list):
            return [each for value in node for each in references(value)]
        return []

    for reference in references(document):
        found: Any = document
        for word in reference.removeprefix("#/").split("/"):
            found = found[word]
        assert found
