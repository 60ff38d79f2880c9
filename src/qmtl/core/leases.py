"""Weights that were taken back, and that clients who are cut off may still act on.

A weight is a lease: whoever was told of it goes on with it until the envelope ends, and no message
reaches one who hears nothing.  So a weight that goes down stays outstanding for LEASE_TERM, and the
gate counts it as if it were live.  Only time ends that.  An acknowledgement does not: the world
keeps no list of whom it told, and one client that lets go says nothing of another.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from immutables import Map

from . import facts as f
from .decision import DECISION_TTL
from .names import StrategyId
from .view import Activation, Outstanding, WorldView

# From the instant a fact carries to when no reader is told otherwise any more: it queues for the
# writer and for the disk meanwhile, and what is decided then still has the weight of before.
RECORDED_WITHIN = timedelta(seconds=30)
LEASE_TERM = DECISION_TTL + RECORDED_WITHIN


def told(held: Activation | None) -> float:
    """The most that an envelope carries of an activation."""
    return 0.0 if held is None or held.freeze or held.drain else held.weight


def outstanding(view: WorldView, now: datetime) -> Mapping[StrategyId, Outstanding]:
    """By strategy, what was taken back and may still be acted on at `now`."""
    return {sid: lease for sid, lease in view.outstanding.items() if now < lease.until}


def believed(view: WorldView, strategy_id: StrategyId, now: datetime) -> float:
    """The most that any client may believe a strategy's weight to be at `now`."""
    lease = outstanding(view, now).get(strategy_id)
    return max(told(view.live.get(strategy_id)), 0.0 if lease is None else lease.weight)


def reserved(view: WorldView, now: datetime) -> Mapping[StrategyId, float]:
    """By strategy, the capital nobody else may have: what was applied, since an operator may give
    it back up to that at any time, and what is outstanding.

    INVARIANT: between two promotions no sum of these grows, whatever else happens.
    """
    applied = {sid: held.applied_weight for sid, held in view.live.items()}
    leased = {sid: lease.weight for sid, lease in outstanding(view, now).items()}
    return {sid: max(applied.get(sid, 0.0), leased.get(sid, 0.0)) for sid in {*applied, *leased}}


def settled(before: WorldView, after: WorldView, entry: f.Entry, sid: StrategyId) -> WorldView:
    """The view after a fact that changed a strategy's weight: one that went down is outstanding.

    One lease a strategy: the greatest weight of those that still run, for as long as the newest.
    """
    if not told(after.live.get(sid)) < told(before.live.get(sid)):
        return after
    running = outstanding(after, entry.at)
    until = entry.at + LEASE_TERM
    lease = Outstanding(
        weight=believed(before, sid, entry.at),
        until=max(until, running[sid].until) if sid in running else until,
        sequence=entry.generation,
    )
    return replace(after, outstanding=Map(running).set(sid, lease))
