"""`Runner.submit(strategy, world=...)`: the author's only door.  There is no mode argument.

The SDK runs the backtest, checks it, and sends what it found; the world decides in which stage the
strategy may run.  Its own figures are advice, the world's answer is authority.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from qmtl.adapters.client import NOT_QMTL, Answer, ApiError, Away, Client
from qmtl.adapters.workers import Place
from qmtl.core.names import Phase, Reason, Verdict
from qmtl.sdk import examination, spool, sweep
from qmtl.sdk.checks import Finding, StrategyRejected
from qmtl.sdk.decisions import BadDecision, Held, envelope_of, monotonic
from qmtl.sdk.demands import demands_of
from qmtl.sdk.engine import Engine
from qmtl.sdk.examination import Examination, Progress
from qmtl.sdk.follow import follow
from qmtl.sdk.prices import as_prices
from qmtl.sdk.result import Precheck, SubmitResult, WorldAnswer
from qmtl.sdk.returns import as_returns
from qmtl.sdk.strategy import HasWeights, Strategy, StrategyError
from qmtl.sdk.sweep import SweepResult

__all__ = ["ENGINE", "Progress", "Runner", "StrategyRejected"]

ENGINE = Engine()
# What a refusal of changed history means, by where the returns were made.
RESTATED = (
    "Other returns are held for the same times. Give version=... for changed code or restated"
    " history: that is a new version with a new campaign."
)
NOT_THE_SAME = (
    "The same code, parameters, data and engine gave other returns before, most likely with other"
    " versions of their libraries: submit from where it was submitted first."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What `Runner.submit` was asked, but for the world."""

    given: object
    prices: object
    engine: Engine
    strategy_id: str | None
    variants_tried: int | None
    version: str | None
    stats: Mapping[str, float] | None


class Runner:
    """Submits strategies."""

    @staticmethod
    def submit(
        strategy: Strategy | object,
        *,
        world: str,
        prices: object = None,
        engine: Engine = ENGINE,
        strategy_id: str | None = None,
        variants_tried: int | None = None,
        version: str | None = None,
        stats: Mapping[str, float] | None = None,
        client: Client | None = None,
        progress: Progress | None = None,
    ) -> SubmitResult:
        """Backtest, check, send; what the SDK advises and what the world decided.

        strategy        a strategy, or the net returns of one that runs elsewhere: `Returns` or
                        what `as_returns` takes
        prices          what a strategy is tested on: `Prices` or what `as_prices` takes
        strategy_id     by default the strategy's name; returns need one. Changed code, parameters,
                        data or engine under a known id are a new version of it
        variants_tried  how many variants of it were looked at, this one included
        version         of returns, whose code is not here: any word. Another word is another
                        version; more bars under the same are the same strategy, later
        stats           of returns: `trades_total`, `turnover_annual`, which they do not tell
        client          by default one from QMTL_URL and QMTL_TOKEN
        progress        called with what is computed, how much is done, and of how much

        What was kept while the world was away is sent first. When nobody answers this is kept, too
        (`spool.py`), and the result is compute-only.

        Raises StrategyRejected for what stops a submission, with nothing sent; StrategyError,
        PricesError or ReturnsError for what cannot be tested; ApiError when the server refuses the
        submission; NotKept when nobody answers and it cannot be kept either.
        """
        asked = _Asked(
            given=strategy,
            prices=prices,
            engine=engine,
            strategy_id=strategy_id,
            variants_tried=variants_tried,
            version=version,
            stats=stats,
        )
        tell = progress or _silent
        with _connected(client) as server:
            if _is_strategy(strategy):
                found, meant = _of_strategy(asked, server, world, tell), NOT_THE_SAME
            else:
                found, meant = _of_returns(asked, server, world), RESTATED
            tell("send", 0, 1)
            result = _sent(server, world, found, meant)
            tell("send", 1, 1)
            return result

    @staticmethod
    def sweep(
        strategy: Callable[..., Strategy],
        grid: Mapping[str, Iterable[Any]],
        *,
        world: str,
        prices: object,
        engine: Engine = ENGINE,
        metric: str = "sharpe_annual",
        executor: Place | None = None,
        strategy_id: str | None = None,
        variants_before: int = 0,
        client: Client | None = None,
        progress: Progress | None = None,
        submit: bool = True,
    ) -> SweepResult:
        """Test every variant of a grid, choose the best, submit it with the number tried.

        strategy         a class, or any function, that makes a strategy of one keyword a parameter
        grid             the values of each parameter; every combination is a variant
        metric           by which to choose: the highest, the lowest where less is better
        executor         any of `concurrent.futures`, where to test them; by default processes, one
                         a core; a script then calls this under `if __name__ == "__main__":`,
                         since each of them imports it
        variants_before  how many were looked at before, in other sweeps or by hand
        submit           False: choose only, and send nothing

        The others as `submit` takes them. Raises what it raises, and StrategyError for a grid that
        cannot be tried, or of which no variant has the metric.
        """
        tell, table = progress or _silent, as_prices(prices)
        found = sweep.explore(
            strategy,
            grid,
            prices=table,
            engine=engine,
            metric=metric,
            executor=executor,
            variants_before=variants_before,
            tell=tell,
        )
        if not submit:
            return found
        submission = Runner.submit(
            strategy(**found.chosen.parameters),
            world=world,
            prices=table,
            engine=engine,
            strategy_id=strategy_id,
            variants_tried=found.tried,
            client=client,
            progress=progress,
        )
        return replace(found, submission=submission)

    @staticmethod
    def flush(client: Client | None = None) -> list[spool.Flushed]:
        """Sends what was kept while the world was away; what became of each.

        Each has effect once, however often and from however many processes this is called.
        """
        with _connected(client) as server:
            return spool.flush(server)

    follow = staticmethod(follow)


def _silent(what: str, done: int, total: int) -> None:
    """Nobody wants to know."""


def _connected(client: Client | None) -> AbstractContextManager[Client]:
    """The caller's client, left open; or one of our own, closed after the block."""
    return Client() if client is None else nullcontext(client)


# ---- What is submitted -----------------------------------------------------------------------


def _is_strategy(given: object) -> TypeGuard[Strategy]:
    return isinstance(given, HasWeights) or callable(given)


def _of_strategy(asked: _Asked, client: Client, world: str, tell: Progress) -> Examination:
    assert _is_strategy(asked.given), "asked before"
    if asked.prices is None:
        raise StrategyError("a strategy is tested on prices: give prices=...")
    if asked.version is not None or asked.stats is not None:
        raise StrategyError(
            "version and stats are of returns made elsewhere: what version a strategy is, its code"
            " says, and its trades are counted"
        )
    return examination.of_strategy(
        asked.given,
        as_prices(asked.prices),
        asked.engine,
        strategy_id=asked.strategy_id,
        variants_tried=asked.variants_tried,
        demands=demands_of(client, world),
        tell=tell,
    )


def _of_returns(asked: _Asked, client: Client, world: str) -> Examination:
    if asked.prices is not None or asked.engine is not ENGINE:
        raise StrategyError(
            f"a {type(asked.given).__name__} has no weights(prices), so it is no strategy; prices"
            " and engine are for those, and returns come without them"
        )
    if asked.strategy_id is None:
        raise StrategyError("returns do not say whose they are: give strategy_id=...")
    return examination.of_returns(
        as_returns(asked.given),
        strategy_id=asked.strategy_id,
        version=asked.version or "",
        stats=asked.stats or {},
        variants_tried=asked.variants_tried,
        demands=demands_of(client, world),
    )


# ---- Sending ---------------------------------------------------------------------------------


def _sent(client: Client, world: str, found: Examination, meant: str) -> SubmitResult:
    """`meant`: what to say when the world holds other returns already."""
    submission = found.submission(world)
    flushed = _flushed(client, submission)
    asked_at = monotonic()
    try:
        told = client.submit(submission)
        resolved = spool.taken_as(told)
    except Away:
        return SubmitResult(
            strategy_id=found.strategy_id,
            world_id=world,
            fingerprint=found.fingerprint.digest,
            precheck=found.precheck,
            world=None,
            decision=Held(None, asked_at, Reason.WORLDSERVICE_AWAY),
            spooled=spool.keep(client, submission),
            flushed=flushed,
        )
    except ApiError as error:
        if Reason.EVIDENCE_CHANGED in error.reasons:
            error.add_note(meant)
        raise
    version, changed = _read(told, "version", int), _texts(told, "changed")
    decision = _decision(told, world, resolved, asked_at)
    return SubmitResult(
        strategy_id=resolved,
        world_id=world,
        fingerprint=found.fingerprint.digest,
        precheck=_with_hint(found.precheck, version, changed),
        world=_answer(told, decision),
        decision=decision,
        version=version,
        previous=_read(told, "previous", str),
        changed=changed,
        flushed=flushed,
    )


def _flushed(client: Client, submission: Mapping[str, Any]) -> tuple[spool.Flushed, ...]:
    """What was kept for this server is sent first; what is kept for others is no news here."""
    try:
        done = spool.flush(client, besides=submission)
    except OSError as error:  # A broken spool keeps nothing from a world that answers.
        return (spool.Flushed("?", "?", "waiting", f"{spool.folder()}: {error.strerror}"),)
    return tuple(each for each in done if each.outcome != "elsewhere")


def _with_hint(precheck: Precheck, version: int | None, changed: tuple[str, ...]) -> Precheck:
    if changed != ("data",) or version is None:
        return precheck
    hint = Finding(
        "only_data_changed",
        "advice",
        f"the code is the same as version {version - 1}; on other prices it starts anew",
        "to go on with it on new bars use qmtl follow",
    )
    return replace(precheck, findings=(hint, *precheck.findings))


def _read(told: Answer, name: str, kind: type) -> Any:
    """A value of the answer, None when there is none.  Raises ApiError for one of another kind."""
    value = told.get(name)
    if value is not None and type(value) is not kind:  # Not isinstance: True is no version.
        raise ApiError(200, NOT_QMTL, f"{name} is {value!r}")
    return value


def _texts(told: Answer, name: str) -> tuple[str, ...]:
    return tuple(map(str, _read(told, name, list) or ()))


def _decision(told: Answer, world: str, strategy_id: str, asked_at: float) -> Held:
    try:
        return Held(envelope_of(told.get("decision"), world, strategy_id), asked_at)
    except BadDecision as error:
        return Held(None, asked_at, f"{Reason.DECISION_MISSING}: {error}")


def _answer(told: Answer, decision: Held) -> WorldAnswer:
    """Raises ApiError for words that no world says."""
    verdict, phase = told.get("verdict"), told.get("phase")
    try:
        return WorldAnswer(
            run_id=_read(told, "run_id", str),
            verdict=None if verdict is None else Verdict(verdict),
            reasons=_texts(told, "reasons"),
            details=_texts(told, "details"),
            phase=None if phase is None else Phase(phase),
            envelope=decision.envelope,
            warnings=_texts(told, "warnings"),
            explanation=_read(told, "explanation", dict) or {},
        )
    except ValueError as error:
        raise ApiError(200, NOT_QMTL, str(error)) from error
