"""The keys of a policy document: what may be written, and what each part means in the core.

Each key is known or refused; what it means when it is left out is the core's own default.  The
`meaning` of a group is the core's value; `_...` methods are what one key asks of another.
"""

import itertools
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    create_model,
    model_validator,
)

from qmtl.adapters.policies.words import (
    COUNT_MAX,
    GATE_UNITS,
    PARTS_MAX,
    PERIODS_PER_YEAR_MAX,
    RANGES,
    SLOTS_MAX,
    Correlation,
    Count,
    Fraction,
    FreezeEntry,
    Given,
    Length,
    Metric,
    OrNone,
    Probability,
    Problem,
    Sharpe,
    Span,
    length_text,
    refuse,
)
from qmtl.core import policy as core
from qmtl.core.names import Role, Stage

_DATA, _CAMPAIGN, _GATES, _EVIDENCE = core.Data(), core.Campaign(), core.Gates(), core.Evidence()
_FUTILITY, _CONSISTENCY = core.Futility(), core.Consistency()
_APPROVAL, _GOVERNANCE, _PAPER = core.ManualApproval(), core.Governance(), core.PaperEvidence()


class Keys(BaseModel):
    """A group of keys; each is known or refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


# ---- What is observed ------------------------------------------------------------------------


class DataKeys(Keys):
    """What the returns are."""

    periods_per_year: Annotated[float, Field(ge=1, le=PERIODS_PER_YEAR_MAX)] = (
        _DATA.periods_per_year
    )
    max_lag: Span = _DATA.max_lag

    def meaning(self) -> core.Data:
        return core.Data(periods_per_year=self.periods_per_year, max_lag=self.max_lag)


class BacktestWindowKeys(Keys):
    """How much history a backtest must have."""

    window: Span = _CAMPAIGN.backtest.span
    min_observations: Count = _CAMPAIGN.backtest.min_observations

    def meaning(self) -> core.Window:
        return core.Window(span=self.window, min_observations=self.min_observations)


class PaperWindowKeys(Keys):
    """How long a strategy is watched on paper; max_window null: without end."""

    window: Span = _CAMPAIGN.paper.span
    min_observations: Count = _CAMPAIGN.paper.min_observations
    max_window: Span | None = _CAMPAIGN.paper.max_window

    @model_validator(mode="after")
    def _holds_the_window(self) -> Self:
        if self.max_window is not None and self.max_window < self.window:
            most, window = length_text(self.max_window), length_text(self.window)
            refuse([(("max_window",), f"{most} is shorter than the window, {window}.")])
        return self

    def meaning(self) -> core.Window:
        return core.Window(
            span=self.window, min_observations=self.min_observations, max_window=self.max_window
        )


class CampaignKeys(Keys):
    """How long a strategy is observed, and how often it is evaluated."""

    backtest: BacktestWindowKeys = BacktestWindowKeys()
    paper: PaperWindowKeys = PaperWindowKeys()
    evaluate_every: Span = _CAMPAIGN.evaluate_every

    def meaning(self) -> core.Campaign:
        return core.Campaign(
            backtest=self.backtest.meaning(),
            paper=self.paper.meaning(),
            evaluate_every=self.evaluate_every,
        )


class BoundKeys(Keys):
    """A gate: the least and the most its metric may be."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    min: Annotated[float | None, *Given] = None
    max: Annotated[float | None, *Given] = None

    @model_validator(mode="after")
    def _some_value_passes(self) -> Self:
        if self.min is None and self.max is None:
            refuse([((), "needs a min or a max.")])
        elif self.min is not None and self.max is not None and not self.min <= self.max:
            refuse([(("min",), f"{self.min:g} is above max, {self.max:g}: no value passes.")])
        return self


class StageKeys(Keys):
    """The gates of a stage.  Its fields, one a metric, are made below from GATE_UNITS."""

    def bounds(self) -> tuple[core.Bound, ...]:
        """In the order of the names: the order of writing has no meaning."""
        given = sorted((metric, bound) for metric, bound in self if bound is not None)
        return tuple(core.Bound(metric=metric, **dict(bound)) for metric, bound in given)


def _bound_of(metric: str) -> Any:
    """The bound of one metric: both ends within the metric's range."""
    low, high = RANGES.get(metric, (None, None))
    end: Any = (Annotated[float | None, Field(ge=low, le=high), *Given], None)
    unit = GATE_UNITS[metric]
    model = create_model(
        f"Bound_{metric}", __base__=BoundKeys, __doc__=f"{metric}: {unit}.", min=end, max=end
    )
    return Annotated[model | None, *Given], None


if TYPE_CHECKING:
    StageGates = StageKeys
else:
    StageGates = create_model(
        "StageGates", __base__=StageKeys, **{metric: _bound_of(metric) for metric in GATE_UNITS}
    )


class GatesKeys(Keys):
    """Per stage, what is asked of its metrics; all of them."""

    backtest: StageGates = StageGates()
    paper: StageGates = StageGates()
    shadow: StageGates = StageGates()
    live: StageGates = StageGates()
    dryrun: StageGates = Field(default=StageGates(), description="Another name of paper.")
    on_missing: Annotated[core.OnMissing, Field(strict=False)] = _GATES.on_missing

    @model_validator(mode="after")
    def _paper_has_one_name(self) -> Self:
        if {"paper", "dryrun"} <= self.model_fields_set:
            refuse([(("dryrun",), "is another name of paper, and paper is there too: write one.")])
        return self

    def meaning(self) -> core.Gates:
        paper = self.dryrun if "dryrun" in self.model_fields_set else self.paper
        stages = {
            Stage.BACKTEST: self.backtest.bounds(),
            Stage.PAPER: paper.bounds(),
            Stage.SHADOW: self.shadow.bounds(),
            Stage.LIVE: self.live.bounds(),
        }
        by_stage = {stage: bounds for stage, bounds in stages.items() if bounds}
        return core.Gates(by_stage=by_stage, on_missing=self.on_missing)


# ---- What is demanded ------------------------------------------------------------------------


class SelectionTestKeys(Keys):
    """The largest p-value of a backtest, corrected for the variants tried."""

    max_p: Probability = 0.05


class PaperEvidenceKeys(Keys):
    """How the e-value of a paper campaign is computed."""

    method: Literal["t_mixture", "bounded", "group_sequential"] = _PAPER.method
    hurdle_annual: Annotated[float, Field(ge=-1, le=1)] = _PAPER.hurdle_annual
    block: Annotated[int, Field(ge=1, le=10_000)] = _PAPER.block
    design_sharpe_annual: Sharpe = _PAPER.design_sharpe_annual
    backtest_credit_cap: Annotated[float, Field(ge=0, le=3)] = _PAPER.backtest_credit_cap


class FutilityKeys(Keys):
    """When a strategy is refuted."""

    sharpe_annual: Sharpe = _FUTILITY.sharpe_annual
    beta: Probability = _FUTILITY.beta


class ConsistencyKeys(Keys):
    """How near paper must be to its replay."""

    max_tracking_error_annual: Annotated[float, Field(gt=0, le=10)] = (
        _CONSISTENCY.max_tracking_error_annual
    )
    alpha: Probability = _CONSISTENCY.alpha


class DecayKeys(Keys):
    """Observations between false alarms on a healthy strategy."""

    mean_false_alarm: Annotated[int, Field(ge=2, le=COUNT_MAX)] = 504


class EvidenceKeys(Keys):
    """What the returns must prove."""

    alpha: Probability = _EVIDENCE.alpha
    multiplicity: Literal["e_bh", "spending", "per_strategy"] = _EVIDENCE.multiplicity
    trials_default: Count = _EVIDENCE.trials_default
    selection: Annotated[SelectionTestKeys | None, *OrNone] = SelectionTestKeys()
    paper: PaperEvidenceKeys = PaperEvidenceKeys()
    futility: Annotated[FutilityKeys | None, *OrNone] = FutilityKeys()
    consistency: Annotated[ConsistencyKeys | None, *OrNone] = ConsistencyKeys()
    decay: Annotated[DecayKeys | None, *OrNone] = DecayKeys()

    def meaning(self) -> core.Evidence:
        return core.Evidence(
            alpha=self.alpha,
            multiplicity=self.multiplicity,
            trials_default=self.trials_default,
            selection_max_p=self.selection.max_p if self.selection else None,
            paper=core.PaperEvidence(**dict(self.paper)),
            futility=core.Futility(**dict(self.futility)) if self.futility else None,
            consistency=core.Consistency(**dict(self.consistency)) if self.consistency else None,
            decay_mean_false_alarm=self.decay.mean_false_alarm if self.decay else None,
        )


class TopKKeys(Keys):
    """Only the best k of a cohort."""

    metric: Metric
    k: Annotated[int, Field(ge=1, le=SLOTS_MAX)]


class CorrelationKeys(Keys):
    """The most that two of a cohort may have in common."""

    max: Correlation


class HysteresisKeys(Keys):
    """Enter the selection at `enter`; leave it below `exit`."""

    metric: Metric
    enter: float
    exit: float

    @model_validator(mode="after")
    def _leaves_below_where_it_enters(self) -> Self:
        if not self.exit <= self.enter:
            refuse([(("exit",), f"{self.exit:g} is above enter, {self.enter:g}.")])
        return self


class SelectionKeys(Keys):
    """Who of a cohort goes on."""

    top_k: Annotated[TopKKeys | None, *Given] = None
    correlation: Annotated[CorrelationKeys | None, *Given] = None
    hysteresis: Annotated[HysteresisKeys | None, *Given] = None

    def meaning(self) -> core.Selection | None:
        chosen = core.Selection(
            top_k=core.TopK(**dict(self.top_k)) if self.top_k else None,
            correlation_max=self.correlation.max if self.correlation else None,
            hysteresis=core.Hysteresis(**dict(self.hysteresis)) if self.hysteresis else None,
        )
        return None if chosen == core.Selection() else chosen


# ---- Who decides, and how much ---------------------------------------------------------------


class ApproversKeys(Keys):
    """Who approves, how many, and for how long it holds."""

    roles: Annotated[
        list[Annotated[Role, Field(strict=False)]], Field(min_length=1, max_length=PARTS_MAX)
    ] = Field(default=sorted(_APPROVAL.roles))
    min: Annotated[int, Field(ge=1, le=PARTS_MAX)] = _APPROVAL.min
    expires: Span = _APPROVAL.expires


class RampKeys(Keys):
    """A share of the allocation, and what reaching it takes."""

    fraction: Fraction
    e_value: Annotated[float | None, Field(ge=1, le=1e12), *Given] = None
    observe: Length = timedelta(0)


def _climbs(ramp: list[RampKeys]) -> list[RampKeys]:
    problems: list[Problem] = []
    for i, (lower, step) in enumerate(itertools.pairwise(ramp), start=1):
        if not step.fraction > lower.fraction:
            words = f"{step.fraction:g} is not above that of the step before, {lower.fraction:g}."
            problems.append(((i, "fraction"), words))
        if not (step.e_value or 0.0) >= (lower.e_value or 0.0):
            asked = "nothing" if step.e_value is None else f"{step.e_value:g}"
            words = f"{asked} is less than the step before asks for, {lower.e_value:g}."
            problems.append(((i, "e_value"), words))
    if ramp[-1].fraction != 1.0:
        words = f"the last step must be the whole, 1.0, not {ramp[-1].fraction:g}."
        problems.append(((len(ramp) - 1, "fraction"), words))
    refuse(problems)
    return ramp


class LivePromotionKeys(Keys):
    """Who decides on live, and how much capital follows."""

    mode: Literal["disabled", "manual_approval", "auto_apply"]
    approvers: Annotated[ApproversKeys | None, *Given] = None
    cooldown: Length = _GOVERNANCE.cooldown
    max_live_slots: Annotated[int, Field(ge=1, le=SLOTS_MAX)] = _GOVERNANCE.max_live_slots
    max_live_weight: Fraction = _GOVERNANCE.max_live_weight
    freeze: Annotated[list[FreezeEntry], Field(max_length=PARTS_MAX)] = Field(default=[])
    ramp: Annotated[
        Annotated[
            list[RampKeys], Field(min_length=1, max_length=PARTS_MAX), AfterValidator(_climbs)
        ]
        | None,
        *Given,
    ] = None

    @model_validator(mode="after")
    def _nobody_approves_what_applies_itself(self) -> Self:
        if self.mode == "auto_apply" and self.approvers is not None:
            refuse([(("approvers",), "nobody approves under auto_apply: leave it out.")])
        return self

    def meaning(self, *, evidence: bool) -> core.Governance:
        approvers = self.approvers or ApproversKeys()
        modes: Mapping[str, core.LivePromotion] = {
            "disabled": core.Disabled(),
            "manual_approval": core.ManualApproval(
                roles=frozenset(approvers.roles), min=approvers.min, expires=approvers.expires
            ),
            "auto_apply": core.AutoApply(),
        }
        standard = core.STANDARD_RAMP if evidence else (core.FULL_STEP,)
        ramp = tuple(core.RampStep(**dict(step)) for step in self.ramp or ())
        return core.Governance(
            live_promotion=modes[self.mode],
            cooldown=self.cooldown,
            max_live_slots=self.max_live_slots,
            max_live_weight=self.max_live_weight,
            freeze=tuple(self.freeze),
            ramp=ramp or standard,
        )


class GovernanceKeys(Keys):
    """Who decides."""

    live_promotion: LivePromotionKeys = LivePromotionKeys(mode="disabled")


class RiskKeys(Keys):
    """What the risk snapshot must say."""

    snapshot_max_age: Span | None = None
    max_stress_loss: Annotated[float | None, Field(gt=0, le=1), *Given] = None
    max_pairwise_correlation_to_live: Annotated[float | None, Field(ge=-1, le=1), *Given] = None


class PolicyKeys(Keys):
    """A policy: what a world demands before it promotes a strategy."""

    version: Annotated[int, Field(ge=1, le=1), WithJsonSchema({"const": 1})]
    data: DataKeys = DataKeys()
    campaign: CampaignKeys = CampaignKeys()
    gates: GatesKeys = GatesKeys()
    evidence: Annotated[EvidenceKeys | None, *OrNone] = EvidenceKeys()
    selection: SelectionKeys = SelectionKeys()
    governance: GovernanceKeys = GovernanceKeys()
    risk: RiskKeys = RiskKeys()

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        refuse(list(self._disagreements()))
        return self

    def _disagreements(self) -> Iterator[Problem]:
        live = self.governance.live_promotion
        here = ("governance", "live_promotion")
        if self.evidence is None:
            for i, step in enumerate(live.ramp or ()):
                if step.e_value is not None:
                    yield (*here, "ramp", i, "e_value"), "evidence is none: there are no e-values."
        elif (
            live.mode == "auto_apply"
            and self.evidence.paper.method != "bounded"
            and self.risk.max_stress_loss is None
        ):
            yield (
                (*here, "mode"),
                "auto_apply needs evidence.paper.method: bounded, or risk.max_stress_loss. Other "
                "tests of returns cannot see a crash that has not happened yet: a strategy that "
                "earns little and rarely loses much passes them without skill.",
            )

    def meaning(self) -> core.Policy:
        return core.Policy(
            data=self.data.meaning(),
            campaign=self.campaign.meaning(),
            gates=self.gates.meaning(),
            evidence=self.evidence.meaning() if self.evidence else None,
            selection=self.selection.meaning(),
            governance=self.governance.live_promotion.meaning(evidence=self.evidence is not None),
            risk=core.Risk(**dict(self.risk)),
        )
