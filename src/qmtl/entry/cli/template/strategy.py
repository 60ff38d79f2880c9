"""A sample strategy, to be replaced by yours: hold what stands above its own average.

`weights(prices)` turns prices into what to hold. Both have one row a bar and one column an asset.
Row i of the weights may use the prices up to and including bar i, and no later ones: `qmtl submit`
looks for that. The position is taken one bar later.
"""

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray


@dataclass(frozen=True)
class Trend:
    """Every asset gets an equal share of the capital, and holds it while the asset's close is above
    the average of its last `window` closes; else the share is cash."""

    window: int = 200  # Parameters are fields: they are part of what identifies the strategy.

    def weights(self, prices: NDArray[np.float64]) -> NDArray[np.float64]:
        """Fractions of the capital; negative would be short, and 0 is cash."""
        bars, assets = prices.shape
        held = np.zeros_like(prices)
        if bars >= self.window:  # Where it knows too little, it holds nothing.
            average = sliding_window_view(prices, self.window, axis=0).mean(axis=-1)
            held[self.window - 1 :] = (prices[self.window - 1 :] > average) / assets
        return held
