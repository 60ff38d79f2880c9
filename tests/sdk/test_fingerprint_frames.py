"""Fingerprints of strategies that are written for frames, or hold one."""

import functools
import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import ModuleType

import pandas as pd
import polars as pl
import pytest

from qmtl.sdk.strategy import StrategyError, fingerprint

DATA = "sha256:data"


@dataclass(frozen=True)
class Holds:
    signal: object = None

    def weights(self, prices: pd.DataFrame) -> pd.DataFrame:
        return prices * 0


def of(signal: object) -> str:
    return fingerprint(Holds(signal), DATA, None).digest


# A frame as a parameter ---------------------------------------------------------------------------

DAYS = pd.DatetimeIndex(["2020-01-02", "2020-01-03"])
PANDAS = pd.DataFrame({"KO": [1.0, 2.0], "on": [True, False], "sector": ["a", None]}, index=DAYS)
POLARS = pl.DataFrame({"KO": [1.0, 2.0], "on": [True, False], "sector": ["a", None]})

# Each differs from each other.
DIFFERENT = [
    PANDAS,
    PANDAS.rename(columns={"KO": "PEP"}),
    PANDAS.assign(KO=[1.0, 2.5]),
    PANDAS.assign(sector=["a", "b"]),
    PANDAS[["on", "KO", "sector"]],
    PANDAS.shift(1, freq="D"),
    PANDAS.tz_localize("UTC"),
    PANDAS.tz_localize("UTC").tz_convert("America/New_York"),
    PANDAS.tz_localize("UTC").tz_convert("America/Los_Angeles"),
    PANDAS.reset_index(),
    PANDAS.astype({"KO": "float32"}),
    PANDAS["KO"],
    PANDAS["KO"].to_frame(),
    PANDAS.index,
    PANDAS.columns,
    POLARS,
    POLARS.rename({"KO": "PEP"}),
    POLARS.with_columns(KO=pl.Series([1.0, None])),
    POLARS.with_columns(KO=pl.Series([1.0, float("nan")])),
    POLARS.with_columns(KO=pl.Series([1, 2])),
    POLARS.with_columns(KO=pl.Series([date(2020, 1, 2), None])),
    POLARS.with_columns(sector=pl.col("sector").cast(pl.Categorical)),
    POLARS.head(1),
    POLARS["KO"],
]


def test_different_frames_have_different_fingerprints() -> None:
    assert len({of(frame) for frame in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize("frame", DIFFERENT, ids=lambda frame: type(frame).__name__)
def test_equal_frames_have_equal_fingerprints(frame: pd.DataFrame) -> None:
    copied = frame.clone() if hasattr(frame, "clone") else frame.copy(deep=True)
    assert of(copied) == of(frame)


def test_how_a_frame_lies_in_memory_does_not_count() -> None:
    apart = pd.concat([PANDAS[["KO"]], PANDAS[["on"]], PANDAS[["sector"]]], axis=1)
    assert of(apart) == of(PANDAS)
    assert of(pl.concat([POLARS.head(1), POLARS.tail(1)], rechunk=False)) == of(POLARS)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (PANDAS.assign(any=[object(), 1]), "its column any of Object cannot be told by its value"),
        (POLARS.with_columns(any=pl.Series([[1], [2]])), r"its column any of List\(Int64\) cannot"),
        (POLARS.lazy(), "a polars LazyFrame cannot be told by its value"),
        ([PANDAS.assign(any=[object(), 1])], "its column any"),
        (PANDAS.set_index(["KO", "on"]), "its column None of Object cannot"),
    ],
)
def test_a_frame_without_a_value_is_refused_by_name(frame: object, message: str) -> None:
    with pytest.raises(StrategyError, match=f"Holds: parameter signal: {message}"):
        of(frame)


# The author's file --------------------------------------------------------------------------------

SOURCE = """
from __future__ import annotations
from typing import TYPE_CHECKING

import pandas as pd
import polars as pl

Frame = pd.DataFrame
SIGNAL = pl.DataFrame({"KO": [1.0, 2.0]})
SECTORS = pd.Series(["a", "b"])


def weights(prices: Frame):
    return pd.DataFrame(0.0, index=prices.index, columns=prices.columns) + SIGNAL["KO"][0]


class Object:
    sectors = SECTORS

    def weights(self, prices: pd.DataFrame) -> pd.DataFrame:
        return prices.rolling(2).mean()
"""

EDITS = [
    ("nothing", "", "", False, False),
    ("a library not used", "import polars as pl", "import polars as pl, math", False, False),
    ("what the annotation means", "Frame = pd.DataFrame", "Frame = pl.DataFrame", True, False),
    ("a frame it names", "[1.0, 2.0]", "[1.5, 2.0]", True, False),
    ("a series of the class", '["a", "b"]', '["a", "c"]', False, True),
    ("its code", "rolling(2)", "rolling(3)", False, True),
]
NUMBERS = itertools.count()


def loaded(folder: Path, text: str) -> ModuleType:
    path = folder / f"framed_{next(NUMBERS)}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location("framed", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["framed"] = module
    spec.loader.exec_module(module)
    return module


def prints_of(module: ModuleType) -> tuple[str, str]:
    return (
        fingerprint(module.weights, DATA, None).digest,
        fingerprint(module.Object(), DATA, None).digest,
    )


@pytest.mark.parametrize(
    ("case", "old", "new", "of_function", "of_object"), EDITS, ids=lambda v: str(v)[:24]
)
def test_the_authors_frames_count_and_the_libraries_do_not(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
    old: str,
    new: str,
    of_function: bool,
    of_object: bool,
) -> None:
    assert old in SOURCE
    before = prints_of(loaded(tmp_path, SOURCE))
    monkeypatch.setattr(pd, "__version__", "99")
    monkeypatch.setattr(pl, "__version__", "99")
    after = prints_of(loaded(tmp_path, SOURCE.replace(old, new)))
    assert (before[0] != after[0], before[1] != after[1]) == (of_function, of_object)


def test_a_frame_in_the_file_that_has_no_value_is_refused_by_name(tmp_path: Path) -> None:
    text = SOURCE.replace("[1.0, 2.0]", "[[1.0], [2.0]]")
    with pytest.raises(StrategyError, match="weights uses SIGNAL: its column KO of List"):
        prints_of(loaded(tmp_path, text))


# What it asks for ---------------------------------------------------------------------------------


def takes_what_comes(prices):  # type: ignore[no-untyped-def]  # That is the case.
    return prices


def declaring(frame: str) -> Callable[..., object]:
    bound = functools.partial(takes_what_comes)
    bound.frame = frame  # type: ignore[attr-defined]  # How a partial declares it.
    return bound


def test_what_a_strategy_declares_counts() -> None:
    kinds = [functools.partial(takes_what_comes), *map(declaring, ("pandas", "polars"))]
    assert len({fingerprint(each, DATA, None).digest for each in kinds}) == 3


def test_what_cannot_be_given_has_no_fingerprint() -> None:
    with pytest.raises(StrategyError, match="takes_what_comes: its attribute frame is 'dask'"):
        fingerprint(declaring("dask"), DATA, None)


SCRIPT = """
import sys
import pandas as pd
import polars as pl
from dataclasses import dataclass
from qmtl.sdk.strategy import fingerprint

@dataclass
class Holds:
    signal: object
    def weights(self, prices: pd.DataFrame) -> pd.DataFrame:
        return prices * 0

days = pd.DatetimeIndex(["2020-01-02", "2020-01-03"], tz="America/New_York")
values = {"KO": [1.0, None], "n": [1, 2], "sector": ["a", None]}
for signal in (pd.DataFrame(values, index=days), pl.DataFrame(values), pl.col("KO").shift(1)):
    print(fingerprint(Holds(signal), "sha256:data", None).digest)
"""


def test_fingerprints_of_frames_are_the_same_in_every_process() -> None:
    def run(hash_seed: str) -> str:
        environment = {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", SCRIPT]
        ended = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return ended.stdout

    first = run("1")
    assert first == run("2")
    assert len(set(first.split())) == 3
