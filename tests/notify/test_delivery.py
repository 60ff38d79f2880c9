"""What is told arrives, signed, at least once, and under one id: at receivers that fail, are slow,
send elsewhere, ask to be left alone, or die."""

import json
import random
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import Message
from email.policy import default
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from qmtl.adapters.clock import SystemClock
from qmtl.adapters.outgoing import mail, webhook
from qmtl.adapters.outgoing.deliveries import Deliveries, New, Position
from qmtl.adapters.outgoing.mail import Mailbox, Tls
from qmtl.adapters.outgoing.sending import (
    ASKED_SEC_MAX,
    ATTEMPTS_MAX,
    FIRST_SEC,
    LONGEST_SEC,
    again_sec,
)
from qmtl.core.names import CandidateId, StrategyId, WorldId
from qmtl.core.notices import About, Notice
from qmtl.entry.notify import messages
from qmtl.entry.notify.config import Slack, Target, Webhook
from qmtl.entry.notify.notifier import Sender, deliver

from .receiving import SECRET, Answer, Clock, Receiver, receiving

# The mail server here asks for a password without TLS, as only one on loopback may.
pytestmark = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")

KEY = webhook.secret_of(SECRET)
WAITS = Notice(
    world_id=WorldId("us-equity"),
    about=About.APPROVAL,
    key="approval c1 7 0",
    at=datetime(2030, 1, 1, tzinfo=UTC),
    title="trend waits for 2 approvals",
    sentences=("trend & <!channel> is proposed.", "It waits\r\nBcc: everybody@example.com"),
    strategy_id=StrategyId("trend"),
    candidate_id=CandidateId("c1"),
)
PAGES = "https://qmtl.example.com"
SECOND = timedelta(seconds=1)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


class Desk:
    """One target, what is kept for it, and a clock that the test sets."""

    def __init__(self, folder: Path, target: Target) -> None:
        self.kept, self.clock = Deliveries(folder / "notify.db"), Clock()
        self.sender, self.chance = Sender(target, self.clock), random.Random(7)
        for _ in range(2):
            self.add(messages.message_id(WAITS))  # The same again is once.

    def add(self, message_id: str) -> None:
        new = New(
            message_id=message_id,
            target="desk",
            world_id=WAITS.world_id,
            about=WAITS.about,
            seq=None,
            title=WAITS.title,
            message=messages.message(WAITS, PAGES),
        )
        self.kept.keep("us-equity", Position(7, "h"), {}, [new], self.clock.now())

    def deliver(self) -> Any:
        """One attempt; what the log says of it after it, None when nothing was due."""
        tried = deliver(self.kept, "desk", self.sender, self.clock, self.chance)
        if tried is None:
            return None
        (only,) = [each for each in self.kept.log(10) if each.number == tried[0].number]
        return only

    def close(self) -> None:
        self.sender.close()
        self.kept.close()


@pytest.fixture
def desk(tmp_path: Path, receiver: Receiver) -> Iterator[Desk]:
    made = Desk(tmp_path, Webhook(receiver.url, KEY))
    yield made
    made.close()


# ---- Signatures ------------------------------------------------------------------------------


def test_a_signature_verifies_with_an_implementation_that_is_not_ours(receiver: Receiver) -> None:
    sender = Sender(Webhook(receiver.url, KEY), SystemClock())
    assert sender.send("msg_1", messages.message(WAITS, PAGES)).ok
    sender.close()
    (got,) = receiver.got
    told = Verifier(SECRET).verify(got.body, got.headers)
    assert told["type"] == "qmtl.approval"
    assert told["data"]["url"] == f"{PAGES}/ui/worlds/us-equity/candidates/c1"
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(got.body.replace(b"trend", b"trust"), got.headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(SECRET).verify(got.body, {**got.headers, "webhook-id": "msg_2"})
    other = "whsec_" + "B" * 32
    with pytest.raises(WebhookVerificationError):
        Verifier(other).verify(got.body, got.headers)


@pytest.mark.parametrize("text", ["whsec_", "whsec_c2hvcnQ=", "whsec_€" + "A" * 40, "A" * 200])
def test_a_secret_that_is_none_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="24 to 64 random bytes") as refused:
        webhook.secret_of(text)
    spelt = text.removeprefix("whsec_")
    assert not spelt or spelt not in str(refused.value)


# ---- Receivers that will not -----------------------------------------------------------------


def test_what_fails_is_tried_again_later_and_later_under_the_same_id(
    desk: Desk, receiver: Receiver
) -> None:
    receiver.script = [Answer(500), Answer(503), Answer(500)]
    waits = []
    for attempt in (1, 2, 3):
        tried = desk.deliver()
        assert (tried.state, tried.attempts) == ("waiting", attempt)
        assert desk.deliver() is None, "it is not due yet"
        waits.append(tried.due_at - desk.clock.now())
        desk.clock.pass_(waits[-1])
    assert [
        FIRST_SEC * 2**n / 2 <= w.total_seconds() <= FIRST_SEC * 2**n for n, w in enumerate(waits)
    ] == [True] * 3
    last = desk.deliver()
    assert (last.state, last.attempts, last.status) == ("delivered", 4, 200)
    assert desk.deliver() is None
    assert {got.id for got in receiver.got} == {messages.message_id(WAITS)}
    assert len({got.body for got in receiver.got}) == 1
    assert len({got.headers["webhook-timestamp"] for got in receiver.got}) == 4, "of the attempt"


@pytest.mark.parametrize("told", ["120", "Tue, 01 Jan 2030 00:02:00 GMT"])
def test_who_asks_to_be_left_alone_is(desk: Desk, receiver: Receiver, told: str) -> None:
    receiver.script = [Answer(429, {"Retry-After": told})]
    assert desk.deliver().due_at - desk.clock.now() == timedelta(seconds=120)
    desk.clock.pass_(timedelta(seconds=119))
    assert desk.deliver() is None
    desk.clock.pass_(SECOND)
    assert desk.deliver().state == "delivered"


def test_who_asks_to_be_left_alone_is_told_nothing_else_either(
    desk: Desk, receiver: Receiver
) -> None:
    for number in (2, 3):
        desk.add(f"msg_{number}")
    receiver.script = [Answer(429, {"Retry-After": "600"})]
    desk.deliver()
    for _ in range(3):
        assert desk.deliver() is None
    assert len(receiver.got) == 1
    desk.clock.pass_(timedelta(seconds=600))
    while desk.deliver() is not None:
        pass
    assert {got.id for got in receiver.got[1:]} == {messages.message_id(WAITS), "msg_2", "msg_3"}
    assert {each.state for each in desk.kept.log(10)} == {"delivered"}


def test_who_sends_elsewhere_is_not_followed(desk: Desk, receiver: Receiver) -> None:
    with receiving() as elsewhere:
        receiver.script = [Answer(307, {"Location": elsewhere.url})]
        tried = desk.deliver()
        assert (tried.state, tried.status) == ("waiting", 307)
        assert "not followed" in tried.said
        assert elsewhere.got == []


def test_who_wants_no_more_is_left_alone(desk: Desk, receiver: Receiver) -> None:
    receiver.script = [Answer(410)]
    assert desk.deliver().state == "failed"
    desk.clock.pass_(timedelta(days=2))
    assert desk.deliver() is None


def test_who_does_not_answer_is_not_waited_for(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "SEND_SEC", 0.2)
    desk = Desk(tmp_path, Webhook(receiver.url, KEY))
    receiver.script = [Answer(after_sec=1.0)]
    tried = desk.deliver()
    assert (tried.state, tried.status, tried.said) == ("waiting", None, "no answer within 0.2 s")
    desk.close()


def test_who_is_not_there_is_told_when_they_come_back(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    desk = Desk(tmp_path, Webhook(f"http://127.0.0.1:{port}/hook", KEY))
    tried = desk.deliver()
    assert (tried.state, tried.said) == ("waiting", "not reached: ConnectError")
    with receiving(port) as back:
        desk.clock.pass_(timedelta(seconds=FIRST_SEC))
        assert desk.deliver().state == "delivered"
        assert len(back.got) == 1
    desk.close()


def test_in_the_end_it_gives_up_and_a_replay_begins_again(desk: Desk, receiver: Receiver) -> None:
    receiver.script = [Answer(500) for _ in range(ATTEMPTS_MAX)]
    for _ in range(ATTEMPTS_MAX):
        tried = desk.deliver()
        desk.clock.pass_(timedelta(seconds=LONGEST_SEC))
    assert (tried.state, tried.attempts) == ("failed", ATTEMPTS_MAX)
    assert desk.deliver() is None
    assert desk.kept.again("msg_unknown", None, desk.clock.now()) == []
    assert desk.kept.again(tried.message_id, "other", desk.clock.now()) == []
    assert desk.deliver() is None
    (due,) = desk.kept.again(tried.message_id, "desk", desk.clock.now())
    assert due.state == "waiting"
    assert desk.deliver().state == "delivered"
    assert {got.id for got in receiver.got} == {due.message_id}


def test_the_waits_grow_to_an_hour_and_end() -> None:
    chance = random.Random(1)
    longest = [again_sec(n, None, chance) for n in range(1, ATTEMPTS_MAX)]
    assert all(
        wait is not None and 0.5 <= wait / min(LONGEST_SEC, FIRST_SEC * 2**n) <= 1.0
        for n, wait in enumerate(longest)
    )
    assert len(set(longest)) == len(longest), "jitter"
    assert again_sec(ATTEMPTS_MAX, None, chance) is None
    assert again_sec(1, 10.0 * ASKED_SEC_MAX, chance) == ASKED_SEC_MAX
    assert sum(w or 0 for w in longest) > 12 * 3_600


# ---- Chats -----------------------------------------------------------------------------------


def test_a_chat_is_told_in_its_own_shape_and_nobody_in_it_is_called(
    tmp_path: Path, receiver: Receiver
) -> None:
    desk = Desk(tmp_path, Slack(receiver.url))
    assert desk.deliver().state == "delivered"
    desk.close()
    told = json.loads(receiver.got[0].body)
    assert told["text"] == "[us-equity] trend waits for 2 approvals"
    said = " ".join(block["text"]["text"] for block in told["blocks"])
    assert "trend &amp; &lt;!channel&gt; is proposed." in said
    assert "<!channel>" not in said
    assert f"<{PAGES}/ui/worlds/us-equity/candidates/c1|Look at the evidence" in said
    assert "webhook-signature" not in receiver.got[0].headers


# ---- Mail ------------------------------------------------------------------------------------


class Postbox:
    """What a mail server took; `refuse` is what it answers instead."""

    def __init__(self) -> None:
        self.got: list[tuple[list[str], Message]] = []
        self.refuse = ""

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.refuse:
            return self.refuse
        message = message_from_bytes(envelope.content, policy=default)
        self.got.append((envelope.rcpt_tos, message))
        return "250 OK"


@pytest.fixture
def postbox() -> Iterator[tuple[Postbox, Mailbox]]:
    box = Postbox()

    def who(_server: Any, _session: Any, _envelope: Any, _mechanism: str, told: Any) -> AuthResult:
        mine = isinstance(told, LoginPassword) and told == LoginPassword(b"ops", b"a-password")
        return AuthResult(success=mine, handled=False)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Controller(
        box,
        hostname="127.0.0.1",
        port=port,
        authenticator=who,
        auth_required=True,
        auth_require_tls=False,
    )
    server.start()
    yield (
        box,
        Mailbox(
            host="127.0.0.1",
            port=port,
            tls=Tls.NONE,
            sender="qmtl@example.com",
            to=("desk@example.com", "risk@example.com"),
            user="ops",
            password="a-password",
        ),
    )
    server.stop()


def test_a_letter_says_it_in_words_and_names_of_others_add_no_header(
    tmp_path: Path, postbox: tuple[Postbox, Mailbox]
) -> None:
    desk = Desk(tmp_path, postbox[1])
    assert desk.deliver().state == "delivered"
    desk.close()
    ((to, letter),) = postbox[0].got
    assert to == ["desk@example.com", "risk@example.com"]
    assert letter["Subject"] == "[qmtl] us-equity: trend waits for 2 approvals"
    assert letter["Message-ID"] == f"<{messages.message_id(WAITS)}@{mail.DOMAIN}>"
    assert letter["Bcc"] is None
    text = letter.get_content()  # type: ignore[attr-defined]  # Of the policy `default`.
    assert f"{PAGES}/ui/worlds/us-equity/candidates/c1" in text
    assert messages.ONLY_LOOKS in text


def test_a_subject_is_one_line_whatever_is_in_it(postbox: tuple[Postbox, Mailbox]) -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    letter = mail.letter(postbox[1], "msg_1", "a\r\nBcc: all@example.com", ["x"], at)
    assert letter["Subject"] == "a Bcc: all@example.com"
    assert letter["Bcc"] is None


def test_a_mail_server_that_refuses_is_asked_again(
    tmp_path: Path, postbox: tuple[Postbox, Mailbox]
) -> None:
    postbox[0].refuse = "451 later"
    desk = Desk(tmp_path, postbox[1])
    tried = desk.deliver()
    assert (tried.state, tried.status) == ("waiting", 451)
    postbox[0].refuse = ""
    desk.clock.pass_(timedelta(seconds=FIRST_SEC))
    assert desk.deliver().state == "delivered"
    desk.close()


def test_a_password_that_is_wrong_is_said_and_not_repeated(
    tmp_path: Path, postbox: tuple[Postbox, Mailbox]
) -> None:
    desk = Desk(tmp_path, replace(postbox[1], password="another-password"))
    tried = desk.deliver()
    assert (tried.state, tried.status) == ("waiting", 535)
    assert tried.said == "the mail server refused: 535"
    assert "another-password" not in repr(replace(postbox[1], password="another-password"))
    desk.close()


def certificate(folder: Path) -> Path:
    """One for 127.0.0.1 that nobody vouches for, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    here = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, *plain)
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@contextmanager
def secure_postbox(folder: Path, tls: Tls) -> Iterator[tuple[Postbox, Mailbox]]:
    box, context = Postbox(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(folder))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    if tls is Tls.TLS:
        server = Controller(box, hostname="127.0.0.1", port=port, ssl_context=context)
    else:
        server = Controller(
            box, hostname="127.0.0.1", port=port, tls_context=context, require_starttls=True
        )
    server.start()
    to = ("desk@example.com",)
    yield box, Mailbox(host="127.0.0.1", port=port, tls=tls, sender="q@example.com", to=to)
    server.stop()


@pytest.mark.parametrize("tls", [Tls.STARTTLS, Tls.TLS])
def test_mail_goes_to_a_server_that_shows_who_it_is_and_to_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tls: Tls
) -> None:
    with secure_postbox(tmp_path, tls) as (box, mailbox):
        desk = Desk(tmp_path, mailbox)
        tried = desk.deliver()
        assert (tried.state, tried.said) == (
            "waiting",
            "the mail server broke off: SSLCertVerificationError",
        )
        assert box.got == []
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))  # Now it is vouched for.
        desk.clock.pass_(timedelta(seconds=FIRST_SEC))
        assert desk.deliver().state == "delivered"
        assert len(box.got) == 1
        desk.close()


def test_a_webhook_goes_to_a_receiver_that_shows_who_it_is_and_to_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))
    with receiving(tls=context) as receiver:
        stranger = Desk(tmp_path, Webhook(receiver.url, KEY))
        assert stranger.deliver().said == "not reached: ConnectError"
        assert receiver.got == []
        stranger.close()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
        known = Desk(tmp_path, Webhook(receiver.url, KEY))
        known.clock.pass_(timedelta(seconds=FIRST_SEC))
        assert known.deliver().state == "delivered"
        known.close()


def test_mail_that_would_be_read_on_its_way_is_not_sent(
    tmp_path: Path, postbox: tuple[Postbox, Mailbox]
) -> None:
    """This server has no certificate, so STARTTLS is not to be had, and nothing is handed in."""
    desk = Desk(tmp_path, replace(postbox[1], tls=Tls.STARTTLS))
    assert desk.deliver().state == "waiting"
    assert postbox[0].got == []
    desk.close()
