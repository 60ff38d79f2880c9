"""Policy documents: text -> Policy -> text, and the three that come with the package.

The format is POLICY's.  One meaning has one canonical form, with every default filled in, and one
checksum, however it was written.
"""

import copy
import hashlib
import importlib.resources
import re
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import Any, Final

import rfc8785
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import ErrorDetails

from qmtl.adapters.policies import documents
from qmtl.adapters.policies.documents import shown
from qmtl.adapters.policies.keys import PolicyKeys
from qmtl.adapters.policies.words import GATE_UNITS, freeze_text, length_text, nearest
from qmtl.core.errors import Invalid, UnknownPolicy
from qmtl.core.implications import implications, warnings
from qmtl.core.names import Stage
from qmtl.core.policy import (
    Bound,
    Evidence,
    Governance,
    ManualApproval,
    Policy,
    RampStep,
    Risk,
    Selection,
)

__all__ = [
    "GATE_UNITS",
    "SHIPPED",
    "checksum",
    "document",
    "implications",
    "parse",
    "schema",
    "shipped",
    "warnings",
]

SHIPPED: Final = ("sandbox", "standard", "conservative")
PROBLEMS_MAX: Final = 50  # Nobody mends more at once, and each costs a search for the right word.

_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOUNS: Final = {
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a group of keys",
    "model_type": "a group of keys",
}
_LIMITS: Final = {
    "greater_than": ("above", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("below", "lt"),
    "less_than_equal": ("at most", "le"),
}


def parse(text: str | bytes, media_type: str = documents.YAML) -> Policy:
    """The policy that a document means.

    Raises `Malformed` or `TooLarge` when the text has no single meaning, and `Invalid` when it is
    no policy: its `args` are all the problems, each `path: message`.
    """
    try:
        return PolicyKeys.model_validate(documents.read(text, media_type)).meaning()
    except ValidationError as error:
        found = error.errors(include_url=False)
        problems = [_problem(detail) for detail in found[:PROBLEMS_MAX]]
        if len(found) > PROBLEMS_MAX:
            problems.append(f"(policy): and {len(found) - PROBLEMS_MAX} more problems.")
        raise Invalid(*problems) from None


def document(policy: Policy) -> dict[str, Any]:
    """The canonical form, in JSON's types, every default filled in; `parse` reads it back."""
    campaign = policy.campaign
    assert campaign.backtest.max_window is None, "a backtest has no max_window in the format"
    longest = campaign.paper.max_window
    return {
        "version": 1,
        "data": {
            "periods_per_year": policy.data.periods_per_year,
            "max_lag": length_text(policy.data.max_lag),
        },
        "campaign": {
            "backtest": {
                "window": length_text(campaign.backtest.span),
                "min_observations": campaign.backtest.min_observations,
            },
            "paper": {
                "window": length_text(campaign.paper.span),
                "min_observations": campaign.paper.min_observations,
                "max_window": None if longest is None else length_text(longest),
            },
            "evaluate_every": length_text(campaign.evaluate_every),
        },
        "gates": {
            **{str(stage): _gates(policy.gates.of(stage)) for stage in Stage},
            "on_missing": str(policy.gates.on_missing),
        },
        "evidence": "none" if policy.evidence is None else _evidence(policy.evidence),
        "selection": _selection(policy.selection or Selection()),
        "governance": {"live_promotion": _live_promotion(policy.governance)},
        "risk": _risk(policy.risk),
    }


def checksum(policy: Policy) -> str:
    """`sha256:` and the digest of the canonical form (RFC 8785): one meaning, one checksum."""
    return f"sha256:{hashlib.sha256(rfc8785.dumps(document(policy))).hexdigest()}"


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a policy document; not what one key asks of another."""
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **copy.deepcopy(_schema()), "title": "Policy"}


def shipped(name: str) -> str:
    """The YAML text of a policy that comes with the package.  Raises `UnknownPolicy`."""
    if name not in SHIPPED:
        raise UnknownPolicy(f"{shown(name)} does not come with qmtl: {', '.join(SHIPPED)} do.")
    folder = importlib.resources.files("qmtl") / "policies"
    return (folder / f"{name}.yaml").read_text(encoding="utf-8")


# ---- Parts of the canonical form -------------------------------------------------------------


def _present(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _gates(bounds: tuple[Bound, ...]) -> dict[str, object]:
    return {bound.metric: _present(min=bound.min, max=bound.max) for bound in bounds}


def _evidence(evidence: Evidence) -> dict[str, object]:
    paper, futility, consistency = evidence.paper, evidence.futility, evidence.consistency
    parts: dict[str, object] = {
        "selection": _present(max_p=evidence.selection_max_p),
        "futility": futility and {"sharpe_annual": futility.sharpe_annual, "beta": futility.beta},
        "consistency": consistency
        and {
            "max_tracking_error_annual": consistency.max_tracking_error_annual,
            "alpha": consistency.alpha,
        },
        "decay": _present(mean_false_alarm=evidence.decay_mean_false_alarm),
    }
    return {
        "alpha": evidence.alpha,
        "multiplicity": evidence.multiplicity,
        "trials_default": evidence.trials_default,
        "paper": {
            "method": paper.method,
            "hurdle_annual": paper.hurdle_annual,
            "block": paper.block,
            "design_sharpe_annual": paper.design_sharpe_annual,
            "backtest_credit_cap": paper.backtest_credit_cap,
        },
        **{name: part or "none" for name, part in parts.items()},
    }


def _selection(selection: Selection) -> dict[str, object]:
    top, band = selection.top_k, selection.hysteresis
    most = selection.correlation_max
    return _present(
        top_k=top and {"metric": top.metric, "k": top.k},
        correlation=None if most is None else {"max": most},
        hysteresis=band and {"metric": band.metric, "enter": band.enter, "exit": band.exit},
    )


def _live_promotion(governance: Governance) -> dict[str, object]:
    live = governance.live_promotion
    approvers = None
    if isinstance(live, ManualApproval):
        approvers = {
            "roles": sorted(str(role) for role in live.roles),
            "min": live.min,
            "expires": length_text(live.expires),
        }
    return {
        "mode": live.mode,
        **_present(approvers=approvers),
        "cooldown": length_text(governance.cooldown),
        "max_live_slots": governance.max_live_slots,
        "max_live_weight": governance.max_live_weight,
        "freeze": [freeze_text(freeze) for freeze in governance.freeze],
        "ramp": [_step(step) for step in governance.ramp],
    }


def _step(step: RampStep) -> dict[str, object]:
    present = _present(fraction=step.fraction, e_value=step.e_value)
    return {**present, "observe": length_text(step.observe)}


def _risk(risk: Risk) -> dict[str, object]:
    age = risk.snapshot_max_age
    return {
        "snapshot_max_age": None if age is None else length_text(age),
        **_present(
            max_stress_loss=risk.max_stress_loss,
            max_pairwise_correlation_to_live=risk.max_pairwise_correlation_to_live,
        ),
    }


# ---- Problems in words -----------------------------------------------------------------------


def _problem(detail: ErrorDetails) -> str:
    loc = detail["loc"]
    return f"{_path(loc)}: {_words(detail, loc)}"


def _path(loc: tuple[str | int, ...]) -> str:
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part if _PLAIN_KEY.fullmatch(part) else shown(part)}"
    return path.removeprefix(".") or "(policy)"


def _words(detail: ErrorDetails, loc: tuple[str | int, ...]) -> str:
    kind, given, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind in _NOUNS:
        return f"must be {_NOUNS[kind]}, not {shown(given)}."
    if kind in _LIMITS:
        words, limit = _LIMITS[kind]
        unit = GATE_UNITS.get(str(loc[-2])) if len(loc) > 1 else None
        hint = f" ({loc[-2]}: {unit})" if unit else ""
        return f"must be {words} {shown(context[limit])}, not {shown(given)}{hint}."
    match kind:
        case "rule":
            return str(context["words"])
        case "value_error":
            return str(context["error"])
        case "missing":
            return "is missing."
        case "extra_forbidden":
            known = _known_keys(loc[:-1])
            noun = "metric" if loc[0] == "gates" and len(loc) == 3 else "key"
            return f"is not a {noun} here.{nearest(str(loc[-1]), known) or _list_of(known)}"
        case "enum" | "literal_error":
            return f"must be {context['expected']}, not {shown(given)}."
        case "too_short" | "too_long":
            least_or_most = "min_length" if kind == "too_short" else "max_length"
            words = "at least" if kind == "too_short" else "at most"
            return f"must have {words} {context[least_or_most]}, not {context['actual_length']}."
        case "finite_number":
            return "must be a finite number."
        case _:
            return f"{detail['msg']}."


def _list_of(known: tuple[str, ...]) -> str:
    return f" Known here: {', '.join(known)}."


class _Schema(GenerateJsonSchema):
    """Defaults as a policy writes them; no titles that only repeat the key."""

    def encode_default(self, dft: object) -> Any:
        match dft:
            case timedelta():
                return length_text(dft)
            case BaseModel():
                return dft.model_dump(mode="json", exclude_none=True)
            case _:
                return super().encode_default(dft)

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


@cache
def _schema() -> dict[str, Any]:
    return PolicyKeys.model_json_schema(schema_generator=_Schema)


def _known_keys(loc: tuple[str | int, ...]) -> tuple[str, ...]:
    """The keys that may stand in the group at `loc`, found by walking the JSON Schema."""
    node = _resolved(_schema())
    for part in loc:
        node = _resolved(node["items"] if isinstance(part, int) else node["properties"][part])
    return tuple(node["properties"])


def _resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """A node of the schema behind its reference, or behind the only variant with keys."""
    while "$ref" in node or "anyOf" in node:
        if "anyOf" in node:
            node = node["anyOf"][0]
        else:
            node = _schema()["$defs"][node["$ref"].rpartition("/")[2]]
    return node
