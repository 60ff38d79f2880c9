"""The composition root, which alone knows every adapter: settings in, an application out."""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from starlette.applications import Starlette

from qmtl.adapters import objects, policies, signing
from qmtl.adapters.clock import ReplayClock, SystemClock
from qmtl.adapters.credentials import ADMIN_TOKEN
from qmtl.adapters.directories import made, synced
from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.sealing import Seal
from qmtl.adapters.sql.store import SqlStore
from qmtl.adapters.wire.instants import rfc3339
from qmtl.app import program, tokens, worlds
from qmtl.app.ports import Clock
from qmtl.core.errors import Invalid, Refusal
from qmtl.core.names import SYSTEM, Role, WorldId
from qmtl.core.snapshot import CLOCK_SKEW_MAX

from . import authfile, identity, tracing
from .guard import LOOPBACK
from .http import create_app as app_over
from .limits import Limiter
from .logs import Log
from .offload import Offload
from .proxy import Gateway
from .proxy import create_app as app_before
from .services import ADMIN, Services
from .sessions import Sessions
from .spool import Spool

PORT_DEFAULT: Final = 8321
SANDBOX: Final = WorldId("sandbox")
SECRET_MODE: Final = 0o600


class Part(StrEnum):
    """What of qmtl a process is."""

    ALL = "all"
    WORLD = "world"
    GATEWAY = "gateway"


class Exposed(Refusal):
    """Anyone could reach this server, and nobody would need a credential."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How `qmtl serve` was started.

    `at`: under a replay clock, no earlier than this.  `dual_control` None: on, except on loopback.
    `world_url` is for the gateway alone.  `memory`: no data folder; for tests and demos.
    `auth`: see `authfile.py`.  `database`: the URL of one that others may serve, too; else it is
    in the data folder.  The folder holds the keys either way.  `objects`: the URL of a bucket, for
    what is large.  `bus`: the URL of a NATS server.  `log`: see `logs.written`.  `oidc_secret`: the
    dashboard's, at the auth file's issuer.
    """

    part: Part = Part.ALL
    data: Path = Path("qmtl-data")
    database: str | None = None
    objects: str | None = None
    bus: str | None = None
    host: str = "127.0.0.1"
    port: int = PORT_DEFAULT  # 0: any that is free.
    replay: bool = False
    at: datetime | None = None
    dual_control: bool | None = None
    world_url: str | None = None
    memory: bool = False
    auth: Path | None = None
    oidc_secret: str | None = field(default=None, repr=False)
    log: Log | None = None

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class Opened:
    """An application, what to say about it, and how it ends: `ending` first, `close` last.

    `warns` is for who started it: it works, and not as they may expect.
    """

    app: Starlette
    says: tuple[str, ...]
    ending: Callable[[], None]
    close: Callable[[], None]
    warns: tuple[str, ...] = ()


def opened(settings: Settings) -> Opened:
    """Everything that a process of these settings needs.

    Raises FolderInUse, UnknownSchema, UnusableKey, Exposed, Invalid.
    """
    if settings.part is Part.GATEWAY:
        return _gateway(settings)
    file = auth_of(settings)  # Before anything is made: what cannot work leaves nothing behind.
    store = _store(settings)
    with ExitStack() as failed:  # Whatever it is, the folder is given back.
        failed.callback(store.close)
        services = services_over(store, settings, file)
        warns = ahead(store.last_instant(), services.clock.now())
        if not settings.memory:
            services, warned = with_key(services, settings.data)
            warns += warned
        says = first_start(services, settings)
        services = with_sessions(services)
        program.started(store, services.as_admin(), services.code)
        if isinstance(store, SqlStore):
            store.listen(services.bell.ring)
        failed.pop_all()
    says += (f"journal key {services.journal_key.key_id}",)
    close = _closing(store, settings)
    if settings.bus is None:
        return Opened(app_over(services), says, services.bell.close, close, warns)
    from .relay import Relay  # Its client is not needed without a bus, and may not be installed.

    relay = Relay(services, settings.bus)

    def all_closed() -> None:
        relay.close()
        close()

    return Opened(app_over(services, relay), says, services.bell.close, all_closed, warns)


def _closing(store: MemoryStore | SqlStore, settings: Settings) -> Callable[[], None]:
    """What ends a store, and what moves things out of it."""
    if settings.objects is None or not isinstance(store, SqlStore):
        return store.close
    offload = Offload(store)

    def close() -> None:
        offload.close()
        store.close()

    return close


def _store(settings: Settings) -> MemoryStore | SqlStore:
    if settings.memory:
        return MemoryStore()
    data = made(settings.data)
    held = None if settings.objects is None else objects.at(settings.objects)
    return SqlStore(settings.database or data, objects=held)


def with_key(services: Services, data: Path) -> tuple[Services, tuple[str, ...]]:
    """With the folder's own journal key, made when there is none; and what to warn of.

    Raises UnusableKey.
    """
    key, made = signing.kept(data)
    warns = signing.exposed(data)
    if made and services.store.load(SYSTEM).seq:
        warns += (
            f"this folder has a journal and had no {signing.KEY_FILE}: a new one was made, and "
            f"signs from now on as {key.key_id}. Heads that were signed before, if any, verify "
            "with the public key of then: qmtl journal verify --key.",
        )
    return replace(services, journal_key=key), warns


def with_sessions(services: Services) -> Services:
    """With sessions that are the same at every server of a store and its journal key.

    INVARIANT: it takes both to make one.  Neither a copy of the key nor a backup signs anybody in:
    the hash of the first entry, which holds a token's digest, is known to admins alone.
    """
    (first,) = services.store.chained(SYSTEM, 0, 1)
    secret = services.journal_key.secret("sessions", first.hash)
    return replace(services, sessions=Sessions(Seal(secret)))


def ahead(last: datetime | None, now: datetime) -> tuple[str, ...]:
    """A warning when what is recorded is of later than now: it was written under a replay clock, or
    this machine's clock is wrong."""
    if last is None or last <= now + CLOCK_SKEW_MAX:
        return ()
    return (
        f"what is recorded here reaches to {rfc3339(last)}, and this machine's clock shows "
        f"{rfc3339(now)}: until then new bars are older than those held, and windows, approvals "
        "and cooldowns count from times that have not come. If it was recorded under a replay "
        "clock, serve it with --clock replay, or serve another folder with --data; else set this "
        "machine's clock.",
    )


@dataclass(frozen=True, slots=True)
class Auth:
    """An auth file, and the issuer that it names."""

    file: authfile.AuthFile = field(default_factory=lambda: authfile.AuthFile.of({}))
    issuer: identity.IssuerActors | None = None


def auth_of(settings: Settings) -> Auth:
    """What `--auth` says; without it, the standard.  Raises Invalid."""
    if settings.auth is None:
        return Auth()
    file = authfile.read(settings.auth)
    actors = authfile.actors_of(file, settings.auth, SystemClock(), settings.oidc_secret)
    return Auth(file, actors)


def hosts_of(settings: Settings, named: Sequence[str]) -> frozenset[str] | None:
    """The names a request may call this server by; None: any, where nobody said.

    On loopback they are known: a page of elsewhere, whose name somebody points here, is none.
    """
    if settings.loopback:
        return frozenset({*LOOPBACK, settings.host, *named})
    return frozenset(named) or None


def services_over(
    store: MemoryStore | SqlStore, settings: Settings, auth: Auth | None = None
) -> Services:
    """What the doors share, over a store that is open."""
    auth = auth or Auth()
    dual = not settings.loopback if settings.dual_control is None else settings.dual_control
    clock: Clock = SystemClock()
    replay = None
    if settings.replay:
        at = settings.at or store.last_instant() or clock.now()
        clock = replay = ReplayClock(store, at)
    return Services(
        store=tracing.stored(store),
        clock=clock,
        dual_control=dual,
        replay=replay,
        limiter=Limiter(auth.file.limits.limits()),
        issuer=auth.issuer,
        token_roles=auth.file.roles_of_tokens,
        hosts=hosts_of(settings, auth.file.hosts),
        https=auth.file.https,
    )


def create_app(settings: Settings) -> Starlette:
    """The application alone, for who runs it in another way than `server.run`."""
    return opened(settings).app


def _gateway(settings: Settings) -> Opened:
    if settings.world_url is None:
        raise Invalid("A gateway needs the URL of its world service.")
    file = auth_of(settings).file
    spool = Spool(made(settings.data) / "spool")
    gateway = Gateway(settings.world_url, spool, SystemClock())
    app = app_before(gateway, hosts_of(settings, file.hosts), file.https)
    return Opened(app, (), gateway.close, lambda: None)


def first_start(services: Services, settings: Settings) -> tuple[str, ...]:
    """On an empty store: a credential, and a world to try things out in.  What to say about it.

    Raises Exposed where others could listen in before there is any credential.
    """
    store, by = services.store, services.as_admin()
    if store.load(SYSTEM).tokens:
        return ()
    if not settings.loopback:
        raise Exposed(
            f"It does not listen on {settings.host} before there is a credential: start it once "
            "on 127.0.0.1, and make tokens."
        )
    token = identity.new_token()

    def job() -> tuple[str, ...]:
        store.hold(SYSTEM)
        if store.load(SYSTEM).tokens:  # Another process came first.
            return ()
        says = () if settings.memory else (f"admin token in {_keep(settings.data, token)}",)
        tokens.create(store, by, identity.digest(token), ADMIN, list(Role), None, None)
        if not store.load(SYSTEM).worlds:
            _sandbox(services)
        return says

    return store.write(job)


def _sandbox(services: Services) -> None:
    by, store = services.as_admin(), services.store
    new = worlds.NewWorld(
        world_id=SANDBOX,
        name="Sandbox",
        description="For trying things out, under the packaged sandbox policy.",
        labels={},
        allow_live=False,
    )
    policy = policies.parse(policies.shipped("sandbox"))
    worlds.create(store, by, new, dual_control=False)
    checksum = policies.checksum(policy)
    worlds.add_policy(store, SANDBOX, by, policy, checksum, dual_control=False)


def _keep(data: Path, token: str) -> Path:
    """INVARIANT: the file is there before the store knows the token, so that none is lost."""
    path = data / ADMIN_TOKEN
    path.unlink(missing_ok=True)  # Of a first start that did not come to its end.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_MODE)
    with os.fdopen(descriptor, "w") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(descriptor)
    synced(path.parent)
    return path
