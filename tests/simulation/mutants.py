"""Ways to break each invariant on purpose: where, what for what, and how the simulation says it."""

from dataclasses import dataclass

CORE, APP = "src/qmtl/core", "src/qmtl/app"


@dataclass(frozen=True)
class Mutant:
    """`old` is `new` in a copy of `file`; the simulation has to say one of `found` of it."""

    name: str
    file: str
    old: str
    new: str
    found: tuple[str, ...]


MUTANTS = (
    Mutant(
        "I1: approvals are not asked for",
        f"{CORE}/promotion.py",
        "        *approval_problems(view, policy, candidate, now),\n",
        "",
        ("I1:",),
    ),
    Mutant(
        "I1: a stale snapshot is good enough",
        f"{CORE}/snapshot.py",
        "    if not age <= ttl:\n",
        "    if age > 1_000 * ttl:\n",
        ("I1:",),
    ),
    Mutant(
        "I1: evidence is not asked for",
        f"{CORE}/proving.py",
        "    if found is None or found.enough:\n        return ()\n",
        "    if True:\n        return ()\n",
        ("I1:",),
    ),
    Mutant(
        "I1: an approval never expires",
        f"{CORE}/promotion.py",
        "    return of_other_hands(a for a in given if now - a.at < promotion.expires)\n",
        "    return of_other_hands(given)\n",
        ("I1:",),
    ),
    Mutant(
        "I1: the cooldown is forgotten",
        f"{CORE}/promotion.py",
        "                left <= 0.0,\n",
        "                True,\n",
        ("I1:",),
    ),
    Mutant(
        "I2: a tick writes",
        f"{APP}/campaigns.py",
        "    view = world(store, world_id)\n\n    def dossier(",
        """    view = world(store, world_id)
    from qmtl.core.facts import HoldReleased
    from .ports import Commit

    for sid in list(view.strategies)[:1]:
        fact = HoldReleased(strategy_id=sid, reason="")
        commit = Commit(view.expected, (fact,), "loop", now)  # type: ignore
        store.write(lambda: store.commit(world_id, commit))

    def dossier(""",
        ("I2:",),
    ),
    Mutant(
        "I3: the same evidence is judged again",
        f"{CORE}/evaluation.py",
        "    if recorded is not None and _stands(view, row, found) and _same(found, recorded):\n",
        "    if recorded is not None and recorded.verdict is Verdict.FAIL and "
        "_stands(view, row, found):\n",
        ("I3:",),
    ),
    Mutant(
        "I3: an approval is given again and again",
        f"{CORE}/approvals.py",
        "    if any(a.by == by and a.evidence == evidence for a in standing):\n        return ()\n",
        "",
        ("I3:",),
    ),
    Mutant(
        "I4: a decision outlives its term",
        f"{CORE}/decision.py",
        "    if timedelta(0) <= age < envelope.ttl:\n",
        "    if timedelta(0) <= age < 3 * envelope.ttl:\n",
        ("I4:", "leases:"),
    ),
    Mutant(
        "I4: an older decision replaces a newer one",
        f"{CORE}/decision.py",
        "    if held is None or told.generation >= held.generation:\n",
        "    if True:\n",
        ("I4:",),
    ),
    Mutant(
        "leases: what was taken back is free at once",
        f"{CORE}/leases.py",
        "LEASE_TERM = DECISION_TTL + RECORDED_WITHIN\n",
        "LEASE_TERM = RECORDED_WITHIN\n",
        ("leases:", "I1:"),
    ),
    Mutant(
        "I5: an entry is left out of the journal",
        "src/qmtl/adapters/memory.py",
        "            world.journal.append(entry)\n",
        "            if entry.fact.kind != 'hold_released':\n"
        "                world.journal.append(entry)\n",
        ("I5:",),
    ),
    Mutant(
        "I6: a submission is bound, and then stored",
        f"{APP}/strategies.py",
        "    return store.write(attempt)\n\n\ndef _backtest",
        "    return attempt()\n\n\ndef _backtest",
        ("I6:",),
    ),
    Mutant(
        "I5: a table is not kept up",
        "src/qmtl/adapters/sql/project.py",
        "    touched[r.ACTIVATIONS] |= {\n",
        "    touched[r.CONFIRMATIONS] |= {\n",
        ("I5:",),
    ),
    Mutant(
        "I7: whoever is judged again passes",
        f"{CORE}/evaluation.py",
        "        verdict=_verdict(gates, bool(shortfalls)),\n",
        "        verdict=Verdict.PASS if recorded else _verdict(gates, bool(shortfalls)),\n",
        ("I9:", "I1:", "I3:"),
    ),
    Mutant(
        "I8: a refusal is not recorded",
        f"{CORE}/promotion.py",
        "    if set(view.blocked.get(strategy_id, ())) == set(blocked.reasons):\n"
        "        return ()\n",
        "    return ()\n",
        ("I8:",),
    ),
    Mutant(
        "I8: only the first reason is told",
        f"{CORE}/promotion.py",
        "            if problems or candidate is None:\n"
        "                return Blocked(tuple(problems))\n",
        "            if problems or candidate is None:\n"
        "                return Blocked(tuple(problems[:1]))\n",
        ("I8:",),
    ),
    Mutant(
        "I9: what is not a number passes",
        f"{CORE}/evaluation.py",
        "        above = bound.min is None or value >= bound.min\n",
        "        above = bound.min is None or not value < bound.min - 100.0\n",
        ("I9:",),
    ),
    Mutant(
        "I10: a demotion waits until the ramp was climbed",
        f"{CORE}/promotion.py",
        "    if to is Phase.LIVE:\n        raise Invalid",
        "    if phase is Phase.LIVE and view.standings.step[row] < 1:\n        return ()\n"
        "    if to is Phase.LIVE:\n        raise Invalid",
        ("I10:",),
    ),
    Mutant(
        "I10: a kill spares who is live",
        f"{APP}/worlds.py",
        "        done = view.killed and not view.confirmations\n",
        "        done = bool(view.live) or (view.killed and not view.confirmations)\n",
        ("I10:",),
    ),
)
