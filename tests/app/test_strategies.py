"""Strategies: one code under one id, and a submission that is all of it or nothing."""

import numpy as np
import pytest

from qmtl.app import strategies
from qmtl.app.ports import Store
from qmtl.core.errors import Conflict, Invalid, Refusal
from qmtl.core.names import Phase, Stage, Verdict
from qmtl.core.snapshot import PostedSeries
from qmtl.sim import cast
from qmtl.sim.scene import DAY, START
from tests.worlds import ALPHA, BETA, good, in_paper, opened, proposed


def test_bound_once(store: Store) -> None:
    scene = opened(store)
    strategy, created = scene.bind(ALPHA)
    assert (strategy.author, strategy.row, created) == (cast.ANN, 0, True)
    assert scene.bind(ALPHA) == (strategy, False)
    assert scene.bind(ALPHA, cast.BOB) == (strategy, False)
    assert scene.bind(ALPHA, cast.BOB, fingerprint=None) == (strategy, False)


def test_other_code_is_another_strategy(store: Store) -> None:
    scene = opened(store)
    scene.bind(ALPHA)
    for actor in (cast.ANN, cast.BOB):
        with pytest.raises(Conflict):
            scene.bind(ALPHA, actor, fingerprint="other")


def test_its_author_may_tell_the_fingerprint_later(store: Store) -> None:
    scene = opened(store)
    scene.bind(ALPHA, fingerprint=None)
    with pytest.raises(Conflict):
        scene.bind(ALPHA, cast.BOB, fingerprint="mine")
    strategy, created = scene.bind(ALPHA, fingerprint="f")
    assert (strategy.fingerprint, strategy.author, created) == ("f", cast.ANN, False)


def test_a_submission_is_evaluated(store: Store) -> None:
    scene = opened(store)
    run = scene.submit(ALPHA, good(30), stats={"trades_total": 50.0})
    assert (run.stage, run.verdict) == (Stage.BACKTEST, Verdict.PASS)
    assert run.value("trades_total") == 50.0
    assert scene.view.phase(0) is Phase.PAPER
    assert len(store.series(scene.world_id, ALPHA, Stage.BACKTEST).t) == 30


def test_the_same_submission_again_is_the_same(store: Store) -> None:
    scene = opened(store)
    first = scene.submit(ALPHA, good(30), end=START)
    seq = scene.view.seq
    scene.wait(DAY)
    assert scene.submit(ALPHA, good(30), end=START) == first
    assert scene.view.seq == seq


def test_a_submission_with_other_stats_is_another(store: Store) -> None:
    scene = opened(store)
    scene.submit(ALPHA, good(30), stats={"trades_total": 1.0})
    again = scene.submit(ALPHA, good(30), stats={"trades_total": 2.0})
    assert again.value("trades_total") == 2.0
    assert again.revision == 2


@pytest.mark.parametrize(
    ("what", "returns"),
    [
        ("other returns", -good(30)),
        ("more than all is lost", np.append(good(29), -1.5)),
        ("nothing", good(0)),
    ],
)
def test_all_of_it_or_nothing(store: Store, what: str, returns: np.ndarray) -> None:
    scene = in_paper(store)
    seq = scene.view.seq
    with pytest.raises(Refusal):
        scene.submit(ALPHA, returns, end=START - DAY)
    assert scene.view.seq == seq, what


def test_nobody_is_bound_by_a_submission_that_is_refused(store: Store) -> None:
    scene = opened(store)
    with pytest.raises(Invalid):
        scene.submit(ALPHA, np.array([-2.0]))
    assert not scene.view.strategies
    binding = strategies.Binding(strategy_id=ALPHA, name="", fingerprint=None, variants_tried=None)
    untimed = strategies.Submission(
        binding=binding, returns=PostedSeries(None, good(30)), stats={}, engine={}
    )
    with pytest.raises(Invalid):
        strategies.submit(store, scene.world_id, scene.by(cast.ANN), untimed)
    assert not scene.view.strategies


def test_a_longer_backtest_goes_on_where_it_was(store: Store) -> None:
    scene = opened(store)
    short = scene.submit(ALPHA, good(15), end=START - 15 * DAY)
    assert short.verdict is Verdict.INCONCLUSIVE
    whole = scene.submit(ALPHA, good(30), end=START)
    assert whole.verdict is Verdict.PASS


def test_nobody_adds_to_the_backtest_of_another_author(store: Store) -> None:
    scene = opened(store)
    run = scene.submit(ALPHA, good(30), end=START)
    seq = scene.view.seq
    with pytest.raises(Conflict, match="strategy of ann"):
        scene.submit(ALPHA, np.append(good(30), -1.0), cast.BOB, end=START + DAY)
    assert scene.view.seq == seq
    assert scene.submit(ALPHA, good(30), end=START) == run


def test_a_new_id_frees_a_fingerprint_of_no_hold(store: Store) -> None:
    scene = in_paper(store)
    scene.demote(ALPHA)
    with pytest.raises(Conflict, match="held or rejected"):
        scene.submit(BETA, good(30))
    assert BETA not in scene.view.strategies
    scene.release(ALPHA)
    assert scene.submit(BETA, good(30)).verdict is Verdict.PASS


def test_a_new_id_frees_a_fingerprint_of_no_rejection(store: Store) -> None:
    scene = proposed(store)
    scene.reject(ALPHA)
    fingerprint = scene.view.strategies[ALPHA].fingerprint
    with pytest.raises(Conflict, match="held or rejected"):
        scene.submit(BETA, good(30), fingerprint=fingerprint)
