"""Pictures: the right numbers, the same file for the same ones, and refused before any work."""

import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from qmtl.adapters import policies
from qmtl.adapters.memory import MemoryStore
from qmtl.core.course import Course, course
from qmtl.core.facts import PromotionApplied, SnapshotStored
from qmtl.core.fold import advance
from qmtl.core.names import Phase, Stage, StrategyId
from qmtl.core.policy import (
    AutoApply,
    Bound,
    Evidence,
    Gates,
    PaperEvidence,
    Policy,
    RampStep,
    Risk,
    Window,
)
from qmtl.core.view import WorldView
from qmtl.entry import plots
from qmtl.entry.cli import app
from qmtl.entry.cli.context import Setting
from qmtl.sim.scene import DAY, WORLD, Scene
from tests.exports import KEY, exported, head_of, told_of
from tests.worlds import ALPHA, LONELY, governed

RAMP = (RampStep(fraction=0.25, e_value=3.0), RampStep(fraction=1.0, e_value=20.0))
EVIDENCE = Evidence(
    paper=PaperEvidence(block=1, design_sharpe_annual=8.0),  # So that a test is short.
    futility=None,
    consistency=None,
    decay_mean_false_alarm=None,
    multiplicity="per_strategy",
)
PNG = b"\x89PNG"


def asking() -> Policy:
    base = governed(LONELY, live_promotion=AutoApply(), cooldown=0 * DAY, ramp=RAMP)
    paper = Window(span=DAY, min_observations=2, max_window=None)
    return replace(
        base,
        campaign=replace(base.campaign, paper=paper),
        gates=Gates(by_stage={Stage.LIVE: (Bound(metric="max_drawdown", max=0.2),)}),
        evidence=EVIDENCE,
        risk=Risk(),
    )


@cache
def risen() -> Scene:
    """`alpha` goes live on its first step, and to its second; then it loses too much."""
    scene = Scene(MemoryStore())
    scene.create(allow_live=True)
    scene.add_policy(asking(), "asking")
    r = np.random.default_rng(0).normal(0.012, 0.01, 60)
    scene.submit(ALPHA, r[:30])
    for value in (*r[:45], -0.3):
        scene.wait(DAY)
        live = scene.view.phase(scene.view.strategies[ALPHA].row) is Phase.LIVE
        scene.bar(Stage.LIVE if live else Stage.PAPER, {ALPHA: float(value)})
        scene.loop()
    return scene


@cache
def taken() -> Course:
    view = WorldView(world_id=WORLD)
    worlds = []
    for entry in risen().store.journal(WORLD, 0, 100_000):
        view = advance(view, entry)
        worlds.append((entry.at, view))
    return course(worlds, ALPHA)


def test_a_course_has_what_the_gate_was_asked_on() -> None:
    entries = risen().store.journal(WORLD, 0, 100_000)
    applied = [e for e in entries if isinstance(e.fact, PromotionApplied)]
    assert [e.fact.step for e in applied] == [0, 1]
    found = taken()
    for entry, asked in zip(applied, (3.0, 20.0), strict=True):
        after = int(np.flatnonzero(found.at <= entry.at.timestamp())[-1])
        assert found.weight[after] > found.weight[after - 1]
        assert found.e_value[after] == entry.fact.e_value
        assert found.threshold[after - 1] == asked
    assert np.isnan(found.e_value[0])  # No bar yet.
    assert found.weight[-1] == 0.0
    assert found.breaker == 0.2
    assert (np.diff(found.at) >= 0).all()


def test_nobody_has_no_course() -> None:
    assert len(course([(risen().now, risen().view)], StrategyId("nobody"))) == 0
    assert len(course([(risen().now, WorldView(world_id=WORLD))], ALPHA)) == 0


# ---- The commands ------------------------------------------------------------------------------


def handle(request: httpx.Request) -> httpx.Response:
    """A server that knows one world."""
    told = told_of(risen().store, WORLD)
    after = int(request.url.params.get("after", 0))
    answers = {
        f"/worlds/{WORLD}/strategies/alpha/explain": {
            "sentences": ["alpha is on paper."],
            "waits_for": [],
            "would_stop": [],
        },
        "/journal/key": KEY.told,
        f"/worlds/{WORLD}/journal/head": head_of(told, WORLD),
        f"/worlds/{WORLD}/journal": {"entries": told[after:], "next_cursor": None},
    }
    return httpx.Response(200, json=answers[request.url.path])


def run(*asked: str) -> Result:
    setting = Setting(transport=httpx.MockTransport(handle))
    return CliRunner().invoke(app, ["--url", "http://w.test", *asked], obj=setting)


def words(path: Path) -> str:
    """What is written in an SVG."""
    found = ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")
    return " | ".join("".join(each.itertext()) for each in found)


def test_explain_draws_what_was_shown_and_what_it_was_worth(tmp_path: Path) -> None:
    picture = tmp_path / "alpha.svg"
    shown = run("explain", WORLD, "alpha", "--plot", str(picture))
    assert shown.exit_code == 0, shown.output
    assert "alpha is on paper." in shown.stdout
    said = words(picture)
    for each in ("alpha in", "e-value", "asked for by the next step", "weight, %", "drawdown, %"):
        assert each in said
    assert "paper" in said
    assert "demotes from live" in said
    first = picture.read_bytes()
    run("explain", WORLD, "alpha", "--plot", str(picture))
    assert picture.read_bytes() == first


def test_a_png_is_one(tmp_path: Path) -> None:
    picture = tmp_path / "alpha.png"
    assert run("explain", WORLD, "alpha", "--json", "--plot", str(picture)).exit_code == 0
    assert picture.read_bytes().startswith(PNG)


def test_a_policy_is_drawn_with_each_of_its_cases(tmp_path: Path) -> None:
    picture = tmp_path / "policy.svg"
    assert run("policy", "check", "standard", "--plot", str(picture)).exit_code == 0
    said = words(picture)
    for each in ("Sharpe 1", "Sharpe 3", "ramp[0].e_value", "e_bh, 10 campaigns", "years", "0.5"):
        assert each in said
    assert "sharpe_annual" not in said, "a gate takes its window, which is on another scale"


def test_a_threshold_that_half_never_reach_says_so(tmp_path: Path) -> None:
    picture, policy = tmp_path / "never.svg", tmp_path / "never.yaml"
    asked = replace(Evidence(), paper=PaperEvidence(method="group_sequential"))
    standard = policies.parse(policies.shipped("standard"))
    policy.write_text(json.dumps(policies.document(replace(standard, evidence=asked))))
    shown = run("policy", "check", str(policy), "--plot", str(picture))
    assert shown.exit_code == 0, shown.output
    assert "never at Sharpe 1, 2" in words(picture)
    assert "never, never, 1.6" in shown.stdout


@pytest.mark.parametrize(("low", "high"), [(3.0, 25.0), (0.8, 4.2), (0.002, 300.0)])
def test_a_logarithmic_axis_is_written_as_people_write(low: float, high: float) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(plots.SETTINGS):
        axes = Figure().subplots()
        axes.set(yscale="log", ylim=(low, high))
        plots._plain(axes.yaxis)
        said = [text.get_text() for text in axes.yaxis.get_ticklabels(which="both")]
    shown = [float(each) for each in said if each]
    assert sum(low <= each <= high for each in shown) >= 3


def test_a_trial_is_drawn_with_every_truth(tmp_path: Path) -> None:
    picture = tmp_path / "trial.svg"
    asked = ["--worlds", "1", "--strategies", "12", "--days", "5", "--executor", "inline", "--json"]
    told = run("policy", "simulate", "sandbox", *asked, "--plot", str(picture))
    assert told.exit_code == 0, told.output
    said = words(picture)
    for row in json.loads(told.stdout)["rows"]:
        assert f"{row['truth']} ({row['count']})" in said
    assert "looked at daily" in said


def test_a_history_is_drawn_under_both(tmp_path: Path) -> None:
    picture, export = tmp_path / "w.svg", tmp_path / "w.jsonl"
    export.write_bytes(b"".join(exported(told_of(risen().store, WORLD), WORLD)))
    asked = ["--from-world", str(export), "--placebos", "0", "--plot", str(picture)]
    shown = run("policy", "simulate", "standard", *asked)
    assert shown.exit_code == 0, shown.output
    said = words(picture)
    for each in ("under this policy", "in fact", "strategies live"):
        assert each in said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("alpha.txt", ".svg or .png"),
        ("away/alpha.svg", "there is no folder"),
        ("is-a-folder.svg", "cannot be written: Is a directory."),
        ("/proc/alpha.svg", "cannot be written"),  # Root may write anywhere, but there.
    ],
)
def test_what_cannot_be_drawn_is_refused_before_any_work(
    tmp_path: Path, name: str, said: str
) -> None:
    def nobody(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request.url)

    folder = tmp_path / "is-a-folder.svg"
    folder.mkdir()
    setting = Setting(transport=httpx.MockTransport(nobody))
    asked = ["explain", WORLD, "alpha", "--plot", str(tmp_path / name)]
    shown = CliRunner().invoke(app, ["--url", "http://w.test", *asked], obj=setting)
    assert shown.exit_code == 2
    assert said in " ".join(shown.output.split())
    assert list(tmp_path.iterdir()) == [folder]


def test_a_picture_that_was_there_stays_until_there_is_another(tmp_path: Path) -> None:
    picture = tmp_path / "alpha.svg"
    picture.write_bytes(b"old")
    assert plots.checked(picture) == picture
    assert picture.read_bytes() == b"old"


def test_a_disk_that_is_full_at_the_end_is_said_below_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    def full(*_given: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    shown = run("policy", "check", "standard", "--plot", str(tmp_path / "c.svg"))
    assert shown.exit_code == 1
    assert "cannot be written: No space left on device." in " ".join(shown.stderr.split())
    assert "governance.live_promotion.ramp[2]" in shown.stdout
    assert not isinstance(shown.exception, OSError)


def test_a_strategy_that_was_never_on_paper_has_nothing_to_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = [e for e in risen().store.journal(WORLD, 0, 100_000) if e.seq < first_paper_bar()]
    monkeypatch.setattr("qmtl.entry.cli.explain.whole", lambda _ctx, _where: (WORLD, begun))
    shown = run("explain", WORLD, "alpha", "--plot", str(tmp_path / "alpha.svg"))
    assert shown.exit_code == 1
    assert "alpha is on paper." in shown.stdout
    assert "alpha has no return in paper or live yet: there is nothing to draw" in shown.stderr
    assert not list(tmp_path.iterdir())


def first_paper_bar() -> int:
    entries = risen().store.journal(WORLD, 0, 100_000)
    facts = ((e.seq, e.fact) for e in entries if isinstance(e.fact, SnapshotStored))
    return next(seq for seq, fact in facts if fact.stage is Stage.PAPER)


def test_without_matplotlib_it_says_how_to_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    shown = run("policy", "check", "standard", "--plot", str(tmp_path / "c.svg"))
    assert shown.exit_code == 2
    assert "pip install 'qmtl[plot]'" in shown.output
    assert run("policy", "check", "standard").exit_code == 0


def test_a_matplotlib_that_is_broken_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "matplotlib"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('libfreetype.so.6: cannot open')")
    for name in [each for each in sys.modules if each.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    shown = run("policy", "check", "standard", "--plot", str(tmp_path / "c.svg"))
    assert shown.exit_code == 2
    said = " ".join(shown.output.split())
    assert "Matplotlib is installed, but does not load (libfreetype.so.6" in said
    assert "--force-reinstall" in said
