"""A person at the dashboard, over HTTP alone: signs in, reads pages, fills in forms."""

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

import httpx
from starlette.testclient import TestClient

from tests.http.harness import Harness

HERE = "http://127.0.0.1:8321"


@dataclass
class Form:
    """A form of a page: where it goes, its method, and what it holds."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str | None, str | None]] = field(default_factory=list)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.tags.append((tag, told))
        if tag == "form":
            self.forms.append(Form(told.get("action") or "", told.get("method") or "get"))
        elif tag in ("input", "textarea", "select") and self.forms and told.get("name"):
            self.forms[-1].fields[str(told["name"])] = told.get("value") or ""
        elif tag == "button" and self.forms:
            self.forms[-1].buttons.append((told.get("name"), told.get("value")))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@dataclass
class Seen:
    """A page as it came."""

    answer: httpx.Response

    def __post_init__(self) -> None:
        reader = _Reader()
        reader.feed(self.answer.text)
        self.forms, self.tags = reader.forms, reader.tags
        self.text = " ".join(" ".join(reader.text).split())

    @property
    def status(self) -> int:
        return self.answer.status_code

    def form(self, end: str) -> Form:
        """The one form that goes to a path with this end."""
        (found,) = [f for f in self.forms if f.action.endswith(end)]
        return found

    def offers(self, end: str) -> bool:
        return any(f.action.endswith(end) for f in self.forms)


@dataclass
class Person:
    """Somebody with a browser of their own."""

    client: TestClient

    def get(self, path: str, **more: Any) -> Seen:
        return Seen(self.client.get(path, **more))

    def post(self, path: str, fields: dict[str, str], **more: Any) -> Seen:
        return Seen(self.client.post(path, data=fields, **more))

    def send(self, page: Seen, end: str, **fields: str) -> Seen:
        """Fill in a form of a page, and send it."""
        form = page.form(end)
        return self.post(form.action, {**form.fields, **fields})

    @property
    def cookies(self) -> dict[str, str]:
        return dict(self.client.cookies)


def stranger(harness: Harness, base: str = HERE) -> Person:
    """Nobody yet."""
    return Person(TestClient(harness.client.app, base_url=base, raise_server_exceptions=True))


def person(harness: Harness, who: str) -> Person:
    """Signed in."""
    one = stranger(harness)
    told = one.send(one.get("/ui/sign-in"), "/ui/sign-in", token=harness.tokens[who])
    assert told.status == 200, told.text
    return one
