"""Frames: what a strategy is given, what it may answer, and that its library does not matter."""

import functools
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Optional

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.typing import ArrayLike, NDArray

from qmtl.sdk.engine import Engine
from qmtl.sdk.frames import given, wanted
from qmtl.sdk.prices import Prices
from qmtl.sdk.strategy import Strategy, StrategyError, weights_of

Table = NDArray[np.float64]
DAILY = np.timedelta64(1, "D")
MINUTE = np.timedelta64(1, "m")
FIRST = np.datetime64("2020-01-01T21:00", "us")


def walk(bars: int, assets: int, bar: np.timedelta64) -> Prices:
    moves = np.random.default_rng(11).normal(0.0002, 0.01, size=(bars, assets))
    names = tuple("ABCDEFGHIJ"[:assets])
    return Prices(FIRST + np.arange(bars) * bar, names, 100 * np.exp(np.cumsum(moves, axis=0)))


WALK = walk(60, 3, DAILY)
ONE = walk(60, 1, MINUTE)


# One strategy in three libraries ------------------------------------------------------------------


@dataclass(frozen=True)
class ReversionNumpy:
    """Sells what is above its average, buys what is below."""

    window: int = 20

    def weights(self, prices: Table) -> Table:
        average = np.full_like(prices, np.nan)
        for bar in range(self.window - 1, len(prices)):
            average[bar] = prices[bar + 1 - self.window : bar + 1].mean(axis=0)
        return np.nan_to_num((1 - prices / average).clip(-0.2, 0.2))


@dataclass(frozen=True)
class ReversionPandas:
    window: int = 20

    def weights(self, prices: pd.DataFrame) -> pd.DataFrame:
        return (1 - prices / prices.rolling(self.window).mean()).clip(-0.2, 0.2).fillna(0)


@dataclass(frozen=True)
class ReversionPolars:
    window: int = 20

    def weights(self, prices: pl.DataFrame) -> pl.DataFrame:
        price = pl.all().exclude("time")
        weight = -(price / price.rolling_mean(self.window) - 1).clip(-0.2, 0.2)
        return prices.with_columns(weight.fill_null(0))


@pytest.mark.parametrize("assets", [1, 7])
@pytest.mark.parametrize("bar", [DAILY, MINUTE])
def test_one_strategy_earns_the_same_in_every_library(assets: int, bar: np.timedelta64) -> None:
    prices = walk(400, assets, bar)

    def earned(strategy: Strategy) -> Table:
        return Engine().backtest(weights_of(strategy, prices), prices).returns

    expected = earned(ReversionNumpy())
    assert expected.std() > 0
    weights = weights_of(ReversionNumpy(), prices)
    assert weights.min() < 0 < weights.max()  # Long and short.
    for strategy in (ReversionPandas(), ReversionPolars()):
        assert np.abs(earned(strategy) - expected).max() < 1e-12


# What a strategy wants ----------------------------------------------------------------------------


def takes_numpy(prices: np.ndarray) -> object: ...
def takes_table(prices: Table) -> object: ...
def takes_numbers(prices: "NDArray[np.float64]") -> object: ...
def takes_anything(prices: Any) -> object: ...
def takes_something_like_an_array(prices: ArrayLike) -> object: ...
def takes_what_comes(prices): ...  # type: ignore[no-untyped-def]  # That is the case.
def takes_all(*prices: pl.DataFrame) -> object: ...
def takes_nothing() -> object: ...
def takes_pandas(prices: pd.DataFrame, window: int = 3) -> object: ...
def takes_polars(prices: pl.DataFrame) -> object: ...
def quotes_polars(prices: "pl.DataFrame") -> object: ...
def maybe_pandas(prices: Optional["pd.DataFrame"] = None) -> object: ...
def noted_polars(prices: Annotated[pl.DataFrame, "closes"]) -> object: ...
def window_first(window: int, prices: pd.DataFrame) -> object: ...


@functools.wraps(takes_pandas)
def wraps_pandas(*args: object) -> object: ...


class OwnFrame(pd.DataFrame):
    pass


def takes_own(prices: OwnFrame) -> object: ...


class Called:
    def __call__(self, prices: pl.DataFrame) -> object: ...


class CallsQuoted:
    def __call__(self, prices: "pl.DataFrame") -> object: ...


class Declares:
    frame = "polars"

    def weights(self, prices: pd.DataFrame) -> object: ...


class DeclaresNumpy(Declares):
    frame = "numpy"


def declares(prices: object) -> object: ...


declares.frame = "pandas"  # type: ignore[attr-defined]  # How a function declares it.


def declared_of(function: Callable[..., object], frame: object) -> Callable[..., object]:
    bound = functools.partial(function)
    bound.frame = frame  # type: ignore[attr-defined]  # How a partial declares it.
    return bound


WANTED = [
    (takes_numpy, "numpy"),
    (takes_table, "numpy"),
    (takes_numbers, "numpy"),
    (takes_anything, "numpy"),
    (takes_something_like_an_array, "numpy"),
    (takes_what_comes, "numpy"),
    (takes_nothing, "numpy"),
    (np.sign, "numpy"),
    (max, "numpy"),
    (takes_all, "polars"),
    (takes_pandas, "pandas"),
    (takes_polars, "polars"),
    (quotes_polars, "polars"),
    (maybe_pandas, "pandas"),
    (noted_polars, "polars"),
    (takes_own, "pandas"),
    (wraps_pandas, "pandas"),
    (Called(), "polars"),
    (CallsQuoted(), "polars"),
    (ReversionPandas().weights, "pandas"),
    (functools.partial(takes_pandas, window=3), "pandas"),
    (functools.partial(window_first, 3), "pandas"),
    (functools.partial(quotes_polars), "polars"),
    (functools.partial(ReversionPolars().weights), "polars"),
    (Declares().weights, "polars"),
    (DeclaresNumpy().weights, "numpy"),
    (declares, "pandas"),
    (functools.partial(declares), "pandas"),
    (declared_of(takes_pandas, "polars"), "polars"),
]


@pytest.mark.parametrize(("weights", "kind"), WANTED)
def test_what_a_function_of_prices_wants(weights: Callable[..., object], kind: str) -> None:
    assert wanted(weights, weights) == kind


@pytest.mark.parametrize(
    ("strategy", "kind"),
    [
        (ReversionNumpy(), "numpy"),
        (ReversionPandas(), "pandas"),
        (ReversionPolars(), "polars"),
        (Declares(), "polars"),
        (DeclaresNumpy(), "numpy"),
    ],
)
def test_what_an_object_wants(strategy: Any, kind: str) -> None:
    assert wanted(strategy, strategy.weights) == kind


HEADS = {
    "at hand": """
import {library}
import {library} as lib
from {library} import DataFrame as Frame
""",
    "later": """
from __future__ import annotations
import {library}
import {library} as lib
from {library} import DataFrame as Frame
""",
    "for types only": """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import {library}
    import {library} as lib
    from {library} import DataFrame as Frame
""",
}
BODY = """
from dataclasses import dataclass
from functools import partial

def function(prices: lib.DataFrame): ...
def imported(prices: Frame): ...
def in_full({prices}): ...
def optional(prices: Frame | None): ...
def quoted(prices: "lib.DataFrame"): ...

@dataclass
class Strategy:
    window: int = 3
    def weights(self, prices: lib.DataFrame): ...
    def __call__(self, prices: Frame): ...

method = Strategy().weights
called = Strategy()
bound = partial(function)
"""
NAMES = ("function", "imported", "in_full", "optional", "quoted", "method", "called", "bound")


@pytest.mark.parametrize("library", ["pandas", "polars", "numpy"])
@pytest.mark.parametrize("head", HEADS)
def test_annotations_are_read_however_they_are_written(
    library: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = BODY.format(prices=f"prices: {library}.DataFrame")
    text = (HEADS[head].format(library=library) + body).replace(
        "DataFrame", "ndarray" if library == "numpy" else "DataFrame"
    )
    name = f"authors_{library}_{head.replace(' ', '_')}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__(name)
    assert [wanted(getattr(module, each), getattr(module, each)) for each in NAMES] == [
        library
    ] * len(NAMES)


def test_a_relative_import_for_types_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "authors_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "kinds.py").write_text("import polars\nTable = polars.DataFrame\n")
    (package / "mine.py").write_text(
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from .kinds import Table\ndef weights(prices: Table): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = __import__("authors_package.mine").mine
    assert wanted(mine.weights, mine.weights) == "polars"


def test_a_quoted_annotation_is_read_where_it_was_written_not_where_it_is_wrapped() -> None:
    elsewhere: dict[str, Any] = {"functools": functools}
    exec(
        "def passed_on(function):\n"
        "    @functools.wraps(function)\n"
        "    def call(*args): return function(*args)\n"
        "    return call\n",
        elsewhere,
    )
    wrapped = elsewhere["passed_on"](quotes_polars)
    assert wanted(wrapped, wrapped) == "polars"


def takes_a_list(prices: list[float]) -> object: ...
def takes_lazy(prices: pl.LazyFrame) -> object: ...
def takes_a_series(prices: pd.Series) -> object: ...
def takes_either(prices: pd.DataFrame | pl.DataFrame) -> object: ...
def takes_unknown(prices: "Unknown") -> object: ...  # type: ignore[name-defined]  # noqa: F821 - That is the case.
def takes_nonsense(prices: "pd.") -> object: ...  # type: ignore[syntax]  # noqa: F722 - That is the case.


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (takes_a_list, r"takes_a_list: prices are no list\[float\]; annotate the prices as np"),
        (takes_lazy, "prices are no polars.*LazyFrame; annotate"),
        (takes_a_series, "prices are no pandas.*Series; annotate"),
        (takes_either, r"may be any of .*DataFrame; annotate.* frame = 'numpy'"),
        (takes_unknown, "the annotation 'Unknown' of its prices cannot be read"),
        (takes_nonsense, "the annotation 'pd.' of its prices cannot be read"),
        (declared_of(takes_pandas, "dask"), "frame is 'dask'; it is one of numpy, pandas, polars"),
        (declared_of(takes_pandas, 20), "frame is 20"),
        (
            declared_of(takes_pandas, pd.DataFrame({"A": range(99)})),
            r"frame is (?s:.){,40}; it is one",
        ),
    ],
)
def test_what_cannot_be_given_is_refused_with_the_options(strategy: Any, message: str) -> None:
    with pytest.raises(StrategyError, match=message):
        weights_of(strategy, WALK)


# What it is given ---------------------------------------------------------------------------------


def test_a_pandas_frame() -> None:
    frame = given(WALK, "pandas")
    assert isinstance(frame, pd.DataFrame)
    assert list(frame.columns) == ["A", "B", "C"]
    assert set(frame.dtypes) == {np.dtype("float64")}
    assert isinstance(frame.index, pd.DatetimeIndex)
    assert (frame.index.name, str(frame.index.tz)) == ("time", "UTC")
    assert list(frame.index[:2]) == [
        pd.Timestamp("2020-01-01T21:00Z"),
        pd.Timestamp("2020-01-02T21:00Z"),
    ]
    assert np.array_equal(frame.to_numpy(), WALK.values)


def test_a_polars_frame() -> None:
    frame = given(WALK, "polars")
    assert isinstance(frame, pl.DataFrame)
    assert frame.schema == {
        "time": pl.Datetime("us", "UTC"),
        "A": pl.Float64,
        "B": pl.Float64,
        "C": pl.Float64,
    }
    assert np.array_equal(frame["time"].to_numpy(), WALK.times)
    assert np.array_equal(frame.drop("time").to_numpy(), WALK.values)


def owner(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_a_frame_holds_no_row_that_was_cut_off(kind: Any) -> None:
    frame = given(WALK.head(10), kind)
    arrays = [frame[asset].to_numpy() for asset in WALK.assets]
    times = (
        frame["time"].to_numpy() if kind == "polars" else frame.index.tz_convert(None).to_numpy()
    )
    assert {owner(array).size for array in arrays} <= {10, 30}
    assert owner(times).size == 10
    assert not any(np.shares_memory(array, WALK.values) for array in arrays)
    assert not np.shares_memory(times, WALK.times)


def test_a_strategy_may_write_into_its_own_frame_and_nobody_notices() -> None:
    digest = WALK.digest()

    def overwrites(prices: pd.DataFrame) -> pd.DataFrame:
        prices.iloc[:, :] = 0.5
        return prices

    def overwrites_in_place(prices: pl.DataFrame) -> pl.DataFrame:
        prices[0, "A"] = 0.25
        return prices

    assert (weights_of(overwrites, WALK) == 0.5).all()
    assert weights_of(overwrites_in_place, WALK)[0, 0] == 0.25
    assert WALK.digest() == digest


def test_an_asset_called_time_is_an_asset_too_many() -> None:
    prices = Prices(WALK.times, ("time", "B", "C"), WALK.values)
    with pytest.raises(StrategyError, match="an asset is named time"):
        weights_of(ReversionPolars(), prices)
    assert weights_of(ReversionNumpy(), prices).shape == WALK.values.shape


def test_who_takes_an_array_for_a_frame_is_told() -> None:
    def forgets_to_say(prices):  # type: ignore[no-untyped-def]  # That is the case.
        return prices.pct_change()

    with pytest.raises(AttributeError, match="pct_change") as caught:
        weights_of(forgets_to_say, WALK)
    assert (
        "annotate the prices as np.ndarray, pd.DataFrame or pl.DataFrame"
        in (caught.value.__notes__[0])
    )


# What it answers ----------------------------------------------------------------------------------


def answering(kind: str, answer: Callable[[Any], object]) -> Strategy:
    class Answers:
        frame: ClassVar[str] = kind

        def weights(self, prices: Any) -> Any:
            return answer(prices)

    return Answers()


def shares(prices: Any) -> Table:
    return np.tile([0.1, 0.2, 0.3], (len(prices), 1))


def pandas_shares(prices: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(shares(prices), index=prices.index, columns=prices.columns)


def polars_shares(prices: pl.DataFrame) -> pl.DataFrame:
    return prices.with_columns(A=pl.lit(0.1), B=pl.lit(0.2), C=pl.lit(0.3))


ANSWERS = [
    ("numpy", shares),
    ("numpy", lambda p: shares(p).tolist()),
    ("pandas", shares),
    ("pandas", pandas_shares),
    ("pandas", lambda p: pandas_shares(p)[["C", "A", "B"]]),
    ("pandas", lambda p: pandas_shares(p).tz_convert("America/New_York")),
    ("pandas", lambda p: pandas_shares(p).set_axis(p.index.as_unit("ns"))),
    ("pandas", lambda p: pandas_shares(p).astype("Float64")),
    ("polars", shares),
    ("polars", polars_shares),
    ("polars", lambda p: polars_shares(p).select("C", "time", "A", "B")),
    ("polars", lambda p: polars_shares(p).select("C", "B", "A")),
]


@pytest.mark.parametrize(("kind", "answer"), ANSWERS)
def test_an_answer_is_read_by_name(kind: str, answer: Callable[[Any], object]) -> None:
    assert np.array_equal(weights_of(answering(kind, answer), WALK), shares(WALK.values))


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("numpy", lambda p: np.full(len(p), 0.5)),
        ("numpy", lambda p: [0.5] * len(p)),
        ("pandas", lambda p: p["A"] * 0 + 0.5),
        ("pandas", lambda p: (p["A"] * 0 + 0.5).rename(None)),
        ("pandas", lambda p: np.full(len(p), 0.5)),
        ("polars", lambda p: p["A"] * 0 + 0.5),
        ("polars", lambda p: np.full((len(p), 1), 0.5)),
    ],
)
def test_weights_of_one_asset_are_a_row(kind: str, answer: Callable[[Any], object]) -> None:
    assert np.array_equal(weights_of(answering(kind, answer), ONE), np.full((60, 1), 0.5))


def test_signals_are_weights_of_one_and_zero() -> None:
    expected = (WALK.values > 100).astype(float)
    pandas = answering("pandas", lambda p: p > 100)
    polars = answering("polars", lambda p: p.with_columns(pl.all().exclude("time") > 100))
    assert np.array_equal(weights_of(pandas, WALK), expected)
    assert np.array_equal(weights_of(polars, WALK), expected)


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("pandas", lambda p: pandas_shares(p).shift(3)),
        ("pandas", lambda p: pandas_shares(p).shift(3).astype("Float64")),
        ("polars", lambda p: polars_shares(p).with_columns(pl.all().exclude("time").shift(3))),
    ],
)
def test_what_is_missing_is_nan_and_the_engine_names_it(
    kind: str, answer: Callable[[Any], object]
) -> None:
    weights = weights_of(answering(kind, answer), WALK)
    assert np.isnan(weights[:3]).all()
    assert np.array_equal(weights[3:], shares(WALK.values)[3:])
    with pytest.raises(StrategyError, match=r"A on 2020-01-01T21:00Z is nan; .*fillna\(0\)"):
        Engine().backtest(weights, WALK)


REFUSED = [
    ("pandas", lambda p: pandas_shares(p).iloc[5:], r"lack 5 bars, the first 2020-01-01T21:00Z;"),
    ("pandas", lambda p: p.rolling(3).mean().dropna(), r"lack 2 bars, .*weights\.fillna\(0\)"),
    ("pandas", lambda p: pandas_shares(p).iloc[::-1], "in another order"),
    ("pandas", lambda p: pd.concat([pandas_shares(p), pandas_shares(p)]), "or one twice"),
    ("pandas", lambda p: pandas_shares(p).shift(1, freq="h"), "lack 60 bars"),
    (
        "pandas",
        lambda p: pd.concat([pandas_shares(p), pandas_shares(p).iloc[-1:].shift(1, freq="h")]),
        "have a bar that the prices have not, 2020-02-29T22:00Z",
    ),
    ("pandas", lambda p: pandas_shares(p).reset_index(drop=True), "Int64 for their times"),
    ("pandas", lambda p: pandas_shares(p).tz_localize(None), "not those of the prices"),
    ("pandas", lambda p: pandas_shares(p)[["A", "C"]], r"lack B; .*reindex\(columns=prices"),
    ("pandas", lambda p: pandas_shares(p).rename(columns={"B": "b"}), "lack B and have b, which"),
    ("pandas", lambda p: pandas_shares(p).assign(cash=0.4), "have cash, which no asset is called"),
    ("pandas", lambda p: pandas_shares(p)[["A", "A", "B", "C"]], "two columns are named 'A'"),
    ("pandas", lambda p: pandas_shares(p).astype(str), "the column A holds String, not numbers"),
    (
        "pandas",
        lambda p: pandas_shares(p)["A"],
        "are a pandas Series, which is one asset's; there are 3",
    ),
    ("pandas", lambda p: pl.DataFrame(shares(p)), "are a polars DataFrame, and its prices pandas"),
    ("polars", lambda p: polars_shares(p).drop_nulls().slice(5), r"lack 5 bars, .*fill_null\(0\)"),
    ("polars", lambda p: polars_shares(p).drop("time").slice(5), r"55 rows for 60 bars; keep"),
    ("polars", lambda p: polars_shares(p).sort("time", descending=True), "in another order"),
    ("polars", lambda p: polars_shares(p).with_columns(time=pl.lit(0)), "for their times"),
    ("polars", lambda p: polars_shares(p).drop("B"), r"lack B; .*pl\.lit\(0\.0\)"),
    ("polars", lambda p: polars_shares(p).with_columns(mean=pl.lit(1)), "have mean, which no"),
    ("polars", lambda p: polars_shares(p).lazy(), r"are a polars LazyFrame; collect\(\) it"),
    ("polars", lambda p: polars_shares(p).with_columns(A=pl.lit("x")), "A holds String"),
    ("polars", lambda p: p["A"], "are a polars Series, which is one asset's"),
    ("polars", lambda p: pd.DataFrame(shares(p)), "are a pandas DataFrame, and its prices polars"),
    ("numpy", lambda p: pd.DataFrame(shares(p)), "are a pandas DataFrame, and its prices numpy"),
    ("numpy", lambda p: shares(p)[:, 0], r"shape \(60,\) for prices of \(60, 3\)"),
    ("numpy", lambda p: shares(p) * 1j, "are complex numbers"),
    ("pandas", lambda p: None, "None: does it end with `return weights`"),
    ("polars", lambda p: p.to_numpy(), "no table of numbers|shape"),
]


@pytest.mark.parametrize(("kind", "answer", "message"), REFUSED)
def test_an_answer_to_another_question_is_refused(
    kind: str, answer: Callable[[Any], object], message: str
) -> None:
    with pytest.raises(StrategyError, match=f"Answers: weights.*({message})"):
        weights_of(answering(kind, answer), WALK)


# Who imports what ---------------------------------------------------------------------------------

LOADED = """
import json, sys
{code}
print(json.dumps(sorted({{"narwhals", "pandas", "polars"}} & set(sys.modules))))
"""
RUNS = """
import numpy as np
from qmtl import Prices
from qmtl.sdk.strategy import weights_of, fingerprint
times = np.datetime64("2020-01-01T21:00", "us") + np.arange(3) * np.timedelta64(1, "D")
prices = Prices(times, ("A",), np.ones((3, 1)))
class Held:
    {frame}
    def weights(self, prices):
        return [0.5, 0.5, 0.5]
fingerprint(Held(), prices.digest(), None)
weights_of(Held(), prices)
"""


@pytest.mark.parametrize(
    ("code", "loaded"),
    [
        ("import qmtl", []),
        ("from qmtl import *", []),
        (RUNS.format(frame=""), []),
        (RUNS.format(frame="frame = 'pandas'"), ["narwhals", "pandas"]),
        (RUNS.format(frame="frame = 'polars'"), ["narwhals", "polars"]),
    ],
)
def test_nothing_is_imported_until_it_is_needed(code: str, loaded: list[str]) -> None:
    command = [sys.executable, "-W", "error", "-c", LOADED.format(code=code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert json.loads(done.stdout) == loaded


def test_a_library_that_is_not_there_is_asked_for() -> None:
    code = "import sys\nsys.modules['polars'] = None\n" + RUNS.format(frame="frame = 'polars'")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "StrategyError: Held: polars is not installed: pip install qmtl[polars]" in done.stderr
