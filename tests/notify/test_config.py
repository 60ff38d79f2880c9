"""The file of `qmtl notify`: what it means, and one broken thing at a time."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

from qmtl.adapters.outgoing.mail import Mailbox, Tls
from qmtl.core.errors import Invalid
from qmtl.core.notices import About
from qmtl.entry.notify.config import Slack, Webhook, read
from tests import pages

from .receiving import SECRET

FINE = """
server: https://qmtl.example.com
token: {env: NOTIFY_TOKEN}
every: 10s
targets:
  desk: {kind: webhook, url: "https://hooks.example.com/qmtl", secret: {file: desk.secret}}
  chat: {kind: slack, url: {env: CHAT_URL}}
  post:
    kind: mail
    host: smtp.example.com
    user: qmtl
    password: {env: MAIL_PASSWORD}
    from: qmtl@example.com
    to: [desk@example.com]
rules:
  - {to: [desk]}
  - {to: [chat, post], world: us-equity, about: [kill, stale], stale_after: 30h}
"""
ENVIRONMENT = {
    "NOTIFY_TOKEN": "a-token-that-can-be-told",
    "CHAT_URL": "https://hooks.example.com/services/a-part-that-can-be-told",
    "MAIL_PASSWORD": "a-password-that-can-be-told",
}
SECRETS = (*ENVIRONMENT.values(), SECRET)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "desk.secret").write_text(f"{SECRET}\n")
    return tmp_path


def written(folder: Path, text: str) -> Path:
    path = folder / "notify.yaml"
    path.write_text(text)
    return path


def test_what_it_means(folder: Path) -> None:
    found = read(written(folder, FINE))
    assert (found.server, found.token) == ("https://qmtl.example.com", ENVIRONMENT["NOTIFY_TOKEN"])
    assert (found.state, found.every) == (folder / "notify.db", timedelta(seconds=10))
    desk, chat, post = found.targets["desk"], found.targets["chat"], found.targets["post"]
    assert isinstance(desk, Webhook)
    assert len(desk.key) == 24
    assert isinstance(chat, Slack)
    assert chat.url == ENVIRONMENT["CHAT_URL"]
    assert isinstance(post, Mailbox)
    assert (post.port, post.tls) == (587, Tls.STARTTLS)
    assert found.about("desk", "anything") == frozenset(About)
    assert found.about("chat", "us-equity") == {About.KILL, About.STALE}
    assert found.about("chat", "elsewhere") == frozenset()
    assert found.stale_after("chat", "us-equity") == timedelta(hours=30)
    assert found.stale_after("desk", "us-equity") is None


def test_nothing_that_it_means_shows_a_secret(folder: Path) -> None:
    said = repr(read(written(folder, FINE)))
    assert not [secret for secret in SECRETS if secret in said]


BROKEN = [
    ("a word that is none", "every: 10s", "evry: 10s", "evry"),
    ("a rule about nothing", "about: [kill, stale]", "about: [kills]", "about"),
    ("a rule for nobody", "to: [desk]}", "to: [dsk]}", "'dsk' is no target"),
    (
        "no encryption",
        "https://hooks.example.com/qmtl",
        "http://hooks.example.com",
        "must be https",
    ),
    ("another scheme", "https://hooks.example.com/qmtl", "file:///etc/passwd", "no address"),
    ("a user in it", "https://hooks.", "https://u:p@hooks.", "no user, password or fragment"),
    ("a secret in it", "secret: {file: desk.secret}", f"secret: {SECRET}", "secret: must be"),
    ("an address in it", "url: {env: CHAT_URL}", "url: https://hooks.example.com/x", "chat"),
    ("a secret that is away", "{file: desk.secret}", "{file: no.secret}", "No such file"),
    ("a variable that is not set", "{env: CHAT_URL}", "{env: NO_URL}", "NO_URL is not set"),
    ("both places", "{env: NOTIFY_TOKEN}", "{env: A, file: b}", "{env: NAME} or {file: PATH}"),
    (
        "mail that all may read",
        "host: smtp.example.com",
        "host: smtp.example.com\n    tls: none",
        "on this machine only",
    ),
    ("a user without a password", "    user: qmtl\n", "", "go together"),
    ("no mail address", "to: [desk@example.com]", 'to: ["desk, x@example.com"]', "mail address"),
    ("too seldom", "every: 10s", "every: 11m", "at most"),
    ("no server", "server: https://qmtl.example.com", "server: qmtl", "no address of a server"),
    ("twice", "every: 10s", "every: 10s\nevery: 11s", "twice"),
    ("nobody to tell", FINE.partition("targets:")[2].partition("rules:")[0], " {}\n", "targets"),
]


@pytest.mark.parametrize(
    ("was", "now", "said"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN]
)
def test_one_thing_broken_and_it_is_refused(folder: Path, was: str, now: str, said: str) -> None:
    assert FINE.count(was) == 1 or was == "https://hooks."
    with pytest.raises(Invalid) as refused:
        read(written(folder, FINE.replace(was, now, 1)))
    told = " ".join(refused.value.args)
    assert said in told
    assert "notify.yaml" in told
    assert not [secret for secret in SECRETS if secret in told], "an error repeats no secret"


def test_every_problem_is_said_at_once(folder: Path) -> None:
    text = FINE.replace("{env: CHAT_URL}", "{env: NO_URL}").replace(
        "{file: desk.secret}", "{env: NO}"
    )
    with pytest.raises(Invalid) as refused:
        read(written(folder, text))
    assert len(refused.value.args) == 2


def test_the_example_of_the_howto_page_is_one_with_all_of_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = [b for b in pages.blocks(HOWTO.read_text()) if b.name == "notify.yaml"]
    (folder / "notify.token").write_text("a-token")
    assert read(written(folder, block.text)).targets.keys() == {"desk"}
    whole = re.sub(r"^  # ?(?=\w| )", "  ", block.text, flags=re.MULTILINE)
    assert read(written(folder, whole)).targets.keys() == {"desk", "chat", "post"}


HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "notify.md"
