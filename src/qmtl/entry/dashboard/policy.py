"""A world's policy: its versions, what changed between two of them, and what one implies."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final

import yaml
from fastapi import Query, Response

from qmtl.adapters import policies
from qmtl.app.step import world
from qmtl.core.implications import SHARPES_ASSUMED, SIMULATED, Implication
from qmtl.core.policy import Policy
from qmtl.core.view import WorldView
from qmtl.entry import auth
from qmtl.entry.door import WorldIn

from .visits import Pages, VisitIn

PAGES = Pages()
VERSIONS_MAX: Final = 100
VersionAsked = Annotated[int | None, Query(ge=1, le=2**31 - 1)]


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that two versions say differently; empty: it is not there."""

    key: str
    before: str
    after: str


def flat(document: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf of a document with its path."""
    match document:
        case dict() if document:
            for name, part in document.items():
                yield from flat(part, f"{key}.{name}" if key else str(name))
        case list() if any(isinstance(part, dict | list) for part in document):
            for number, part in enumerate(document, start=1):
                yield from flat(part, f"{key}[{number}]")
        case list():
            yield key, ", ".join(map(str, document)) or "none"
        case _:
            yield key, "none" if document in (None, {}) else str(document)


def differences(before: Policy, after: Policy) -> list[Difference]:
    """Key by key, in the order of the document, what is gone last."""
    was, now = (dict(flat(policies.document(each))) for each in (before, after))
    keys = [*now, *(key for key in was if key not in now)]
    return [
        Difference(key, was.get(key, ""), now.get(key, ""))
        for key in keys
        if was.get(key) != now.get(key)
    ]


@lru_cache(maxsize=64)
def _implied(checksum: str, document: str) -> tuple[Implication, ...]:
    """Simulated, so it takes a moment; of one policy it is always the same."""
    return policies.implications(policies.parse(document))


def _text(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


@PAGES.shows(auth.UI + "/worlds/{world_id}/policy")
def get(
    visit: VisitIn,
    world_id: WorldIn,
    version: VersionAsked = None,
    against: VersionAsked = None,
) -> Response:
    """One version, by default the one in force, against the one before it."""
    view = world(visit.store, world_id)
    shown = version or view.default_version
    if shown is None:
        return visit.page("policy.html", view=view, versions=[], found=None)
    found = view.policy_version(shown)
    other = against or _before(view, shown)
    before = None if other is None else view.policy_version(other)
    text = _text(policies.document(found.policy))
    return visit.page(
        "policy.html",
        view=view,
        versions=[view.policies[n] for n in sorted(view.policies, reverse=True)][:VERSIONS_MAX],
        found=found,
        before=before,
        differences=[] if before is None else differences(before.policy, found.policy),
        text=text,
        implied=_implied(found.checksum, text),
        warnings=policies.warnings(found.policy),
        sharpes=[f"{sharpe:g}" for sharpe in SHARPES_ASSUMED],
        simulated=SIMULATED,
    )


def _before(view: WorldView, version: int) -> int | None:
    earlier = [n for n in view.policies if n < version]
    return max(earlier, default=None)
