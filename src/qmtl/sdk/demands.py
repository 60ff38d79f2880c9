"""What a world asks of a backtest, read from its policy for advice: the world judges by it itself.

What cannot be read is no error here. A submission goes on without the advice, and says so.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from qmtl.adapters.client import ApiError, Away, Client
from qmtl.core.times import UNITS

UNKNOWN_WORLD = "unknown-world"  # The problem's name: no later step could succeed.


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """A policy's demands on the backtest stage.

    window             least time from the first return to the last
    observations       least number of returns
    periods_per_year   by which the world annualises
    gates              by metric, the least and the most it may be
    variants_assumed   how many variants count when the author does not say; None: evidence is off
    """

    policy_version: int
    window: timedelta
    observations: int
    periods_per_year: float
    gates: Mapping[str, tuple[float | None, float | None]]
    variants_assumed: int | None


def demands_of(client: Client, world: str) -> Demands | str:
    """The demands in force; in words why they are not known, when they are not.

    Raises ApiError when there is no such world.
    """
    try:
        version = client.world(world).get("default_policy_version")
        if version is None:
            return f"{world} has no policy yet"
        return _read(client.policy(world, version)["policy"], version)
    except Away:
        return "the world is away"
    except ApiError as error:
        if error.kind == UNKNOWN_WORLD:
            raise
        return str(error)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"the policy of {world} cannot be read here ({error!r})"


def _read(policy: Mapping[str, Any], version: int) -> Demands:
    window, evidence = policy["campaign"]["backtest"], policy["evidence"]
    return Demands(
        policy_version=version,
        window=_length(window["window"]),
        observations=int(window["min_observations"]),
        periods_per_year=float(policy["data"]["periods_per_year"]),
        gates={
            metric: (bound.get("min"), bound.get("max"))
            for metric, bound in policy["gates"].get("backtest", {}).items()
        },
        variants_assumed=None if evidence == "none" else int(evidence["trials_default"]),
    )


def _length(text: str) -> timedelta:
    """`730d` and the like: a policy in its canonical form."""
    return timedelta(**{UNITS[text[-1]]: int(text[:-1])})
