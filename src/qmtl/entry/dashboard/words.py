"""What the words on the pages mean, for who has never seen them: one page, linked from where they
stand."""

from typing import Final

from fastapi import Response

from qmtl.entry import auth

from .visits import Pages, VisitIn

PAGES = Pages()

WORDS: Final[tuple[tuple[str, str], ...]] = (
    ("world", "A market or a desk: one policy, the strategies under it, and a journal of its own."),
    (
        "policy",
        "What the world asks of a strategy: how long it is watched, what it must show, who "
        "approves, how much capital it gets, and when it is taken out.",
    ),
    (
        "phase",
        "Where a strategy stands: backtest, then paper, then live; retired when it is out. Only "
        "who is live has capital.",
    ),
    (
        "stage",
        "Where returns come from: a backtest, trading on paper, or live. The evidence of one is "
        "never taken for that of another.",
    ),
    (
        "mode",
        "What a strategy may do at this moment. live: trade with its weight. paper: trade without "
        "capital. compute-only: compute, and trade nothing.",
    ),
    (
        "weight",
        "The share of the world's capital that a strategy may use. Applied: as it was let through; "
        "now: after a freeze, a drain or silence.",
    ),
    (
        "window",
        "How much data a phase asks for, in time and in number of returns. It fills with returns, "
        "not with waiting.",
    ),
    (
        "run",
        "One evaluation of a strategy's returns. Its verdict is pass, fail or inconclusive; only "
        "pass lets it go on.",
    ),
    (
        "gate",
        "A bound that must hold, such as a worst drawdown of at most 0.15; and all that must hold "
        "at once before a strategy gets capital.",
    ),
    (
        "candidate",
        "A proposal to take a strategy one step up, made when its run passes. It waits for "
        "approval where the policy says so.",
    ),
    (
        "ramp",
        "The steps in which a strategy gets its capital, a little first. Each goes through the "
        "gate again.",
    ),
    (
        "e-value",
        "How much the returns speak against having no skill. By luck alone it reaches 20 with a "
        "chance of at most 1 in 20, however often anyone looks. Each step asks for so much.",
    ),
    (
        "error budget",
        "How many strategies without skill the policy lets through by luck, at most.",
    ),
    (
        "variant",
        "One value of each parameter. The best of 200 looks good by luck, so the number tried "
        "counts against it.",
    ),
    (
        "Sharpe ratio",
        "Mean return over its deviation, a year: sharpe_annual. Max drawdown, 0.15: the worst loss "
        "from a peak was 15 %. es_p01, var_p01: the loss of the worst 1 % of bars, on average "
        "and at least.",
    ),
    (
        "fingerprint",
        "A digest of a strategy's code, parameters and data. Changed code is a new version, and "
        "starts anew.",
    ),
    (
        "fresh",
        "The newest snapshot is young enough to rely on. Who is not covered by a fresh one is not "
        "promoted.",
    ),
    (
        "snapshot",
        "What a producer posts with each bar: returns, and weights. It is good for a time that "
        "it says itself, and is never changed.",
    ),
    (
        "silent",
        "A live strategy whose returns stop may only compute from this time on, until they come "
        "again.",
    ),
    (
        "slot",
        "How many strategies may be live at once.",
    ),
    (
        "cooldown",
        "The time after a promotion in which nobody else is promoted.",
    ),
    (
        "freeze",
        "Of a strategy: it may compute only, and keeps its place. Of a policy: a time without "
        "promotions. Going down is never frozen.",
    ),
    (
        "drain",
        "A strategy stays live without capital, so that its positions run out.",
    ),
    (
        "held",
        "Taken down by a person: nothing promotes it before an operator releases it.",
    ),
    (
        "kill",
        "Every weight of the world goes to 0 at once, and the gates close until it is resumed.",
    ),
    (
        "journal",
        "Everything that happened, in order. Each entry names the one before by its hash, so that "
        "nobody can change the past unseen.",
    ),
    (
        "campaign loop",
        "The program that judges what is due, proposes, and promotes where the policy lets it: "
        "qmtl world campaign-loop.",
    ),
)


@PAGES.shows(auth.UI + "/words")
def get(visit: VisitIn) -> Response:
    """The words, in the order in which one meets them."""
    return visit.page("words.html", words=WORDS)
