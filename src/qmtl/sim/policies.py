"""Policies from a seed: small enough that something happens in days, every part of them used."""

from datetime import timedelta
from random import Random

from qmtl.core.names import Role, Stage
from qmtl.core.policy import (
    AutoApply,
    Bound,
    Campaign,
    Consistency,
    Data,
    Disabled,
    Evidence,
    Freeze,
    Futility,
    Gates,
    Governance,
    Hysteresis,
    LivePromotion,
    ManualApproval,
    OnMissing,
    PaperEvidence,
    Policy,
    RampStep,
    Risk,
    Selection,
    TopK,
    Window,
)

DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def policy(rng: Random) -> Policy:
    """A policy of daily bars that a good strategy can pass within two weeks, more or less."""
    evidence = _evidence(rng)
    return Policy(
        data=Data(periods_per_year=365.25, max_lag=rng.choice([1, 2, 5]) * DAY),
        campaign=Campaign(
            backtest=Window(span=rng.randint(2, 8) * DAY, min_observations=rng.randint(2, 8)),
            paper=_paper(rng),
            evaluate_every=rng.choice([HOUR, DAY]),
        ),
        gates=Gates(
            by_stage={stage: bounds for stage in Stage if (bounds := _bounds(rng, stage))},
            on_missing=rng.choice(list(OnMissing)),
        ),
        evidence=evidence,
        selection=_selection(rng),
        governance=_governance(rng, evidence=evidence is not None),
        risk=Risk(
            snapshot_max_age=rng.choice([None, None, 10 * timedelta(minutes=1), DAY]),
            max_stress_loss=rng.choice([None, 0.3]),
            max_pairwise_correlation_to_live=rng.choice([None, None, 0.5, 0.9]),
        ),
    )


def _evidence(rng: Random) -> Evidence | None:
    """None, or one that a good strategy of a few weeks can give."""
    if rng.random() < 0.5:
        return None
    return Evidence(
        alpha=rng.choice([0.05, 0.3]),
        multiplicity=rng.choice(["e_bh", "e_bh", "spending", "per_strategy"]),
        trials_default=rng.choice([1, 10]),
        selection_max_p=rng.choice([None, 0.5]),
        paper=PaperEvidence(
            method=rng.choice(["t_mixture", "t_mixture", "bounded", "group_sequential"]),
            hurdle_annual=rng.choice([0.0, 0.02]),
            block=rng.choice([1, 1, 2]),
            design_sharpe_annual=rng.choice([4.0, 12.0]),
            backtest_credit_cap=rng.choice([1.0, 3.0]),
        ),
        futility=rng.choice([None, Futility(sharpe_annual=2.0, beta=0.1)]),
        consistency=rng.choice([None, None, Consistency()]),
        decay_mean_false_alarm=rng.choice([None, 50]),
    )


def _paper(rng: Random) -> Window:
    days = rng.randint(1, 4)
    longest = rng.choice([None, (days + rng.randint(4, 20)) * DAY])
    return Window(span=days * DAY, min_observations=rng.randint(1, 5), max_window=longest)


def _bounds(rng: Random, stage: Stage) -> tuple[Bound, ...]:
    """In the order of their names, as a document's are."""
    kept = (
        (Bound(metric="max_drawdown", max=rng.choice([0.1, 0.3])), 0.6),
        (Bound(metric="sharpe_annual", min=rng.choice([-1.0, 0.5])), 0.4),
        (Bound(metric="stress_loss_max", max=0.5), 0.1),
        (Bound(metric="trades_total", min=10.0), 0.1),
    )
    likely = 0.5 if stage is Stage.BACKTEST else 1.0
    return tuple(bound for bound, share in kept if rng.random() < share * likely)


def _selection(rng: Random) -> Selection | None:
    band = Hysteresis(metric="sharpe_annual", enter=1.0, exit=0.0)
    chosen = Selection(
        top_k=rng.choice([None, TopK(metric="sharpe_annual", k=rng.randint(1, 3))]),
        correlation_max=rng.choice([None, None, 0.5]),
        hysteresis=rng.choice([None, None, band]),
    )
    return None if rng.random() < 0.5 or chosen == Selection() else chosen


def _governance(rng: Random, *, evidence: bool) -> Governance:
    manual = ManualApproval(
        roles=frozenset({Role.APPROVER}),
        min=rng.randint(1, 2),
        expires=rng.choice([2 * HOUR, 3 * DAY]),
    )
    modes: list[LivePromotion] = [manual, manual, AutoApply(), AutoApply(), Disabled()]
    nightly = Freeze(cron=f"0 {rng.randint(0, 23)} * * *", length=rng.randint(1, 6) * HOUR)
    return Governance(
        live_promotion=modes[int(rng.random() ** 1.5 * len(modes))],
        cooldown=rng.choice([timedelta(0), HOUR, 3 * DAY]),
        max_live_slots=rng.randint(1, 3),
        max_live_weight=rng.choice([0.3, 1.0]),
        freeze=(nightly,) if rng.random() < 0.2 else (),
        ramp=_ramp(rng, evidence=evidence),
    )


def _ramp(rng: Random, *, evidence: bool) -> tuple[RampStep, ...]:
    below = sorted(rng.sample([0.1, 0.25, 0.5, 0.75], rng.randint(0, 2)))
    asked = sorted(rng.sample([1.5, 2.0, 3.0, 5.0], len(below) + 1)) if evidence else []
    return tuple(
        RampStep(
            fraction=fraction,
            e_value=asked[i] if evidence else None,
            observe=rng.randint(0, 2) * DAY,
        )
        for i, fraction in enumerate((*below, 1.0))
    )
