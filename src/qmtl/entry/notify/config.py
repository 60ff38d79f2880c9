"""The file of `qmtl notify --config`: where the server is, whom to tell, and of what.

YAML, read as strictly as a policy: every key is known or refused.  INVARIANT: secrets are named in
it, never written: a variable of the environment, or a file beside it.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field, field_validator, model_validator

from qmtl.adapters.client import BadAddress, checked
from qmtl.adapters.credentials import is_loopback
from qmtl.adapters.outgoing.mail import Mailbox, Tls
from qmtl.adapters.outgoing.webhook import address, secret_of
from qmtl.adapters.policies import documents
from qmtl.adapters.policies.words import Span
from qmtl.adapters.wire.fields import Body, Id
from qmtl.core.errors import Invalid, Refusal
from qmtl.core.notices import About

T = TypeVar("T")

STATE_DEFAULT: Final = "notify.db"
EVERY_DEFAULT: Final = timedelta(seconds=5)
EVERY_MAX: Final = timedelta(minutes=10)  # Longer, and a kill is yesterday's news.
SECRET_BYTES_MAX: Final = 8_192
MAIL_ADDRESS: Final = re.compile(r"[^\s@<>,;:\"()\[\]\\]+@[A-Za-z0-9.-]+")
HOST: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:-]{0,252}")
PORTS: Final = {Tls.STARTTLS: 587, Tls.TLS: 465, Tls.NONE: 25}

Text = Annotated[str, Field(min_length=1, max_length=2_000)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")]


# ---- The file --------------------------------------------------------------------------------


class Kept(Body):
    """Where a secret is."""

    env: Text | None = None
    file: Text | None = None

    @model_validator(mode="before")
    @classmethod
    def _not_itself(cls, told: object) -> object:
        """What is written in its place may be the secret: the error must not repeat it."""
        if not isinstance(told, dict):
            raise ValueError("must be {env: NAME} or {file: PATH}, never the secret itself.")
        return told

    @model_validator(mode="after")
    def _one(self) -> "Kept":
        if (self.env is None) == (self.file is None):
            raise ValueError("must be {env: NAME} or {file: PATH}.")
        return self

    def secret(self, folder: Path) -> str:
        """The secret.  Raises ValueError, which names where it should be, and not what it is."""
        if self.env is not None:
            told = os.environ.get(self.env, "").strip()
            if not told:
                raise ValueError(f"the variable {self.env} is not set")
            return told
        path = folder / (self.file or "")
        try:
            if path.stat().st_size > SECRET_BYTES_MAX:
                raise ValueError(f"{path} is too long for a secret")
            told = path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not text") from None
        if not told:
            raise ValueError(f"{path} is empty")
        return told


class WebhookRow(Body):
    kind: Literal["webhook"]
    url: Text | Kept
    secret: Kept


class SlackRow(Body):
    kind: Literal["slack"]
    url: Kept  # Whoever has it may post there.


class MailRow(Body):
    kind: Literal["mail"]
    host: Text
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: Text | None = None
    password: Kept | None = None
    sender: Annotated[Text, Field(alias="from")]
    to: Annotated[list[Text], Field(min_length=1, max_length=100)]

    @field_validator("host")
    @classmethod
    def _host(cls, told: str) -> str:
        if not HOST.fullmatch(told):
            raise ValueError("is no name of a host.")
        return told

    @field_validator("sender")
    @classmethod
    def _sender(cls, told: str) -> str:
        if not MAIL_ADDRESS.fullmatch(told):
            raise ValueError("is no mail address.")
        return told

    @field_validator("to")
    @classmethod
    def _to(cls, told: list[str]) -> list[str]:
        for each in told:
            if not MAIL_ADDRESS.fullmatch(each):
                raise ValueError(f"{each!a} is no mail address.")
        return told

    @model_validator(mode="after")
    def _whole(self) -> "MailRow":
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together.")
        if self.tls == "none" and not is_loopback(f"//{self.host}"):
            raise ValueError("tls: none is for a mail server on this machine only.")
        return self


Row = Annotated[WebhookRow | SlackRow | MailRow, Field(discriminator="kind")]


class RuleRow(Body):
    """Without `world`, every world that the credential is for; without `about`, everything."""

    to: Annotated[list[Name], Field(min_length=1, max_length=50)]
    world: Id | None = None
    about: Annotated[
        list[Literal["approval", "blocked", "demoted", "stale", "kill"]],
        Field(min_length=1, max_length=len(About), default_factory=lambda: list(About)),
    ]
    stale_after: Span | None = None


class NotifyFile(Body):
    """All of it."""

    targets: Annotated[dict[Name, Row], Field(min_length=1, max_length=50)]
    rules: Annotated[list[RuleRow], Field(min_length=1, max_length=500)]
    server: Text | None = None
    token: Kept | None = None
    pages: Text | None = None
    state: Text = STATE_DEFAULT
    every: Span = EVERY_DEFAULT

    @field_validator("every")
    @classmethod
    def _often(cls, told: timedelta) -> timedelta:
        if told > EVERY_MAX:
            raise ValueError(f"must be at most {EVERY_MAX}.")
        return told

    @model_validator(mode="after")
    def _known(self) -> "NotifyFile":
        strange = sorted({name for rule in self.rules for name in rule.to} - self.targets.keys())
        if strange:
            known = ", ".join(sorted(self.targets))
            raise ValueError(f"rules: {strange[0]!a} is no target; there are: {known}.")
        return self


# ---- What it means ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Webhook:
    url: str = field(repr=False)
    key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Slack:
    url: str = field(repr=False)


Target = Webhook | Slack | Mailbox


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    to: tuple[str, ...]
    world: str | None
    about: frozenset[About]
    stale_after: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the file means, its secrets read.  `server` and `token` None: as every command has them.

    `pages` is where links lead; None: to the server.
    """

    targets: dict[str, Target]
    rules: tuple[Rule, ...]
    server: str | None
    token: str | None = field(repr=False)
    pages: str | None
    state: Path
    every: timedelta

    def about(self, target: str, world: str) -> frozenset[About]:
        """What a target is told of a world."""
        wanted = (rule.about for rule in self._of(target, world))
        return frozenset().union(*wanted)

    def stale_after(self, target: str, world: str) -> timedelta | None:
        """The shortest that any rule says."""
        said = [rule.stale_after for rule in self._of(target, world) if About.STALE in rule.about]
        return min((each for each in said if each is not None), default=None)

    def _of(self, target: str, world: str) -> Iterator[Rule]:
        return (r for r in self.rules if target in r.to and r.world in (None, world))


def read(path: Path) -> Settings:
    """The file, checked, and every secret that it names.  Raises Invalid with every problem."""
    try:
        told = documents.read(path.read_bytes(), documents.YAML)
    except OSError as error:
        raise Invalid(f"{path}: {error.strerror}.") from error
    except Refusal as error:
        raise Invalid(*(f"{path}: {said}" for said in error.args)) from None
    try:
        return _settings(NotifyFile.of(told), path.absolute().parent)
    except Invalid as error:
        raise Invalid(*(f"{path}: {said}" for said in error.args)) from None


def _settings(file: NotifyFile, folder: Path) -> Settings:
    problems: list[str] = []

    def of(where: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except (ValueError, BadAddress) as error:
            problems.append(f"{where}: {error}.")
            return None

    targets = {
        name: of(f"targets.{name}", lambda row=row: _target(row, folder))  # type: ignore[misc]  # mypy knows no lambda's defaults.
        for name, row in file.targets.items()
    }
    server, pages = file.server, file.pages
    if server is not None:
        server = of("server", lambda: checked(str(file.server)))
    if pages is not None:
        pages = of("pages", lambda: checked(str(file.pages)))
    token = None
    if file.token is not None:
        kept = file.token
        token = of("token", lambda: kept.secret(folder))
    if problems:
        raise Invalid(*problems)
    return Settings(
        targets={name: target for name, target in targets.items() if target is not None},
        rules=tuple(
            Rule(
                to=tuple(row.to),
                world=row.world,
                about=frozenset(map(About, row.about)),
                stale_after=row.stale_after,
            )
            for row in file.rules
        ),
        server=server,
        token=token,
        pages=pages,
        state=folder / file.state,
        every=file.every,
    )


def _target(row: WebhookRow | SlackRow | MailRow, folder: Path) -> Target:
    """Raises ValueError."""
    match row:
        case WebhookRow():
            url = row.url if isinstance(row.url, str) else row.url.secret(folder)
            return Webhook(address(url), secret_of(row.secret.secret(folder)))
        case SlackRow():
            return Slack(address(row.url.secret(folder)))
        case MailRow():
            tls = Tls(row.tls)
            return Mailbox(
                host=row.host,
                port=row.port or PORTS[tls],
                tls=tls,
                sender=row.sender,
                to=tuple(row.to),
                user=row.user,
                password=None if row.password is None else row.password.secret(folder),
            )
