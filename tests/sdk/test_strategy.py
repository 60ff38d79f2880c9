"""What a strategy is: its name, its parameters, and what its fingerprint depends on."""

import functools
import importlib.util
import itertools
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import Enum
from pathlib import Path
from random import Random
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from qmtl.demo.strategies import CoinFlipper, Momentum
from qmtl.sdk.engine import Engine
from qmtl.sdk.prices import Prices
from qmtl.sdk.strategy import (
    Fingerprint,
    HasWeights,
    StrategyError,
    fingerprint,
    name_of,
    parameters_of,
    weights_of,
)

Table = NDArray[np.float64]
DATA = "sha256:data"
ENGINE = Engine()
TIMES = np.array(["2020-01-02T21:00", "2020-01-03T21:00", "2020-01-06T21:00"], "datetime64[us]")
PRICES = Prices(TIMES, ("KO", "PEP"), np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 1.0]]))


def holds_half(prices: Table) -> Table:
    return np.full_like(prices, 0.5)


def holds_a_share(prices: Table, share: float = 0.1, *, shift: int = 0) -> Table:
    return np.full_like(prices, share)


@dataclass(frozen=True)
class Holds:
    share: object = 0.5

    def weights(self, prices: Table) -> Table:
        return np.full_like(prices, 0.5)


class Slotted:
    __slots__ = ("share",)

    def __init__(self, share: float) -> None:
        self.share = share

    def weights(self, prices: Table) -> Table:
        return np.full_like(prices, self.share)


class Named:
    name = "my-strategy"

    def weights(self, prices: Table) -> Table:
        return np.full_like(prices, 0.5)

    def twice(self, prices: Table) -> Table:
        return 2 * self.weights(prices)


def closing_over(share: object) -> Callable[[Table], Table]:
    def weights(prices: Table) -> Table:
        return np.full_like(prices, share)

    return weights


# Weights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strategy",
    [holds_half, Holds(), Slotted(0.5), Named(), closing_over(0.5), Holds().weights],
)
def test_an_object_or_a_function_is_a_strategy(strategy: HasWeights) -> None:
    assert np.array_equal(weights_of(strategy, PRICES), np.full((3, 2), 0.5))


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (lambda prices: prices[:2], r"shape \(2, 2\) for prices of \(3, 2\)"),
        (lambda prices: 0.5, r"shape \(\)"),
        (lambda prices: None, "weights are None"),
        (lambda prices: [["a", "b"]] * 3, "no table of numbers"),
        (lambda prices: [[1, 2], [3], [4]], "no table of numbers"),
        (Holds, "a class; give an instance"),
        (object(), "object is no strategy"),
        (0.5, "float is no strategy"),
    ],
)
def test_what_is_no_strategy_is_refused(strategy: HasWeights, message: str) -> None:
    if hasattr(strategy, "__name__") and strategy.__name__ == "<lambda>":
        strategy.name = "a-lambda"
    with pytest.raises(StrategyError, match=message):
        weights_of(strategy, PRICES)


def test_a_strategy_can_neither_change_the_prices_nor_see_what_was_cut_off() -> None:
    def changes(prices: Table) -> Table:
        prices *= 2
        return prices

    def reaches_behind(prices: Table) -> Table:
        assert prices.base is None
        return np.zeros_like(prices)

    digest = PRICES.digest()
    with pytest.raises(ValueError, match="read-only"):
        weights_of(changes, PRICES)
    weights_of(reaches_behind, PRICES.head(2))
    assert PRICES.digest() == digest


def test_weights_are_the_callers_own() -> None:
    held = np.zeros((3, 2))
    weights_of(lambda prices: held, PRICES)[0, 0] = 1
    assert not held.any()


# Names and parameters ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("strategy", "name"),
    [
        (Named(), "my-strategy"),
        (Holds(), "Holds"),
        (holds_half, "holds_half"),
        (closing_over(0.5), "weights"),
        (functools.partial(holds_a_share, share=0.5), "holds_a_share"),
        (Named().twice, "my-strategy"),
        (Momentum(), "momentum-12-1"),
    ],
)
def test_name(strategy: object, name: str) -> None:
    assert name_of(strategy) == name


def test_a_lambda_has_no_name() -> None:
    with pytest.raises(StrategyError, match="lambda has no name"):
        name_of(lambda prices: prices)


def decorated() -> Callable[[Table], Table]:
    @functools.wraps(holds_half)
    def weights(prices: Table) -> Table:
        return 0.5 * holds_half(prices)

    return weights


def plain_object() -> HasWeights:
    strategy = Named()
    strategy.late = 1
    strategy.early = 2
    return strategy


@pytest.mark.parametrize(
    ("strategy", "parameters"),
    [
        (Holds(0.25), {"share": 0.25}),
        (Slotted(0.25), {"share": 0.25}),
        (CoinFlipper(3), {"seed": 3}),
        (Named(), {}),
        (plain_object(), {"early": 2, "late": 1}),
        (holds_half, {}),
        (holds_a_share, {"share": 0.1, "shift": 0}),
        (closing_over(0.25), {"share": 0.25}),
        (
            functools.partial(holds_a_share, share=0.5),
            {"share": 0.5, "shift": 0},
        ),
        (Holds(0.25).weights, {"share": 0.25}),
        (decorated(), {"__wrapped__": holds_half}),
    ],
)
def test_parameters_by_name_sorted(strategy: object, parameters: dict[str, object]) -> None:
    assert list(parameters_of(strategy).items()) == list(parameters.items())


# Fingerprints: parameters ------------------------------------------------------------------------


class Colour(Enum):
    RED = 1
    BLUE = 2


@dataclass
class Part:
    window: int = 5
    inner: object = None
    names: set[str] = field(default_factory=lambda: {"b", "a"})


def of(share: object) -> str:
    return fingerprint(Holds(share), DATA, ENGINE).digest


# Each differs from each other.
DIFFERENT = [
    *(None, True, 1, 2, 1.5, -0.0, 0.0, np.nan, np.inf, 1j, "1", "", b"1", "ab", ...),
    *((), [], (1,), [1], (1, 2), ((1,), 2), ("a", "b"), {}, {"a": 1}, {"a": 2}, {"b": 1}, {1: "a"}),
    *(set(), {1}, {1, 2}, {(1, 2)}, range(3), date(2020, 1, 1), timedelta(1), Path("a")),
    *(Colour.RED, Colour.BLUE, Part(), Part(6), Part(inner=Part()), [Part(), 1]),
    *(np.zeros(2), np.zeros(3), np.zeros((1, 2)), np.zeros(2, np.float32), np.array([0.0, -0.0])),
    *(np.arange(2), np.array(["a"]), np.datetime64("2020-01-01"), np.timedelta64(1, "D")),
    *(holds_half, holds_a_share, Part, np.sum, np.mean, len, closing_over(1), closing_over(2)),
    *(np.random.default_rng(0), np.random.default_rng(1), Random(0), Random(1)),
    *(deque([1]), deque(), np.timedelta64(1, "ns"), np.complex64(1)),
    *(Named(), Slotted(1), Slotted(2), Slotted, re.compile("a"), re.compile("b"), np.log, np.exp),
    *(functools.partial(holds_a_share, share=1), functools.partial(holds_a_share, share=2)),
]


def test_different_parameters_have_different_fingerprints() -> None:
    by_fingerprint: dict[str, list[object]] = {}
    for share in DIFFERENT:
        by_fingerprint.setdefault(of(share), []).append(share)
    assert [same for same in by_fingerprint.values() if len(same) > 1] == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"x", "y", "z"}, {"z", "y", "x"}),
        (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))),
        (np.arange(3.0), np.arange(3.0).astype(">f8")),
        (np.arange(6.0)[::2], np.array([0.0, 2.0, 4.0])),
        (np.float64(0.5), 0.5),
        (np.int64(5), 5),
        (Part(), Part()),
        (closing_over([1]), closing_over([1])),
    ],
)
def test_equal_parameters_have_equal_fingerprints(one: object, other: object) -> None:
    assert of(one) == of(other)


def in_a_circle() -> list[object]:
    circle: list[object] = []
    circle.append(circle)
    return circle


@pytest.mark.parametrize(
    ("share", "message"),
    [
        (threading.Lock(), "a lock cannot be told by its value"),
        ([1, {"a": ((bar for bar in ()),)}], "a generator cannot be told"),
        (np.array([object()]), "an array of object cannot"),
        (np.longdouble(1), "an array of (longdouble|float)"),
        (in_a_circle(), "nested more than"),
    ],
)
def test_what_has_no_value_is_refused(share: object, message: str) -> None:
    with pytest.raises(StrategyError, match=f"Holds: parameter share: {message}"):
        of(share)


def test_data_and_engine_count() -> None:
    prints = {
        fingerprint(Holds(), DATA, ENGINE).digest,
        fingerprint(Holds(), "sha256:other", ENGINE).digest,
        fingerprint(Holds(), DATA, Engine(cost_bps=6)).digest,
        fingerprint(Holds(), DATA, Part()).digest,
    }
    assert len(prints) == 4
    assert all(len(each) == 71 and each.startswith("sha256:") for each in prints)
    assert fingerprint(Holds(), DATA, ENGINE) == fingerprint(Holds(), DATA, Engine(5))


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        (fingerprint(holds_half, DATA, ENGINE), {"code", "parameters"}),
        (fingerprint(Holds(0.25), DATA, ENGINE), {"parameters"}),
        (fingerprint(Holds(), "sha256:other", ENGINE), {"data"}),
        (fingerprint(Holds(), DATA, Engine(cost_bps=6)), {"engine"}),
    ],
)
def test_its_parts_tell_what_was_changed(changed: Fingerprint, part: set[str]) -> None:
    before = fingerprint(Holds(), DATA, ENGINE).parts
    assert {name for name, digest in changed.parts.items() if digest != before[name]} == part


# Fingerprints: code ------------------------------------------------------------------------------

SOURCE = """
import functools
import numpy as np

SHARE = 0.5
TABLE = np.array([1.0, 2.0])
WEEKDAYS = ("mon", "tue")
CACHE = {}
UNUSED = 1
LIMIT = 7
DEFAULT = 8
ALIAS = np.mean


def unused(prices):
    return prices


def helper(prices):
    return deeper(prices) * SHARE


def deeper(prices):
    return np.full_like(prices, TABLE[0])


@functools.lru_cache
def cached(bars):
    return bars + 1


RULES = (deeper, helper)


class Base:
    def scale(self):
        return 1.0


class Object(Base):
    count = 3
    limit = LIMIT

    def weights(self, prices, more=DEFAULT):
        CACHE[len(prices)] = cached(len(prices))
        return helper(prices) * self.scale()

    @property
    def first_day(self):
        return WEEKDAYS[0]


def function(prices):
    total = sum(rule(prices) for rule in RULES)
    return ALIAS(total) * Base().scale()


def calls_itself(prices):
    return prices if len(prices) < 2 else calls_itself(prices[1:])
"""

NUMBERS = itertools.count()


def loaded(folder: Path, text: str) -> ModuleType:
    """`text` as a module `authors`, from a file of its own; only the last one loaded has source."""
    path = folder / f"authors_{next(NUMBERS)}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("authors", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["authors"] = module
    spec.loader.exec_module(module)
    return module


def prints_of(module: ModuleType) -> tuple[str, str]:
    return (
        fingerprint(module.Object(), DATA, ENGINE),
        fingerprint(module.function, DATA, ENGINE),
    )


# (what is replaced, by what, whether it changes the object's fingerprint, the function's)
EDITS = [
    ("nothing", "", "", False, False),
    ("what is not used", "UNUSED = 1", "UNUSED = 2", False, False),
    ("a function not used", "def unused(prices):", "def unused(prices, more=1):", False, False),
    ("where it stands", "SHARE = 0.5", "\n\n\nSHARE = 0.5", False, False),
    ("what a cache holds", "CACHE = {}", "CACHE = {1: 2}", False, False),
    ("a constant of a helper", "SHARE = 0.5", "SHARE = 0.4", True, True),
    ("an array", "[1.0, 2.0]", "[1.5, 2.0]", True, True),
    ("a helper", "deeper(prices) * SHARE", "deeper(prices) / SHARE", True, True),
    ("a helper's helper", "TABLE[0])", "TABLE[1])", True, True),
    ("a base class", "return 1.0", "return 2.0", True, True),
    ("a cached helper", "bars + 1", "bars + 2", True, False),
    ("a class attribute", "count = 3", "count = 4", True, False),
    ("what a property reads", '"mon"', '"sun"', True, False),
    ("a table of functions", "(deeper, helper)", "(helper,)", False, True),
    ("the function", "(total) * Base()", "(total) / Base()", False, True),
    ("a class attribute's constant", "LIMIT = 7", "LIMIT = 6", True, False),
    ("a default's constant", "DEFAULT = 8", "DEFAULT = 9", True, False),
    ("another name for a function", "ALIAS = np.mean", "ALIAS = np.sum", False, True),
]


@pytest.mark.parametrize(
    ("case", "old", "new", "of_object", "of_function"), EDITS, ids=lambda v: str(v)[:24]
)
def test_the_code_it_reaches_counts_and_no_other(
    tmp_path: Path, case: str, old: str, new: str, of_object: bool, of_function: bool
) -> None:
    assert old in SOURCE
    before = prints_of(loaded(tmp_path, SOURCE))
    after = prints_of(loaded(tmp_path, SOURCE.replace(old, new)))
    assert (before[0] != after[0], before[1] != after[1]) == (of_object, of_function)


@pytest.mark.parametrize(
    ("case", "old", "new", "of_object", "of_function"), EDITS, ids=lambda v: str(v)[:24]
)
def test_without_source_the_bytecode_counts(
    case: str, old: str, new: str, of_object: bool, of_function: bool
) -> None:
    def typed(text: str) -> ModuleType:
        module = ModuleType("typed")
        exec(text, module.__dict__)
        return module

    before, after = prints_of(typed(SOURCE)), prints_of(typed(SOURCE.replace(old, new)))
    assert (before[0] != after[0], before[1] != after[1]) == (of_object, of_function)


def test_a_function_that_calls_itself(tmp_path: Path) -> None:
    one, other = (loaded(tmp_path, SOURCE).calls_itself for _ in range(2))
    assert fingerprint(one, DATA, ENGINE) == fingerprint(other, DATA, ENGINE)


def test_two_lambdas_on_one_line_differ() -> None:
    one, other = (lambda prices: prices * 0.0), (lambda prices: prices * 1.0)
    assert fingerprint(one, DATA, ENGINE) != fingerprint(other, DATA, ENGINE)


def test_what_another_module_of_the_package_holds_counts() -> None:
    def author(factor: float) -> Callable[[Table], Table]:
        signals, main = ModuleType("authors.signals"), ModuleType("authors.main")
        exec(f"FACTOR = {factor}\ndef signal(prices): return prices * FACTOR", vars(signals))
        exec("def weights(prices): return signals.signal(prices)", vars(main))
        main.signals = signals
        return main.weights

    assert fingerprint(author(1.0), DATA, ENGINE) == fingerprint(author(1.0), DATA, ENGINE)
    assert fingerprint(author(1.0), DATA, ENGINE) != fingerprint(author(2.0), DATA, ENGINE)


def test_which_method_is_meant_counts() -> None:
    one, other = Named().weights, Named().twice
    assert fingerprint(one, DATA, ENGINE) != fingerprint(other, DATA, ENGINE)
    assert of(one) != of(other)
    partly = functools.partial(other)
    assert fingerprint(partly, DATA, ENGINE) != fingerprint(functools.partial(one), DATA, ENGINE)


def test_a_decorator_counts() -> None:
    assert fingerprint(decorated(), DATA, ENGINE) != fingerprint(holds_half, DATA, ENGINE)


def test_a_class_is_not_its_base() -> None:
    class Other(Holds):
        pass

    assert fingerprint(Other(), DATA, ENGINE) != fingerprint(Holds(), DATA, ENGINE)


SCRIPT = """
from qmtl.demo.strategies import BestOfMany, CoinFlipper, EqualWeight, Momentum
from qmtl.sdk.engine import Engine
from qmtl.sdk.prices import Prices
from qmtl.sdk.strategy import fingerprint

for strategy in (BestOfMany((1,), (2,), (3,), (1,), 5), Momentum(), CoinFlipper(3), EqualWeight()):
    print(fingerprint(strategy, "sha256:data", Engine()).digest)
"""


def test_fingerprints_are_the_same_in_every_process() -> None:
    def run(hash_seed: str) -> str:
        command = [sys.executable, "-c", SCRIPT]
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return ended.stdout

    first = run("1")
    assert first == run("2")
    assert fingerprint(Momentum(), DATA, ENGINE).digest in first
    assert len(set(first.split())) == 4
