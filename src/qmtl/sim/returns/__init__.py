"""Made-up returns: bars for lives where anything happens (`bars`), strategies whose truth is known
(`placebo`)."""

from .bars import Kind, bar, series

__all__ = ["Kind", "bar", "series"]
