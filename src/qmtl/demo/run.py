"""`qmtl demo`: strategies on real prices go from backtest to paper to live, and some do not.

A server of its own, on a clock that replays, and everyone's credentials; backtests to the end of
2002, then five years day by day. What happened is told from the server's own answers and journal.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from qmtl.adapters.client import URL_DEFAULT, Client
from qmtl.demo import us_large_caps
from qmtl.demo.replay import AFTER_THE_CLOSE, WORLD, Desk, govern, moment, replay
from qmtl.demo.report import Story, told, write
from qmtl.demo.strategies import VARIANTS, strategies
from qmtl.sdk.engine import Backtest, Engine
from qmtl.sdk.prices import Prices
from qmtl.sdk.runner import Runner, StrategyRejected
from qmtl.sdk.strategy import HasWeights, name_of, weights_of

FITTED_UNTIL = date(1997, 12, 31)
BACKTEST_UNTIL = date(2002, 12, 31)
REPLAY_UNTIL = date(2007, 12, 31)
READY = "listening on "
MARK = ".qmtl-demo"  # In a folder that the demo made, and so may empty.


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    admin_token: str
    process: subprocess.Popen[str]


def main(out: Path, *, serve: bool = False, port: int = 0, until: date = REPLAY_UNTIL) -> int:
    """Play the demo up to a day; results in `out`. With `serve` the server stays up after it."""
    console = Console()
    data = _fresh(out / "data")
    prices = us_large_caps().between(date(1990, 1, 1), until)
    known = prices.between(date(1990, 1, 1), BACKTEST_UNTIL)
    began = moment(known.times[-1])
    with ExitStack() as opened:
        server = opened.enter_context(_server(data, began, port))
        desk = _desk(server, opened)
        console.print(
            f"A world of its own at {server.url}: backtests on {len(known.times):,} days to "
            f"{BACKTEST_UNTIL}, then every day to {until}.\n"
        )
        story = _play(desk, prices, known, began, console)
        told(story, console)
        write(story, out)
        console.print(f"\nsummary.json, timeline.txt and the server's data are in {out}.")
        where = server.url if serve else URL_DEFAULT
        if not serve:
            command = sys.argv[0] if Path(sys.argv[0]).name == "qmtl" else "qmtl"
            console.print(
                f"To look at it in a browser: {command} serve --data {data} --clock replay"
            )
        console.print(f"[link]{where}/ui/worlds/{WORLD}[/link]", soft_wrap=True)
        console.print(f"The token to sign in with is in {data}/admin.token.")
        if serve:
            console.print("The server stays up; Ctrl-C ends it.")
            _until_interrupted(server.process)
    return 0


def _play(desk: Desk, prices: Prices, known: Prices, began: datetime, console: Console) -> Story:
    backtests: dict[str, Backtest] = {}
    stopped: dict[str, str] = {}
    candidates = strategies(prices.between(date(1990, 1, 1), FITTED_UNTIL))
    days = sum(began < moment(t) for t in prices.times)
    with _progress(console) as progress:
        task = progress.add_task("backtest and submit", total=len(candidates))
        for strategy in candidates:
            name = name_of(strategy)
            try:
                Runner.submit(
                    strategy,
                    world=WORLD,
                    prices=known,
                    strategy_id=name,
                    variants_tried=VARIANTS if name == f"best-of-{VARIANTS}" else 1,
                    client=desk.author,
                )
                backtests[name] = _whole(strategy, prices)
            except StrategyRejected as leak:
                stopped[name] = str(leak)
            progress.advance(task)
        govern(desk)
        task = progress.add_task("replay, day by day", total=days)
        traded = replay(
            desk,
            backtests,
            began,
            moment(prices.times[-1]) + AFTER_THE_CLOSE,
            _told_by_year(console, lambda: progress.advance(task)),
        )
    return Story(
        names=tuple(name_of(strategy) for strategy in candidates),
        stopped=stopped,
        traded=traded,
        statuses={s["strategy_id"]: s for s in desk.admin.status(WORLD)["strategies"]},
        envelopes={e["strategy_id"]: e for e in desk.admin.decide(WORLD)},
        backtests={
            sid: [(moment(t), float(r)) for t, r in zip(b.times, b.returns, strict=True)]
            for sid, b in backtests.items()
        },
        began=began,
        journal=tuple(desk.admin.journal(WORLD)),
    )


def _told_by_year(console: Console, advance: Callable[[], None]) -> Callable[[datetime], None]:
    """Advances the bar; where there is no terminal to draw one on, a line a year."""
    told: set[int] = set()

    def day(at: datetime) -> None:
        advance()
        if not console.is_terminal and at.year not in told:
            told.add(at.year)
            console.print(f"replaying {at.year} ...")

    return day


def _whole(strategy: HasWeights, prices: Prices) -> Backtest:
    return Engine().backtest(weights_of(strategy, prices), prices)


def _desk(server: Server, opened: ExitStack) -> Desk:
    """Makes the world, its policy, and a credential for everyone."""
    admin = opened.enter_context(Client(server.url, server.admin_token))

    def hired(actor: str, *roles: str) -> Client:
        made = admin.create_token(actor=actor, roles=roles, world=WORLD)
        return opened.enter_context(Client(server.url, made["token"]))

    admin.create_world(WORLD, name="US large caps", allow_live=True)
    policy = files("qmtl.demo").joinpath("policy.yaml").read_text()
    admin.add_policy(WORLD, policy)
    return Desk(
        admin=admin,
        author=hired("ana", "author"),
        producer=hired("desk", "producer"),
        loop=hired("loop", "operator"),
        approvers=(hired("rita", "approver"), hired("omar", "approver")),
    )


@contextmanager
def _server(data: Path, at: datetime, port: int) -> Iterator[Server]:
    """A real `qmtl serve` on loopback and a replay clock; stopped on the way out."""
    command = [sys.executable, "-m", "qmtl", "serve", "--data", str(data), "--host", "127.0.0.1"]
    command += ["--port", str(port), "--clock", "replay"]
    command += ["--at", at.astimezone(UTC).isoformat()]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("QMTL_")}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None, "asked for a pipe"
        for line in process.stdout:
            if READY in line:
                url = line.split(READY, 1)[1].split()[0]
                token = (data / "admin.token").read_text().strip()
                yield Server(url, token, process)
                return
        raise SystemExit(f"the demo's server did not start (exit code {process.wait()})")
    finally:
        process.terminate()
        process.wait(timeout=10)
        if process.stdout is not None:
            process.stdout.close()


def _until_interrupted(process: subprocess.Popen[str]) -> None:
    try:
        process.wait()
    except KeyboardInterrupt:
        return


def _fresh(folder: Path) -> Path:
    """An empty folder; one that an earlier demo made is emptied, any other is left alone."""
    if folder.exists() and not (folder / MARK).exists():
        raise SystemExit(f"{folder} exists and no demo made it; name another --out.")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    (folder / MARK).touch()
    return folder


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
