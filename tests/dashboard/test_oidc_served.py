"""`qmtl serve` with an issuer: from its file, and its secret's, to a session that outlives it."""

import shutil
from pathlib import Path

import httpx
import pytest

from qmtl.adapters.sealing import Seal
from qmtl.entry.authfile import CALLBACK
from qmtl.entry.sessions import SESSION_PREFIX
from qmtl.entry.wiring import Settings, opened
from tests import oidc
from tests.dashboard.browsing import Seen
from tests.dashboard.test_oidc import free_port, onward
from tests.oidc import CLIENT, SECRET, gone_through
from tests.servers import Served, start

AUTH = """
[oidc]
name = "corp"
issuer = "{issuer}"
audience = "qmtl"
algorithms = ["ES256"]

[oidc.sign_in]
client_id = "{client}"
url = "{here}"

[[oidc.grants]]
group = "quant"
roles = ["reader"]
"""


def test_somebody_signs_in_and_stays_so_over_a_restart(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """And nothing that would let anybody else in is in a log or a file."""
    port = free_port()
    here = f"http://127.0.0.1:{port}"
    data, auth, secret = tmp_path / "data", tmp_path / "auth.toml", tmp_path / "secret"
    secret.write_text(f"{SECRET}\n")

    def served() -> Served:
        options = ("--port", str(port), "--auth", str(auth), "--log", "json")
        return start(data, *options, QMTL_OIDC_SECRET_FILE=str(secret))

    with oidc.provider(here + CALLBACK) as provider, httpx.Client(base_url=here) as client:
        auth.write_text(AUTH.format(issuer=provider.url, client=CLIENT, here=here))
        server = served()
        try:
            there = client.get("/ui/sign-in/oidc").headers["location"]
            back = gone_through(there)
            page = Seen(client.get(back))
            assert page.status == 200, page.text
            assert "oidc:corp:pia" in client.get(onward(page)).text
            server.stop()
            server = served()
            again = Seen(client.get("/ui"))
            assert (again.status, "oidc:corp:pia" in again.text) == (200, True)
            client.post("/ui/sign-out", data=again.form("/ui/sign-out").fields)
            assert client.get("/ui").status_code == 401
            server.stop()
            server = served()
            assert client.get("/ui").status_code == 401, "signed out is signed out"
        finally:
            server.stop()
    said = capfd.readouterr().err
    assert "/ui/sign-in/oidc/callback" in said, "it is the log"
    (cookie,) = client.cookies.values()
    assert cookie.startswith(SESSION_PREFIX)
    secrets = [SECRET, cookie, back.partition("?")[2], *httpx.URL(back).params.values()]
    for told in secrets:
        assert told == provider.url or told not in said, told
        assert not [p for p in data.rglob("*") if p.is_file() and told.encode() in p.read_bytes()]


def test_neither_the_journal_key_nor_the_database_alone_makes_a_session(tmp_path: Path) -> None:
    """Only both: two servers of one database and one key are one, and no other two."""

    def sealed(name: str, key: Path | None = None, database: Path | None = None) -> Seal:
        data = tmp_path / name
        data.mkdir()
        if key is not None:
            shutil.copy(key / "journal.key", data)
        if database is not None:
            shutil.copy(database / "qmtl.db", data)
        what = opened(Settings(data=data))
        what.close()
        seal: Seal = what.app.state.services.sessions.seal
        return seal

    text = sealed("first").closed(b"who", "session")
    first = tmp_path / "first"
    assert sealed("both", first, first).opened(text, "session") == b"who"
    assert sealed("key", first).opened(text, "session") is None
    assert sealed("database", None, first).opened(text, "session") is None
