"""`Runner.submit(strategy, world=...)`: the author's only door.  There is no mode argument.

The SDK runs the backtest, looks for look-ahead, and sends what it found; the world decides in which
stage the strategy may run.  Its own figures are advice, the world's answer is authority.
"""

import copy
from dataclasses import asdict
from typing import Any

import numpy as np

from qmtl.adapters.client import Answer, ApiError, Away, Client
from qmtl.core.metrics import Undefined, performance
from qmtl.core.names import Phase, Reason, Verdict
from qmtl.sdk import spool
from qmtl.sdk.decisions import BadDecision, Held, envelope_of, monotonic
from qmtl.sdk.engine import YEAR, Backtest, Engine
from qmtl.sdk.follow import follow
from qmtl.sdk.lookahead import Leak, find_leak
from qmtl.sdk.prices import Prices, stamp
from qmtl.sdk.result import Precheck, SubmitResult, WorldAnswer
from qmtl.sdk.strategy import Strategy, fingerprint, name_of, weights_of

ENGINE = Engine()
HISTORY_YEARS_MIN = 2.0  # What the policy that comes with qmtl asks of a backtest.
TRADES_MIN = 30
SHARPE_SUSPICIOUS = 3.0  # Above it, a leak or a missing cost is likelier than skill.
ID_DIGEST_HEX = 8


class StrategyRejected(Exception):
    """The look-ahead check stopped the submission; nothing was sent.  `leak` says where."""

    def __init__(self, leak: Leak) -> None:
        super().__init__(leak.message)  # It names the date.
        self.leak = leak


class Runner:
    """Submits strategies."""

    @staticmethod
    def submit(
        strategy: Strategy,
        *,
        world: str,
        prices: Prices,
        engine: Engine = ENGINE,
        strategy_id: str | None = None,
        variants_tried: int | None = None,
        client: Client | None = None,
    ) -> SubmitResult:
        """Backtest, check, send; what the SDK advises and what the world decided.

        strategy_id     by default the strategy's name.  One id stands for one fingerprint: changed
                        code, parameters, data or engine go in under an id of their own
        variants_tried  how many variants of it were looked at, this one included
        client          by default one from QMTL_URL and QMTL_TOKEN

        Raises StrategyRejected for a leak, with nothing sent; StrategyError or PricesError for what
        cannot be backtested; ApiError when the server refuses the submission.  When nobody answers
        it is kept on disk (`spool.py`), and the result is compute-only.
        """
        told = fingerprint(strategy, prices.digest(), engine)  # Before it runs, and remembers.
        leak = find_leak(strategy, prices)
        if leak is not None:
            raise StrategyRejected(leak)
        found = engine.backtest(weights_of(copy.deepcopy(strategy), prices), prices)
        precheck = _precheck(found, prices, engine, variants_tried)
        submission = {
            "strategy_id": strategy_id or name_of(strategy),
            "world": world,
            "name": name_of(strategy),
            "fingerprint": told.digest,
            "returns": {"t": _times(found), "r": found.returns.tolist()},
            "variants_tried": variants_tried,
            "engine": {"name": type(engine).__name__, **asdict(engine), "prices": prices.digest()},
            "stats": {
                "trades_total": float(found.trades_total),
                "turnover_annual": found.turnover_annual,
            },
        }
        if client is not None:
            return _sent(client, submission, precheck)
        with Client() as own:
            return _sent(own, submission, precheck)

    @staticmethod
    def flush(client: Client | None = None) -> list[spool.Flushed]:
        """Sends what was kept while the world was away; what became of each.

        Each has effect once, however often and from however many processes this is called.
        """
        if client is not None:
            return spool.flush(client)
        with Client() as own:
            return spool.flush(own)

    follow = staticmethod(follow)


def _sent(client: Client, submission: dict[str, Any], precheck: Precheck) -> SubmitResult:
    world, strategy_id = submission["world"], submission["strategy_id"]
    asked_at = monotonic()
    kept = None
    answer: WorldAnswer | None = None
    try:
        told = client.submit(submission)
    except Away:
        kept = spool.keep(client, submission)
        decision = Held(None, asked_at, Reason.WORLDSERVICE_AWAY)
    except ApiError as error:
        if error.status == 409:
            short = submission["fingerprint"].removeprefix("sha256:")[:ID_DIGEST_HEX]
            error.add_note(f"For other code, submit it as {strategy_id}-{short}.")
        raise
    else:
        decision = _decision(told, world, strategy_id, asked_at)
        answer = _answer(told, decision)
    return SubmitResult(
        strategy_id=strategy_id,
        world_id=world,
        fingerprint=submission["fingerprint"],
        precheck=precheck,
        world=answer,
        decision=decision,
        spooled=kept,
    )


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
            run_id=told.get("run_id"),
            verdict=None if verdict is None else Verdict(verdict),
            reasons=tuple(map(str, told.get("reasons") or ())),
            details=tuple(map(str, told.get("details") or ())),
            phase=None if phase is None else Phase(phase),
            envelope=decision.envelope,
            warnings=tuple(map(str, told.get("warnings") or ())),
        )
    except ValueError as error:
        raise ApiError(200, "Not an answer of qmtl", str(error)) from error


def _times(found: Backtest) -> list[str]:
    return [f"{text}Z" for text in np.datetime_as_string(found.times, unit="us")]


def _precheck(found: Backtest, prices: Prices, engine: Engine, variants: int | None) -> Precheck:
    years = float((prices.times[-1] - prices.times[0]) / YEAR)
    periods_per_year = (prices.bars - 1) / years
    metrics = performance(found.returns, periods_per_year)
    sharpe = metrics["sharpe_annual"]
    unknown = [name for name, value in metrics.items() if isinstance(value, Undefined)]
    checks = (
        (
            years >= HISTORY_YEARS_MIN,
            f"{years:.1f} years of history; worlds often ask for {HISTORY_YEARS_MIN:g} or more",
        ),
        (
            found.trades_total >= TRADES_MIN,
            f"{found.trades_total} trades say little; worlds often ask for {TRADES_MIN} or more",
        ),
        (
            isinstance(sharpe, Undefined) or sharpe <= SHARPE_SUSPICIOUS,
            f"a Sharpe ratio above {SHARPE_SUSPICIOUS:g} is a leak or a missing cost more often "
            "than skill",
        ),
        (engine.cost_bps > 0, "the engine trades at no cost; no market does"),
        (
            variants is not None,
            "variants_tried was not said; the world assumes the number in its policy",
        ),
        (not unknown, f"undefined here: {', '.join(unknown)}"),
    )
    return Precheck(
        metrics=metrics,
        periods_per_year=periods_per_year,
        bars=prices.bars,
        first=stamp(prices.times[0]),
        last=stamp(prices.times[-1]),
        trades_total=found.trades_total,
        turnover_annual=found.turnover_annual,
        costs_total=found.costs_total,
        warnings=tuple(warning for holds, warning in checks if not holds),
    )
