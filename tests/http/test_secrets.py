"""No secret is anywhere but in the answer that made it: a server is driven through all its routes
with secrets that can be told, and then everything that it said or wrote is searched for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from qmtl.core.names import Role
from qmtl.entry.auth import PUBLIC, ROLES
from qmtl.entry.identity import digest
from tests.http.harness import POLICY, YAML, W, submission
from tests.jwts import jwks, public, seconds, signed
from tests.servers import Served, start

KEY = "a-key-that-can-be-told"
AUTH = """
[oidc]
name = "corp"
issuer = "https://login.example.com"
audience = "qmtl"
jwks = "keys.json"
algorithms = ["ES256"]

[[oidc.grants]]
group = "quant"
roles = ["reader", "author"]
"""


@dataclass
class Drive:
    """A server's client that keeps all it is told, and knows what may not be in it."""

    client: httpx.Client
    secrets: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    count: Iterator[int] = field(default_factory=count)

    def ask(self, method: str, path: str, token: str | None = None, **more: Any) -> httpx.Response:
        headers = {"Idempotency-Key": f"{KEY}-{next(self.count)}", **more.pop("headers", {})}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        answer = self.client.request(method, path, headers=headers, **more)
        self.told.append(f"{answer.headers} {answer.text}")
        return answer

    def made(self, name: str, method: str, path: str, **more: Any) -> str:
        """A token, from the one answer that says it."""
        answer = self.ask(method, path, **more)
        assert answer.status_code == 201, answer.text
        self.secrets[name] = str(answer.json()["token"])
        assert self.secrets[name] in self.told.pop()
        return self.secrets[name]


@contextmanager
def driven(folder: Path) -> Iterator[tuple[Served, Drive]]:
    (folder / "keys.json").write_bytes(jwks(public("ES256", "k1")))
    (folder / "auth.toml").write_text(AUTH)
    started = start(folder / "data", "--auth", str(folder / "auth.toml"))
    try:
        with httpx.Client(base_url=started.url, headers=started.headers, timeout=10) as client:
            yield started, Drive(client, {"the admin's": started.token})
    finally:
        started.process.terminate()


def jwt_of(sub: str, **changes: Any) -> str:
    now = datetime.now(UTC)
    times = {"iat": seconds(now), "exp": seconds(now + timedelta(minutes=5))}
    return signed(**{"sub": sub, **times, **changes})


STREAMS = {"GET /events/subscribe", "GET /ui/worlds/{world_id}/events"}  # They have no end.


def everything(drive: Drive) -> None:
    """Every credential there is, good and bad, at every route."""
    body = {"actor": "new", "roles": list(Role)}
    first = drive.made("made", "POST", "/tokens", json=body)
    path = f"/tokens/{digest(first)}/rotate"
    second = drive.made("rotated", "POST", path, token=first, json={"overlap": "1h"})
    gone = drive.made("revoked", "POST", "/tokens", json=body)
    drive.ask("DELETE", f"/tokens/{digest(gone)}")
    known = {
        "a JWT": jwt_of("pia"),
        "a JWT that has ended": jwt_of("pia", exp=seconds(datetime.now(UTC)) - 99),
        "a JWT of another key": jwt_of("pia", pad="x") + "x",
        "a token that is unknown": "qmtl_" + "Z" * 43,
        "one that is too long": "qmtl_" + "Y" * 300,
    }
    drive.secrets |= known
    drive.ask("POST", "/worlds", json={"id": W})
    drive.ask("POST", f"/worlds/{W}/policies", content=POLICY, headers=YAML)
    drive.ask("POST", "/strategies", token=known["a JWT"], json=submission("s1"))
    for route in sorted({*ROLES, *PUBLIC} - STREAMS):
        method, template = route.split(" ")
        path = template.format(
            world_id=W, strategy_id="s1", run_id="r", version=1, token_id=digest(gone),
            confirmation_id="0", candidate_id="c", seq=1, name="qmtl.css",
        )  # fmt: skip
        content = None if method == "GET" else b"{"
        for token in (second, *known.values()):
            drive.ask(method, path, token=token, content=content)
    for token in (first, known["a JWT"]):  # Where it does not belong.
        for method, where in (("DELETE", ""), ("POST", "/rotate"), ("POST", "/confirm")):
            drive.ask(method, f"/tokens/{token}{where}")
        drive.ask("POST", "/tokens", json={"token": token})
        drive.client.get("/worlds", headers={"Authorization": f"Basic {token}"})


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of the server's but the one that is there to hold a secret."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "admin.token":
            yield path.name, path.read_bytes()


def test_no_secret_is_anywhere(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In no answer, journal, metric, log or file; while it runs, and when it has ended."""
    data = tmp_path / "data"
    with driven(tmp_path) as (started, drive):
        everything(drive)
        for path in (f"/worlds/{W}/journal?limit=1000", "/system/journal?limit=1000", "/metrics"):
            drive.told.append(drive.client.get(path).text)
        assert "oidc:corp:pia" in drive.told[-3], "it is the journal"
        files = [(f"{name}, while it runs", content) for name, content in written(data)]
    assert started.process.stdout is not None
    said = started.process.stdout.read() + capfd.readouterr().err
    started.gone()
    files += written(data)
    assert [name for name, _ in files].count("qmtl.db") == 1
    assert any(digest(drive.secrets["rotated"]).encode() in content for _, content in files)
    for name, secret in drive.secrets.items():
        assert not [text for text in drive.told if secret in text], f"{name} is in an answer"
        assert secret not in said, f"{name} is in the log"
        found = [file for file, content in files if secret.encode() in content]
        assert not found, f"{name} is in {found}"
    assert not [text for text in drive.told if KEY in text], "the key is in an answer"
    assert KEY not in said, "the key is in the log"
