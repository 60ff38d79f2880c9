"""Who acts in the proving ground, and what each may do."""

from datetime import datetime

from qmtl.app.step import By
from qmtl.core.names import ActorId, Role

ANN, BOB = ActorId("ann"), ActorId("bob")  # They write strategies.
LOOP = ActorId("loop")  # Evaluates and applies, and so proposes.
FEED = ActorId("feed")  # Produces returns.
PIA, PETE = ActorId("pia"), ActorId("pete")  # They approve.
OTTO = ActorId("otto")  # Operates.
POLLY, PAUL = ActorId("polly"), ActorId("paul")  # They write policies.

ROLES = {
    ANN: {Role.AUTHOR, Role.APPROVER},  # An author who may approve: not what she wrote herself.
    BOB: {Role.AUTHOR},
    LOOP: {Role.OPERATOR, Role.APPROVER},  # Likewise: not what it proposed.
    FEED: {Role.PRODUCER},
    PIA: {Role.APPROVER},
    PETE: {Role.APPROVER},
    OTTO: {Role.OPERATOR},
    POLLY: {Role.POLICY_ADMIN, Role.OPERATOR},
    PAUL: {Role.POLICY_ADMIN, Role.OPERATOR},
}


def by(actor: ActorId, now: datetime) -> By:
    """One of the cast at an instant; a stranger has no role."""
    return By(actor=actor, roles=frozenset(ROLES.get(actor, ())), now=now)
