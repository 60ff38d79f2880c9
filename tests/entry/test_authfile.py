"""An auth file is whole, or the server does not start: one thing broken, one sentence."""

from datetime import timedelta
from pathlib import Path

import pytest

from qmtl.adapters.clock import SystemClock
from qmtl.adapters.oidc import Client
from qmtl.core.errors import Invalid
from qmtl.core.names import Role
from qmtl.entry import authfile
from qmtl.entry.identity import Grant
from qmtl.entry.limits import Limits
from qmtl.entry.wiring import Exposed, Settings, opened
from tests import oidc
from tests.jwts import Standing, jwks, public, signed

GOOD = """
hosts = ["qmtl.example.com", "QMTL"]
https = true
token_roles = ["reader", "producer", "operator", "admin"]

[oidc]
name = "corp"
issuer = "https://login.example.com"
audience = "qmtl"
jwks = "keys.json"
algorithms = ["ES256", "RS256"]
leeway = "10s"
max_lifetime = "30m"
actor_claim = "email"
groups_claim = ["realm_access", "roles"]

[oidc.sign_in]
client_id = "dashboard"
url = "https://qmtl.example.com/"
scopes = ["openid", "email"]

[[oidc.grants]]
group = "quant"
roles = ["author", "reader"]
world = "us-equity"

[[oidc.grants]]
group = "risk"
roles = ["approver", "policy-admin"]

[limits]
requests_per_sec = 5.0
burst = 7
streams = 3
failures_per_min = 9.0
"""


def written(folder: Path, text: str, keys: bytes | None = None) -> Path:
    (folder / "keys.json").write_bytes(keys or jwks(public("ES256", "k1")))
    path = folder / "auth.toml"
    path.write_text(text)
    return path


def test_what_it_says(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    file = authfile.read(path)
    assert (file.hosts, file.https) == (["qmtl.example.com", "qmtl"], True)
    assert file.roles_of_tokens == {Role.READER, Role.PRODUCER, Role.OPERATOR, Role.ADMIN}
    assert file.limits.limits() == Limits(
        requests_per_sec=5.0, burst=7, streams=3, failures_per_min=9.0
    )
    actors = authfile.actors_of(file, path, Standing())
    assert actors is not None
    assert (actors.name, actors.actor_claim, actors.groups_claim) == (
        *("corp", "email"),
        ("realm_access", "roles"),
    )
    assert actors.groups == {
        "quant": (Grant("us-equity", frozenset({Role.AUTHOR, Role.READER})),),  # type: ignore[arg-type]  # A WorldId.
        "risk": (Grant(None, frozenset({Role.APPROVER, Role.POLICY_ADMIN})),),
    }
    assert file.oidc is not None
    trust = file.oidc.trust()
    assert (trust.leeway, trust.lifetime_max) == (timedelta(seconds=10), timedelta(minutes=30))
    assert (trust.issuer, trust.audience) == ("https://login.example.com", "qmtl")
    assert trust.algorithms == {"ES256", "RS256"}
    assert file.oidc.sign_in is not None
    assert file.oidc.sign_in.client("s") == Client(
        client_id="dashboard",
        secret="s",
        redirect_uri="https://qmtl.example.com/ui/sign-in/oidc/callback",
        scopes=("openid", "email"),
    )
    assert actors.provider is not None
    assert actors.session == timedelta(minutes=30), "as long as its JWTs live at most"


def test_nobody_signs_in_at_an_issuer_that_the_file_does_not_say_so_of(tmp_path: Path) -> None:
    a, b = GOOD.index("[oidc.sign_in]"), GOOD.index("[[oidc.grants]]")
    path = written(tmp_path, GOOD[:a] + GOOD[b:])
    actors = authfile.actors_of(authfile.read(path), path, Standing())
    assert actors is not None
    assert actors.provider is None


def test_without_keys_they_are_where_the_issuer_says(tmp_path: Path) -> None:
    with oidc.provider("http://127.0.0.1:1/nowhere") as provider:
        text = GOOD.replace('jwks = "keys.json"', "").replace(
            "https://login.example.com", provider.url
        )
        path = written(tmp_path, text)
        clock = SystemClock()
        actors = authfile.actors_of(authfile.read(path), path, clock)
        assert actors is not None
        assert provider.asked == [], "not before anybody comes"
        now = int(clock.now().timestamp())
        assert actors.issuer.claims_of(signed(iss=provider.url, iat=now, exp=now + 60))
        assert provider.asked == ["/.well-known/openid-configuration", "/jwks"]


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    file = authfile.read(written(tmp_path, ""))
    assert (file.oidc, file.roles_of_tokens) == (None, frozenset(Role))
    assert file.limits.limits() == Limits()
    assert (file.hosts, file.https) == ([], False)


HERE, THERE = '"https://qmtl.example.com/"', '"https://login.example.com"'
BROKEN: list[tuple[str, str, str, str]] = [
    ("not TOML", "[oidc]", "[oidc", "is not TOML"),
    ("a key twice", 'name = "corp"', 'name = "corp"\nname = "b"', "is not TOML"),
    ("a misspelt key", "leeway =", "leway =", "oidc.leway: is not known here"),
    ("a misspelt part", "[limits]", "[limit]", "limit: is not known here"),
    ("no audience", 'audience = "qmtl"', "", "oidc.audience: is missing"),
    ("an empty audience", '"qmtl"\njwks', '""\njwks', "oidc.audience"),
    ("no algorithm", '["ES256", "RS256"]', "[]", "oidc.algorithms"),
    ("the algorithm none", '"RS256"]', '"none"]', "not 'none'"),
    ("a shared secret", '"RS256"]', '"HS256"]', "not 'HS256'"),
    ("too much leeway", '"10s"', '"6m"', "oidc.leeway: must be at most"),
    ("too long a life", '"30m"', '"2d"', "oidc.max_lifetime: must be at most"),
    ("no life", '"30m"', '"0s"', "oidc.max_lifetime: must be longer"),
    ("a life that is a number", '"30m"', "1800", "oidc.max_lifetime: must be a length"),
    ("a name that means more", '"corp"', '"corp:x"', "oidc.name: must match"),
    ("an unknown role", '"policy-admin"]', '"boss"]', "oidc.grants.1.roles.1: must be one of"),
    ("no roles", '["approver", "policy-admin"]', "[]", "oidc.grants.1.roles"),
    ("no world of that name", '"us-equity"', '"us equity"', "oidc.grants.0.world"),
    ("keys in the clear", '"keys.json"', '"http://login.example.com/k"', "must be https"),
    ("keys of no host", '"keys.json"', '"https://"', "names no host"),
    ("no file of keys", '"keys.json"', '"none.json"', "none.json: No such file"),
    ("no limit", "streams = 3", "streams = 0", "limits.streams"),
    ("a limit that is text", "burst = 7", 'burst = "7"', "limits.burst: must be a whole number"),
    ("a host with a port", '"QMTL"', '"qmtl:80"', "hosts: 'qmtl:80' is no name of a host"),
    ("https that is text", "https = true", 'https = "yes"', "https: must be true or false"),
    ("no client", 'client_id = "dashboard"', "", "oidc.sign_in.client_id: is missing"),
    ("a secret in the file", "[oidc.sign_in]", '[oidc.sign_in]\nsecret = "s"', "is not known here"),
    ("no address", 'url = "https://qmtl.example.com/"', "", "oidc.sign_in.url: is missing"),
    (
        "an address in the clear",
        HERE,
        '"http://a.example"',
        "must be https",
    ),
    (
        "an address with a path",
        HERE,
        '"https://a.example/x"',
        "and a host",
    ),
    ("an address with a query", HERE, '"https://a.example?x"', "a host"),
    ("no openid", '["openid", "email"]', '["email"]', "and hold openid"),
    ("scopes in one", '["openid", "email"]', '["openid", "a b"]', "must be single words"),
    (
        "discovery in the clear",
        '"https://login.example.com"',
        '"http://a.example"',
        "must be https",
    ),
    ("nobody operates", '"operator", ', "", "nobody could ever have the role operator"),
]


@pytest.mark.parametrize(("what", "old", "new", "says"), BROKEN, ids=[b[0] for b in BROKEN])
def test_one_thing_broken_and_nothing_starts(
    tmp_path: Path, what: str, old: str, new: str, says: str
) -> None:
    assert GOOD.count(old) == 1, "one thing"
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(Invalid) as refused:
        opened(Settings(data=tmp_path / "data", auth=path))
    assert says in " ".join(refused.value.args)
    assert str(path) in refused.value.args[0]
    assert not (tmp_path / "data").exists(), "nothing was made"


def test_keys_that_cannot_be_used_are_found_before_it_listens(tmp_path: Path) -> None:
    for text, says in ((b"{}", "no list `keys`"), (jwks({"kty": "oct", "k": "AA"}), "has no key")):
        path = written(tmp_path, GOOD, text)
        with pytest.raises(Invalid, match=says):
            opened(Settings(data=tmp_path / "data", auth=path))
    with pytest.raises(Invalid, match="No such file"):
        opened(Settings(data=tmp_path / "data", auth=tmp_path / "none.toml"))


def test_an_issuer_that_is_away_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    away = GOOD.replace('"keys.json"', '"http://127.0.0.1:1/keys"')
    what = opened(Settings(memory=True, auth=written(tmp_path, away)))
    what.close()
    assert what.app.state.services.issuer.name == "corp"


def test_an_issuer_alone_opens_no_door_to_the_network(tmp_path: Path) -> None:
    with pytest.raises(Exposed):
        opened(Settings(memory=True, host="0.0.0.0", auth=written(tmp_path, GOOD)))


def test_the_example_of_the_howto_page_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "howto" / "who-may.md").read_text()
    text = "\n".join(line[4:] for line in page.splitlines() if line.startswith("    ") or not line)
    path = written(tmp_path, text)
    file = authfile.read(path)
    assert authfile.actors_of(file, path, Standing()) is not None
    assert file.limits.limits() == Limits(), "the limits it shows are the standard ones"
