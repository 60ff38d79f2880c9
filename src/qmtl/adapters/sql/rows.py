"""A view as rows: what each table of current state must hold, and nothing else.

`rows_of(view)` is all of it; `project.py` asks for the rows that a commit touched.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isnan
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Table

from qmtl.adapters.codec import dumps, policy_to_bytes
from qmtl.core.columns import PHASES, VERDICTS, Columns
from qmtl.core.names import ActorId, CandidateId, Digest, RunId, Stage, StrategyId, WorldId
from qmtl.core.times import NEVER, micros
from qmtl.core.view import (
    Applied,
    Approval,
    Approved,
    Proposed,
    Rejected,
    Standing,
    Void,
    WorldView,
)

from . import schema

Cell = str | int | float | bytes | None
Row = Mapping[str, Cell]
Key = str | int | tuple[StrategyId, Stage]
Rows = dict[Table, dict[Key, Row]]


@dataclass(frozen=True, slots=True, eq=False)  # Itself, as a key: hashed by identity.
class Projection:
    """One table: the keys that a view has rows for, and the rows of some keys, None without one."""

    table: Table
    names: tuple[str, ...]  # Of the columns that make up a key.
    keys: Callable[[WorldView], Iterable[Key]]
    rows: Callable[[WorldView, Sequence[Key]], Iterable[Row | None]]

    def key_row(self, key: Key) -> dict[str, Cell]:
        """A key as cells."""
        return dict(zip(self.names, key if isinstance(key, tuple) else (key,), strict=True))


def rows_of(view: WorldView) -> Rows:
    """Every row that the tables of current state must hold for this world, by table and key."""
    found: Rows = {}
    for p in PROJECTIONS:
        keys = list(p.keys(view))
        pairs = zip(keys, p.rows(view, keys), strict=True)
        found[p.table] = {key: row for key, row in pairs if row is not None}
    return found


def world_row(view: WorldView) -> Row:
    """What `worlds` says of the view; the chain's columns are the journal's to fill."""
    return {
        "world_id": view.world_id,
        "seq": view.seq,
        "evidence_generation": view.evidence_generation,
        "governance_generation": view.governance_generation,
        "allow_live": view.allow_live,
        "state": view.state.value,
        "killed": view.killed,
        "default_version": view.default_version,
        "promoted_at": at_or_none(view.promoted_at),
    }


def at_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else micros(moment)


def json(value: object) -> str:
    return dumps(value).decode()


def _words(name: str, column: NDArray[np.generic]) -> list[Cell]:
    """A column as a table says it: words for indices, NULL for what never happened."""
    values: list[Any] = column.tolist()
    if name == "phase":
        return [PHASES[index].value for index in values]
    if name == "verdict":
        return [None if (verdict := VERDICTS[i]) is None else verdict.value for i in values]
    match column.dtype.kind:
        case "i":
            return [None if value == NEVER else value for value in values]
        case "f":
            return [None if isnan(value) else value for value in values]
        case "S":
            return [value.decode() or None for value in values]
        case "b":
            return values
        case kind:
            raise AssertionError(f"{name} is of kind {kind}")


def _cells(columns: Columns, rows: list[int]) -> list[dict[str, Cell]]:
    """Rows of columns, taken together: the loop is over columns, and numpy's over rows."""
    names = list(columns.arrays())
    words = [_words(name, columns.arrays()[name][rows]) for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*words, strict=True)]


def _each(row: Callable[[WorldView, Key], Row | None]) -> Callable[..., Iterable[Row | None]]:
    return lambda view, keys: (row(view, key) for key in keys)


def _policy(view: WorldView, version: Key) -> Row | None:
    assert isinstance(version, int)
    found = view.policies.get(version)
    if found is None:
        return None
    return {
        "world_id": view.world_id,
        "version": found.version,
        "checksum": found.checksum,
        "policy": policy_to_bytes(found.policy).decode(),
        "at": micros(found.at),
    }


def _strategies(view: WorldView, keys: Sequence[Key]) -> Iterable[Row]:
    found = [view.strategies[StrategyId(str(key))] for key in keys]
    standings = _cells(view.standings, [strategy.row for strategy in found])
    for strategy, standing in zip(found, standings, strict=True):
        yield {
            "world_id": view.world_id,
            "strategy_id": strategy.strategy_id,
            "row": strategy.row,
            "name": strategy.name,
            "author": strategy.author,
            "fingerprint": strategy.fingerprint,
            "variants_tried": strategy.variants_tried,
            "bound_at": micros(strategy.bound_at),
            "blocked": json(view.blocked.get(strategy.strategy_id, ())),
            "family": strategy.family,
            "version": strategy.version,
            "previous": strategy.previous,
            "parts": json(strategy.parts),
            **standing,
        }


def _series_states(view: WorldView, keys: Sequence[Key]) -> Iterable[Row]:
    """In the order of `keys`; a stage at a time."""
    pairs = [key for key in keys if isinstance(key, tuple)]
    cells: dict[Key, dict[str, Cell]] = {}
    for stage, track in view.tracks.items():
        mine = [key for key in pairs if key[1] is stage]
        if not mine:
            continue
        rows = [view.strategies[strategy_id].row for strategy_id, _ in mine]
        cells |= zip(mine, _cells(track, rows), strict=True)
    for key in pairs:
        ids = {"world_id": view.world_id, "strategy_id": key[0], "stage": key[1].value}
        yield {**ids, **cells[key]}


def _latest_run(view: WorldView, key: Key) -> Row | None:
    assert isinstance(key, tuple)
    found = view.runs.get(key)
    if found is None:
        return None
    return {
        "world_id": view.world_id,
        "strategy_id": key[0],
        "stage": key[1].value,
        "run_id": found.run_id,
        "revision": found.revision,
        "verdict": found.verdict.value,
        "problems": json(found.problems),
        "at": micros(found.at),
    }


def _candidate(view: WorldView, key: Key) -> Row | None:
    found = view.candidates.get(CandidateId(str(key)))
    if found is None:
        return None
    return {
        "world_id": view.world_id,
        "candidate_id": found.candidate_id,
        "strategy_id": found.strategy_id,
        "fingerprint": found.fingerprint,
        "policy_version": found.policy_version,
        "entered_at": micros(found.entered_at),
        "step": found.step,
        "run_id": found.run_id,
        "evidence": found.evidence,
        "proposed_at": micros(found.proposed_at),
        "proposer": found.proposer,
        "approvals": json([_approval(given) for given in found.approvals]),
        **_standing(found.standing),
    }


@dataclass(frozen=True, slots=True)
class _Unsponsored:
    by: ActorId
    at: datetime
    run_id: RunId
    evidence: Digest
    reason: str


def _approval(given: Approval) -> Approval | _Unsponsored:
    """Without a sponsor it is written as it was before there were any: rows of then still hold."""
    if given.sponsor is not None:
        return given
    return _Unsponsored(given.by, given.at, given.run_id, given.evidence, given.reason)


def _standing(standing: Standing) -> Row:
    row: dict[str, Cell] = dict.fromkeys(
        ("standing_at", "standing_by", "standing_reason", "applied_seq")
    )
    match standing:
        case Proposed():
            row |= {"standing": "proposed"}
        case Approved(at=at):
            row |= {"standing": "approved", "standing_at": micros(at)}
        case Rejected(at=at, by=by, reason=why):
            row |= {"standing": "rejected", "standing_at": micros(at)}
            row |= {"standing_by": by, "standing_reason": why}
        case Applied(at=at, seq=seq):
            row |= {"standing": "applied", "standing_at": micros(at), "applied_seq": seq}
        case Void(at=at, reason=reason):
            row |= {"standing": "void", "standing_at": micros(at)}
            row |= {"standing_reason": reason.value}
        case _:
            assert_never(standing)
    return row


def _activation(view: WorldView, key: Key) -> Row | None:
    found = view.live.get(StrategyId(str(key)))
    if found is None:
        return None
    return {
        "world_id": view.world_id,
        "strategy_id": found.strategy_id,
        "candidate_id": found.candidate_id,
        "run_id": found.run_id,
        "step": found.step,
        "applied_weight": found.applied_weight,
        "weight": found.weight,
        "freeze": found.freeze,
        "drain": found.drain,
        "sequence": found.sequence,
        "at": micros(found.at),
        "acknowledged": found.acknowledged,
    }


def _confirmation(view: WorldView, key: Key) -> Row | None:
    found = view.confirmations.get(str(key))
    if found is None:
        return None
    return {
        "world_id": view.world_id,
        "confirmation_id": found.confirmation_id,
        "what": found.what,
        "policy_version": found.policy_version,
        "by": found.by,
        "at": micros(found.at),
    }


def _listed(view: WorldView, key: Key) -> Row | None:
    found = view.worlds.get(WorldId(str(key)))
    if found is None:
        return None
    return {
        "world_id": view.world_id,
        "listed": found.world_id,
        "name": found.name,
        "description": found.description,
        "labels": json(found.labels),
        "allow_live": found.allow_live,
        "created_at": micros(found.created_at),
        "created_by": found.created_by,
    }


def _token(view: WorldView, key: Key) -> Row | None:
    found = view.tokens.get(str(key))
    if found is None:
        return None
    return {
        "world_id": view.world_id,
        "token_sha256": found.token_sha256,
        "actor": found.actor,
        "roles": json(found.roles),
        "valid_in": found.world_id,
        "expires_at": at_or_none(found.ends_at),
        "created_at": micros(found.created_at),
    }


def _stages(view: WorldView) -> Iterable[Key]:
    return ((sid, stage) for sid in view.strategies for stage in Stage)


POLICIES = Projection(schema.policies, ("version",), lambda v: v.policies, _each(_policy))
STRATEGIES = Projection(schema.strategies, ("strategy_id",), lambda v: v.strategies, _strategies)
SERIES_STATE = Projection(schema.series_state, ("strategy_id", "stage"), _stages, _series_states)
LATEST_RUNS = Projection(
    schema.latest_runs, ("strategy_id", "stage"), lambda v: v.runs, _each(_latest_run)
)
CANDIDATES = Projection(
    schema.candidates, ("candidate_id",), lambda v: v.candidates, _each(_candidate)
)
ACTIVATIONS = Projection(schema.activations, ("strategy_id",), lambda v: v.live, _each(_activation))
CONFIRMATIONS = Projection(
    schema.confirmations, ("confirmation_id",), lambda v: v.confirmations, _each(_confirmation)
)
WORLD_LIST = Projection(schema.world_list, ("listed",), lambda v: v.worlds, _each(_listed))
TOKENS = Projection(schema.tokens, ("token_sha256",), lambda v: v.tokens, _each(_token))
# Parents before children, as foreign keys want it.
PROJECTIONS = (
    POLICIES,
    STRATEGIES,
    SERIES_STATE,
    LATEST_RUNS,
    CANDIDATES,
    ACTIVATIONS,
    CONFIRMATIONS,
    WORLD_LIST,
    TOKENS,
)
