"""What the control bus tells, as AsyncAPI: each event's schema, from the types that write it."""

from dataclasses import fields
from typing import Any, Final, get_args

from pydantic import TypeAdapter

import qmtl
from qmtl.adapters.codec import schema_of_facts
from qmtl.adapters.wire import shapes as j
from qmtl.core.facts import Fact, SnapshotStored

from .events import NAMES

SCHEMAS: Final = "#/components/schemas/"
SNAPSHOT: Final = "SnapshotEvent"


def document() -> dict[str, Any]:
    """AsyncAPI 3.0.  A schema a type of event; `<type>` names its message."""
    facts = schema_of_facts(SCHEMAS + "{model}")
    schemas: dict[str, Any] = dict(sorted(facts.pop("$defs").items()))
    told = TypeAdapter(j.SnapshotJson).json_schema(ref_template=SCHEMAS + "{model}")
    told["properties"] |= {"generation": {"type": "integer"}, "kind": {"const": "snapshot_stored"}}
    told["required"] = [*told["required"], "generation", "kind"]
    schemas |= told.pop("$defs", {})
    schemas[SNAPSHOT] = told
    messages: dict[str, Any] = {}
    for fact in sorted(get_args(Fact), key=_kind):
        kind = _kind(fact)
        name = NAMES.get(kind, kind)
        data = {"$ref": SCHEMAS + SNAPSHOT} if fact is SnapshotStored else _happened(fact)
        messages[name] = {
            "name": name,
            "contentType": "application/cloudevents+json",
            "summary": (fact.__doc__ or "").partition("\n")[0],
            "payload": _event(name, data),
        }
    refs = {name: {"$ref": f"#/components/messages/{name}"} for name in messages}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "qmtl: what happens in a world",
            "version": qmtl.__version__,
            "description": "The id of an event is its seq in the world's journal: dense, from 1. "
            "Told at least once, in order; who remembers the last id drops what comes again.",
        },
        "channels": {
            "world": {
                "address": "qmtl.events.{world}",
                "description": "NATS JetStream, stream QMTL. A dot in a world's name is %2E.",
                "parameters": {"world": {"description": "Its id."}},
                "messages": refs,
            },
            "stream": {
                "address": "/events/subscribe?world={world}",
                "description": "Server-sent events over HTTP: the same, resumed by Last-Event-ID.",
                "parameters": {"world": {"description": "Its id."}},
                "messages": refs,
            },
        },
        "operations": {
            "tell": {"action": "send", "channel": {"$ref": "#/channels/world"}},
            "stream": {"action": "send", "channel": {"$ref": "#/channels/stream"}},
        },
        "components": {"messages": messages, "schemas": schemas},
    }


def _kind(fact: Any) -> str:
    return next(str(field.default) for field in fields(fact) if field.name == "kind")


def _event(name: str, data: dict[str, Any]) -> dict[str, Any]:
    """CloudEvents 1.0."""
    words = {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "pattern": "^[1-9][0-9]*$"},
        "source": {"type": "string", "pattern": "^/worlds/"},
        "type": {"const": name},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "data": data,
    }
    return {
        "type": "object",
        "properties": words,
        "required": list(words),
        "additionalProperties": False,
    }


def _happened(fact: Any) -> dict[str, Any]:
    """As a journal tells it: the entry's header beside the fact."""
    header = TypeAdapter(j.HappenedJson).json_schema()["properties"]
    words = {name: rule for name, rule in header.items() if name not in ("fact", "kind")}
    words |= {"kind": {"const": _kind(fact)}, "fact": {"$ref": SCHEMAS + fact.__name__}}
    return {
        "type": "object",
        "properties": words,
        "required": list(words),
        "additionalProperties": False,
    }
