"""Takes trading strategies from backtest to paper to live, and can show why it did."""

__version__ = "0.1.0"
