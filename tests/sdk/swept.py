"""Strategies that tests sweep. A worker imports this and no more, so that it starts at once."""

import os
from dataclasses import dataclass

import numpy as np

from qmtl.sdk.prices import FloatArray


@dataclass(frozen=True)
class Trend:
    """Holds what rose; fails for a lookback of 0, and never trades beyond the history."""

    lookback: int
    share: float = 0.5

    def weights(self, prices: FloatArray) -> FloatArray:
        if self.lookback == 0:
            raise ZeroDivisionError("no lookback")
        held = np.zeros_like(prices)
        held[self.lookback :] = prices[self.lookback :] > prices[: -self.lookback]
        return held * self.share


@dataclass(frozen=True)
class Peeking(Trend):
    """Looks one bar ahead."""

    def weights(self, prices: FloatArray) -> FloatArray:
        held = np.zeros_like(prices)
        held[:-1] = prices[1:] > prices[:-1]
        return held * self.share


@dataclass(frozen=True)
class Threads:
    """Holds a hundredth for each thread that its libraries may use."""

    name: str

    def weights(self, prices: FloatArray) -> FloatArray:
        return np.full_like(prices, int(os.environ.get(self.name, "77")) / 100)


@dataclass(frozen=True)
class Talking(Trend):
    """Says so whenever it is asked."""

    def weights(self, prices: FloatArray) -> FloatArray:
        print("I was asked")
        return Trend(self.lookback).weights(prices)


@dataclass(frozen=True)
class Dying:
    """Takes its process with it."""

    number: int

    def weights(self, prices: FloatArray) -> FloatArray:
        os._exit(3)
