"""Takes trading strategies from backtest to paper to live, and can show why it did.

What a strategy author needs is here by name (`from qmtl import Runner`), and is loaded when it is
first asked for: `import qmtl` alone costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qmtl.adapters.client import ApiError, Away, Client
    from qmtl.core.decision import permitted
    from qmtl.core.names import Mode
    from qmtl.sdk.checks import Finding, StrategyRejected
    from qmtl.sdk.decisions import Decisions
    from qmtl.sdk.delivery import AlreadyFollowed, BarRefused
    from qmtl.sdk.engine import Engine
    from qmtl.sdk.follow import Followed, Step
    from qmtl.sdk.gate import OrderGate
    from qmtl.sdk.prices import Prices, PricesError, as_prices, read_csv, read_prices
    from qmtl.sdk.result import SubmitResult
    from qmtl.sdk.returns import Returns, ReturnsError, as_returns, read_returns
    from qmtl.sdk.runner import Runner
    from qmtl.sdk.sources import FileSource, FolderSource, IteratorSource, PriceSource
    from qmtl.sdk.spool import NotKept
    from qmtl.sdk.strategy import Strategy, StrategyError
    from qmtl.sdk.submitted import NotSubmitted
    from qmtl.sdk.sweep import SweepResult, SweepRow

__version__ = "0.1.0"

__all__ = [
    "AlreadyFollowed",
    "ApiError",
    "Away",
    "BarRefused",
    "Client",
    "Decisions",
    "Engine",
    "FileSource",
    "Finding",
    "FolderSource",
    "Followed",
    "IteratorSource",
    "Mode",
    "NotKept",
    "NotSubmitted",
    "OrderGate",
    "PriceSource",
    "Prices",
    "PricesError",
    "Returns",
    "ReturnsError",
    "Runner",
    "Step",
    "Strategy",
    "StrategyError",
    "StrategyRejected",
    "SubmitResult",
    "SweepResult",
    "SweepRow",
    "as_prices",
    "as_returns",
    "permitted",
    "read_csv",
    "read_prices",
    "read_returns",
]

_HOMES = {
    "qmtl.adapters.client": ("ApiError", "Away", "Client"),
    "qmtl.core.decision": ("permitted",),
    "qmtl.core.names": ("Mode",),
    "qmtl.sdk.checks": ("Finding", "StrategyRejected"),
    "qmtl.sdk.decisions": ("Decisions",),
    "qmtl.sdk.delivery": ("AlreadyFollowed", "BarRefused"),
    "qmtl.sdk.engine": ("Engine",),
    "qmtl.sdk.follow": ("Followed", "Step"),
    "qmtl.sdk.gate": ("OrderGate",),
    "qmtl.sdk.prices": ("Prices", "PricesError", "as_prices", "read_csv", "read_prices"),
    "qmtl.sdk.result": ("SubmitResult",),
    "qmtl.sdk.returns": ("Returns", "ReturnsError", "as_returns", "read_returns"),
    "qmtl.sdk.runner": ("Runner",),
    "qmtl.sdk.sources": ("FileSource", "FolderSource", "IteratorSource", "PriceSource"),
    "qmtl.sdk.spool": ("NotKept",),
    "qmtl.sdk.strategy": ("Strategy", "StrategyError"),
    "qmtl.sdk.submitted": ("NotSubmitted",),
    "qmtl.sdk.sweep": ("SweepResult", "SweepRow"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
