"""Those who act on a simulated world: each takes turns, and asks for things by what it was told."""

from datetime import timedelta
from functools import partial
from typing import Any

from qmtl.core.activation import Change
from qmtl.core.campaign import Action, Page
from qmtl.core.decision import DecisionEnvelope
from qmtl.core.names import ActorId, Digest, Phase, RunId, Stage, StrategyId, WorldState
from qmtl.core.view import WorldView

from . import cast, chaos, policies, returns
from .chaos import CODES, CRASH, SIDS, STATS
from .network import Network, Turn
from .returns import Kind
from .scene import Scene
from .weather import Fault
from .witness import Client

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
ABOUT_A_DECISION = 600  # Seconds: some ask before something happens, some after.
MAKERS = tuple(maker for maker in chaos.MAKERS if maker is not chaos.time_passes)


def everyone(network: Network) -> None:
    """All of them, each about as often as they would."""
    network.every("feed", 6 * HOUR, feed)
    for name in ("loop A", "loop B"):
        network.every(name, 5 * HOUR, loop(name))
    for actor in (cast.PIA, cast.PETE):
        network.every(actor, 6 * HOUR, approver(actor))
    network.every("otto", 7 * HOUR, operator)
    network.every("polly", 12 * HOUR, admin)
    network.every("paul", 9 * HOUR, second_admin)
    network.every("ann", 70 * HOUR, author)
    network.every("mallory", 16 * HOUR, anyone)
    for client in network.clients:
        network.every(client.name, 30 * HOUR, gate(client))


def feed(network: Network) -> None:
    """The bar of the day that ended, of everyone, on paper and live: each day's is what it is."""
    ended = network.now.replace(hour=0, minute=0, second=0, microsecond=0)
    if network.weather.strikes(Fault.SKEW):
        ended += timedelta(minutes=network.rng.randint(-90, 3))
    kind = chaos.mostly_good(network.rng)
    of = {
        sid: returns.bar(kind if n == 0 else Kind.GOOD, network.rng) for n, sid in enumerate(SIDS)
    }
    for stage in (Stage.PAPER, Stage.LIVE):

        def post(scene: Scene, stage: Stage = stage) -> object:
            known = {sid: r for sid, r in of.items() if sid in scene.view.strategies}
            if not known:
                return None
            stress, stats = dict.fromkeys(known, CRASH), dict.fromkeys(known, STATS)
            more = {"stress": stress, "stats": stats, "replay": known}
            return scene.bar(stage, known, at=ended, ttl_sec=86_400, **more)

        network.send("feed", f"bar of {stage}", post)


def loop(name: str) -> Turn:
    """Tick; execute what it recommends, one by one, on whatever the world has become."""

    def turn(network: Network) -> None:
        def told(page: Any) -> None:
            for action in page.actions if isinstance(page, Page) else ():
                does = "act on" if "live" in action.kind else "evaluate"
                command = partial(_executed, action)
                network.send(name, f"{does} {action.strategy_id}", command)

        network.send(name, "tick", lambda s: s.tick(), told)

    return turn


def _executed(action: Action, scene: Scene) -> object:
    return scene.execute(action)


def approver(actor: ActorId) -> Turn:
    """Looks at who stands before the gate, thinks, and signs for the evidence that was seen."""

    def turn(network: Network) -> None:
        def signed(sid: StrategyId, run_id: RunId, seen: Digest) -> bool:
            network.send(actor, f"approve {sid}", lambda s: s.approve(sid, actor, run_id, seen))
            return True

        def told(view: Any) -> None:
            for candidate in view.open_candidates() if isinstance(view, WorldView) else ():
                sid = candidate.strategy_id
                if network.rng.random() < 0.03:
                    network.send(actor, f"reject {sid}", partial(_rejected, sid))
                    continue
                thinks = network.rng.randint(1, 3_000) * SECOND
                sign = partial(signed, sid, candidate.run_id, candidate.evidence)
                network.after(thinks, f"{actor} has thought", sign)

        network.send(actor, "candidates", lambda s: s.view, told)

    return turn


def _rejected(sid: StrategyId, scene: Scene) -> object:
    return scene.reject(sid)


def operator(network: Network) -> None:
    """Applies what was approved; now and then stops something, and starts it again."""

    def told(view: Any) -> None:
        for candidate in view.open_candidates() if isinstance(view, WorldView) else ():
            sid = candidate.strategy_id
            network.send("otto", f"apply {sid}", partial(_applied, sid, candidate.run_id))

    network.send("otto", "candidates", lambda s: s.view, told)
    chance, rng = network.rng.random(), network.rng
    if chance > 0.25:
        return
    ask_around(network)
    sid = rng.choice(SIDS)
    after = rng.randint(0, ABOUT_A_DECISION) * SECOND

    def stop() -> bool:
        if chance < 0.03:
            network.send("otto", "kill", lambda s: s.kill())
        elif chance < 0.14:
            gone = rng.choice(sorted(network.scene.view.live) or [sid])
            network.send("otto", f"demote {gone}", lambda s: s.demote(gone, Phase.PAPER))
            take_over(network)
            network.send("otto", f"release {sid}", lambda s: s.release(sid))
        else:
            change = Change(weight=rng.choice([0.0, 0.01]), freeze=rng.choice([None, True, False]))
            network.send("otto", f"lower {sid}", lambda s: s.lower(sid, change))
        return True

    network.after(after, "otto makes up his mind", stop)


def take_over(network: Network) -> None:
    """Others want the capital, before all clients have let go of it."""
    for candidate in network.scene.view.open_candidates():
        sid, run_id = candidate.strategy_id, candidate.run_id
        span = network.rng.randint(0, ABOUT_A_DECISION) * SECOND

        def ask(sid: StrategyId = sid, run_id: RunId = run_id) -> bool:
            network.send("otto", f"apply {sid}", partial(_applied, sid, run_id))
            return True

        network.after(span, f"otto gives {sid} the capital", ask)


def _applied(sid: StrategyId, run_id: RunId, scene: Scene) -> object:
    return scene.apply(sid, run_id)


def ask_around(network: Network) -> None:
    """Clients ask about now: some hear what was before, some what is after."""
    for client in network.clients:
        for _ in range(2):
            span = network.rng.randint(0, 2 * ABOUT_A_DECISION) * SECOND
            network.after(span, f"{client.name} asks", asks(network, client))


def asks(network: Network, client: Client) -> Any:
    def ask() -> bool:
        asked = network.now

        def told(envelope: Any) -> None:
            if isinstance(envelope, DecisionEnvelope):
                client.hears(envelope, asked)

        network.send(client.name, "ask", lambda s: s.decide(client.strategy_id), told)
        return True

    return ask


def gate(client: Client) -> Turn:
    def turn(network: Network) -> None:
        asks(network, client)()

    return turn


def admin(network: Network) -> None:
    """Opens what was closed, closes what was open, and writes another policy."""
    rng = network.rng
    match rng.randint(0, 15):
        case 0:
            network.send("polly", "allow_live off", lambda s: s.allow_live(False))
        case 1:
            made, name = policies.policy(rng), f"policy {rng.random()}"
            network.send("polly", "add a policy", lambda s: s.add_policy(made, name))
        case 2:
            version = rng.randint(1, 4)
            network.send("polly", "set a default", lambda s: s.set_default(version))
        case _:
            network.send("polly", "activate", lambda s: s.change_state(WorldState.ACTIVE))
            network.send("polly", "resume", lambda s: s.resume(cast.POLLY))
            network.send("polly", "allow_live on", lambda s: s.allow_live(True))


def second_admin(network: Network) -> None:
    """Confirms what the first one asked."""

    def told(view: Any) -> None:
        for key in sorted(view.confirmations) if isinstance(view, WorldView) else ():
            network.send("paul", "confirm", partial(_confirmed, key))

    network.send("paul", "candidates", lambda s: s.view, told)


def _confirmed(key: str, scene: Scene) -> object:
    return scene.confirm(key)


def author(network: Network) -> None:
    """A strategy, as it was or changed."""
    rng = network.rng
    sid, r = rng.choice(SIDS), returns.series(Kind.GOOD, rng.randint(8, 14), rng)
    code, end = rng.choice(CODES), network.now
    network.send(
        "ann",
        f"submit {sid}",
        lambda s: s.submit(sid, r, cast.ANN, STATS, end=end, fingerprint=code),
    )


def anyone(network: Network) -> None:
    """Whatever comes to mind, made for the world as it is now and heard by what it is then."""
    command = network.rng.choice(MAKERS)(network.rng, network.scene)
    network.send("mallory", "anything", command)
