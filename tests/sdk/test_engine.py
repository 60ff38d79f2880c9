"""The engine: its timeline by hand, and what must hold for any weights and any prices."""

from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from qmtl.demo.strategies import main
from qmtl.sdk.engine import Engine
from qmtl.sdk.prices import Prices, PricesError
from qmtl.sdk.strategy import StrategyError

Table = NDArray[np.float64]
FREE = Engine(cost_bps=0)
DEAR = Engine(cost_bps=100)


def prices_of(values: object) -> Prices:
    table = np.array(values, dtype=np.float64)
    days = [date(2020, 1, 1) + timedelta(days=day) for day in range(len(table))]
    times = np.array(days, dtype="datetime64[us]") + np.timedelta64(21, "h")
    return Prices(times, tuple(f"A{column}" for column in range(table.shape[1])), table)


def weights_of(values: object) -> Table:
    return np.array(values, dtype=np.float64)


def test_the_timeline_by_hand() -> None:
    """A doubles from bar 1 to 2 and halves from 2 to 3; B stands still; 1 % costs.

    bar 1: half A, half B is put on (decided on bar 0): 1 is traded, and costs 1 %.
    bar 2: A doubled: +50 %. The weights are now 1/1.5 and .5/1.5. All of A is put on (decided on
           bar 1): 1/3 bought, 1/3 sold, costs 2/3 %.
    bar 3: A halved: -50 %. All of A it stays (decided on bar 2): nothing is traded.
    The weights of bar 3 are never put on.
    """
    prices = prices_of([[1, 1], [1, 1], [2, 1], [1, 1]])
    weights = weights_of([[0.5, 0.5], [1, 0], [1, 0], [0, -1]])

    test = DEAR.backtest(weights, prices)

    assert test.returns == pytest.approx([-0.01, 1.5 * (1 - 0.02 / 3) - 1, -0.5])
    assert list(test.times) == list(prices.times[1:])
    assert test.costs_total == pytest.approx(0.01 + 0.02 / 3)
    assert test.trades_total == 4  # A and B on at bar 1; A up and B off at bar 2.
    assert test.turnover_annual == pytest.approx((1 + 2 / 3) / (3 / 365.25))


def test_a_jump_is_earned_one_bar_after_the_weights_were_put_on() -> None:
    """The price doubles from bar 3 to bar 4: only what was decided on bar 2 earns it."""
    prices = prices_of([[1], [1], [1], [1], [2], [2], [2]])
    for decided in range(7):
        weights = np.zeros((7, 1))
        weights[decided] = 1
        earned = FREE.backtest(weights, prices).returns.sum()
        assert earned == pytest.approx(1.0 if decided == 2 else 0.0), decided


def test_drift_is_traded_back_and_paid_for_but_is_no_trade() -> None:
    prices = prices_of([[1, 1], [1, 1], [3, 1], [3, 1]])
    test = DEAR.backtest(np.full((4, 2), 0.5), prices)
    assert test.returns == pytest.approx([-0.01, 2 * (1 - 0.005) - 1, 0.0])
    assert test.trades_total == 2


def test_a_short_position_drifts_against_its_owner() -> None:
    """Short 50 %, the price rises by half: equity is .75, and so is the position, -1 of it."""
    prices = prices_of([[2], [2], [3], [3]])
    test = DEAR.backtest(np.full((4, 1), -0.5), prices)
    assert test.returns == pytest.approx([-0.005, 0.75 * (1 - 0.01 * 0.5) - 1, 0.0])


CENT = 1e-10


@pytest.mark.parametrize(
    ("weights", "trades"),
    [
        ([0, 0, 0, 0], 0),
        ([1, 1, 1, 1], 1),
        ([0, 0, 1, 1], 1),
        ([0, 0, 0, 1], 0),  # Decided on the last bar: never put on.
        ([1, -1, 1, -1], 3),
        ([1, 1 + CENT, 1, 1], 1),  # Rounding is no decision.
    ],
)
def test_trades(weights: list[float], trades: int) -> None:
    prices = prices_of([[1], [2], [3], [2]])
    assert FREE.backtest(weights_of(weights)[:, np.newaxis], prices).trades_total == trades


def test_two_bars_are_enough_to_pay_and_too_few_to_earn() -> None:
    test = DEAR.backtest(weights_of([[1], [1]]), prices_of([[1], [2]]))
    assert test.returns == pytest.approx([-0.01])


def with_weight(row: int, value: float) -> Table:
    weights = np.full((4, 2), 0.5)
    weights[row, 1] = value
    return weights


PRICES = prices_of([[1, 1], [1, 2], [1, 3], [1, 9]])
# From bar 1 to 2 a short of three times the equity loses 1.5; then 500 are bought, at a cost of 5.
TWO_LOSSES = weights_of([[0, -3], [0, 500], [0, 0], [0, 0]])
BROKEN = [
    ("NaN", with_weight(2, np.nan), StrategyError, "A1 on 2020-01-03T21:00Z is nan"),
    ("infinite", with_weight(1, -np.inf), StrategyError, "A1 on 2020-01-02T21:00Z is -inf"),
    ("NaN on the last bar", with_weight(3, np.nan), StrategyError, "2020-01-04T21:00Z"),
    ("too few rows", np.zeros((3, 2)), StrategyError, r"shape \(3, 2\).*\(4, 2\)"),
    ("too many columns", np.zeros((4, 3)), StrategyError, r"2020-01-01T21:00Z"),
    ("one dimension", np.zeros(4), StrategyError, r"shape \(4,\)"),
    ("ruin by a short", with_weight(1, -1.0), StrategyError, "2020-01-04T21:00Z: -1 of"),
    ("ruin by costs", with_weight(0, 101.0), StrategyError, "2020-01-02T21:00Z: -0.015 of"),
    ("two losses make no gain", TWO_LOSSES, StrategyError, "2020-01-03T21:00Z: -0.5 of"),
    ("absurd leverage", with_weight(1, 1e308), StrategyError, r"2020-01-03T21:00Z: -1.25e\+306 of"),
]


@pytest.mark.parametrize(("case", "weights", "error", "message"), BROKEN, ids=lambda v: str(v)[:20])
def test_what_is_no_backtest_is_refused(
    case: str, weights: Table, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        DEAR.backtest(weights, PRICES)


def test_one_bar_is_too_few() -> None:
    with pytest.raises(PricesError, match="two bars"):
        FREE.backtest(weights_of([[1]]), prices_of([[1]]))


@pytest.mark.parametrize("cost_bps", [-1, np.nan, np.inf])
def test_costs_are_finite_and_not_negative(cost_bps: float) -> None:
    with pytest.raises(ValueError, match="cost_bps"):
        Engine(cost_bps)


# For any weights and prices ----------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn, assets_max: int = 4) -> tuple[Table, Prices]:
    shape = draw(st.tuples(st.integers(2, 8), st.integers(1, assets_max)))
    weight = st.floats(-1 / shape[1], 1 / shape[1], allow_subnormal=False)
    weights = draw(arrays(np.float64, shape, elements=weight))
    growth = draw(arrays(np.float64, shape, elements=st.floats(0.6, 1.6)))
    return weights, prices_of(np.cumprod(growth, axis=0))


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_assets_does_not_matter(
    case: tuple[Table, Prices], random: st.DataObject
) -> None:
    weights, prices = case
    order = list(range(weights.shape[1]))
    random.shuffle(order)
    other = Prices(prices.times, tuple(prices.assets[at] for at in order), prices.values[:, order])
    one, two = DEAR.backtest(weights, prices), DEAR.backtest(weights[:, order], other)
    assert one.returns == pytest.approx(two.returns, abs=1e-14)
    assert one.costs_total == pytest.approx(two.costs_total)
    assert one.turnover_annual == pytest.approx(two.turnover_annual)
    assert one.trades_total == two.trades_total


@given(cases())
def test_nothing_held_is_nothing_earned(case: tuple[Table, Prices]) -> None:
    weights, prices = case
    test = DEAR.backtest(np.zeros_like(weights), prices)
    assert not test.returns.any()
    assert (test.turnover_annual, test.trades_total, test.costs_total) == (0, 0, 0)


@given(cases(assets_max=1))
def test_one_asset_held_earns_its_own_return_after_delay_and_entry(
    case: tuple[Table, Prices],
) -> None:
    weights, prices = case
    test = DEAR.backtest(np.ones_like(weights), prices)
    held = prices.values[-1, 0] / prices.values[1, 0]
    assert np.prod(1 + test.returns) == pytest.approx(0.99 * held)
    assert test.trades_total == 1


@given(cases())
def test_more_bars_never_change_a_return(case: tuple[Table, Prices]) -> None:
    weights, prices = case
    whole = DEAR.backtest(weights, prices).returns
    for bars in range(2, prices.bars):
        head = Prices(prices.times[:bars], prices.assets, prices.values[:bars])
        assert np.array_equal(DEAR.backtest(weights[:bars], head).returns, whole[: bars - 1])


@given(cases())
@settings(max_examples=50)
def test_costs_only_take(case: tuple[Table, Prices]) -> None:
    weights, prices = case
    free, dear = FREE.backtest(weights, prices), DEAR.backtest(weights, prices)
    assert (dear.returns <= free.returns).all()
    assert dear.costs_total == pytest.approx(
        0.01 * free.turnover_annual * (prices.bars - 1) / 365.25
    )


@given(cases())
def test_the_engine_agrees_with_a_book_of_shares(case: tuple[Table, Prices]) -> None:
    """The same rules told the long way: positions in money, one bar after another."""
    weights, prices = case
    equity = 1.0
    position = np.zeros(weights.shape[1])
    for bar in range(1, prices.bars):
        before = equity
        gain = position * (prices.values[bar] / prices.values[bar - 1] - 1)
        position = position + gain
        equity += gain.sum()
        target = weights[bar - 1]
        paid = 0.01 * np.abs(target * equity - position).sum()
        equity -= paid
        position = target * equity
        answer = DEAR.backtest(weights, prices).returns[bar - 1]
        assert answer == pytest.approx(equity / before - 1, abs=1e-12)


# On real prices -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sharpes"),
    [([], "1.43 0.83 -0.09 0.00"), (["--cost-bps", "0"], "2.24 1.42 0.54 0.77")],
)
def test_the_demo_prints_what_its_docstring_says(
    arguments: list[str],
    sharpes: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["strategies", *arguments])
    main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line]
    assert len(rows) == 1 + 10 * 4
    assert " ".join(row[3] for row in rows if row[0] == "yesterdays-losers") == sharpes


def test_bars_of_any_length_earn_the_same_and_turn_over_by_the_year() -> None:
    daily = prices_of([[100], [110], [99], [120], [60]])
    minutes = Prices(
        daily.times[0] + np.arange(5) * np.timedelta64(1, "m"), daily.assets, daily.values
    )
    weights = weights_of([[1], [-0.5], [0.25], [1], [0]])
    slow, fast = DEAR.backtest(weights, daily), DEAR.backtest(weights, minutes)
    assert np.array_equal(slow.returns, fast.returns)
    assert fast.trades_total == slow.trades_total
    assert fast.turnover_annual == pytest.approx(slow.turnover_annual * 24 * 60)
