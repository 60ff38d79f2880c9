"""Through a gateway: the pages are the same, a kill is heard, and the cookie stays on TLS."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from qmtl.adapters.clock import SystemClock
from qmtl.entry import proxy
from qmtl.entry.auth import FORMS
from qmtl.entry.proxy import Gateway, may_lower
from qmtl.entry.spool import Spool
from tests.dashboard.browsing import Form, Seen
from tests.http.harness import Harness, W, listening, with_live, with_world


@pytest.fixture
def behind(harness: Harness, tmp_path: Path) -> Iterator[tuple[str, Gateway]]:
    """A gateway, with its address, in front of a world in which something is live."""
    with_world(harness)
    with_live(harness)
    with listening(harness.client.app, harness.services.bell.close) as world:
        gateway = Gateway(world, Spool(tmp_path / "spool"), SystemClock())
        with listening(proxy.create_app(gateway), gateway.close) as url:
            yield url, gateway


def test_somebody_signs_in_and_kills_through_a_gateway(
    harness: Harness, behind: tuple[str, Gateway]
) -> None:
    url, gateway = behind
    decide = f"{url}/worlds/{W}/decide?strategy_id=s1"
    with httpx.Client(base_url=url, follow_redirects=True) as client:
        headers = harness.headers("rea")
        assert client.get(decide, headers=headers).json()["effective_mode"] == "live"
        form = Seen(client.get(f"/ui/worlds/{W}")).form("/ui/sign-in")
        page = send(client, form, token=harness.tokens["olga"])
        assert page.status == 200, page.text
        killed = send(client, page.form("/kill"), reason="now")
        assert "The world was killed" in killed.text
    gateway.world_url = "http://127.0.0.1:1"  # Nobody is there: it tells what it was told last,
    told = httpx.get(decide, headers=headers).json()
    assert told["effective_mode"] == "compute-only", "and nothing of before the kill"
    away = Seen(httpx.get(f"{url}/ui"))
    assert (away.status, "The world service does not answer" in away.text) == (503, True)


def send(client: httpx.Client, form: Form, **fields: str) -> Seen:
    return Seen(client.post(form.action, data={**form.fields, **fields}))


def test_each_form_may_lower_a_decision() -> None:
    for form in FORMS:
        method, _, path = form.partition(" ")
        assert may_lower(method, path)
    assert not may_lower("GET", "/ui/worlds/w")
    assert not may_lower("POST", "/worlds/w/evaluate")


@pytest.mark.parametrize(
    ("host", "https", "secure"),
    [("127.0.0.1", False, False), ("127.0.0.1", True, True), ("qmtl.example.com", False, True)],
)
def test_the_cookie_is_for_tls_where_the_gateway_is_not_this_machine(
    harness: Harness, tmp_path: Path, host: str, https: bool, secure: bool
) -> None:
    with listening(harness.client.app, harness.services.bell.close) as world:
        gateway = Gateway(world, Spool(tmp_path / "spool"), SystemClock())
        app = proxy.create_app(gateway, https=https)
        with listening(app, gateway.close) as url:
            told = httpx.get(f"{url}/ui/sign-in", headers={"Host": host}).headers["set-cookie"]
    assert ("; Secure" in told) is secure
