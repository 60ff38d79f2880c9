"""The dashboard and the alerts ask for what there is, in PromQL that parses.

Expressions are parsed by promql-parser, which is not Prometheus' own; the structure of the rules,
which `promtool check rules` would look at, is checked here key by key.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import promql_parser as promql
import pytest
import yaml

from qmtl.core.names import Phase, Stage, WorldState
from qmtl.entry import observed, reference

FOLDER = Path(__file__).parents[2] / "deploy" / "observe"
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text())
ALERTS = [alert for group in RULES["groups"] for alert in group["rules"]]
BOARD = json.loads((FOLDER / "dashboard.json").read_text())
PANELS = [panel for panel in BOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    (f"{panel['title']} {target['refId']}", target)
    for panel in PANELS
    for target in panel["targets"]
]
OF_PROMETHEUS: Final = {"job", "instance"}  # Labels that a scrape gives to everything.
VALUES: Final = {
    "stage": set(Stage),
    "state": set(WorldState),
    "phase": set(Phase),
    "standing": {"proposed", "approved", "rejected"},
}


def metrics() -> dict[str, set[str]]:
    """Every series that can be asked for, with its labels."""
    found = {"up": set[str]()}
    for name, kind, labels, _ in observed.listed():
        if kind == "histogram":
            found |= {f"{name}_{part}": set(labels) for part in ("count", "sum")}
            found[f"{name}_bucket"] = {*labels, "le"}
        else:
            found[name] = set(labels)
    return {name: labels | OF_PROMETHEUS for name, labels in found.items()}


METRICS = metrics()


def parsed(expr: str) -> promql.Expr:
    """Grafana's own variables stand for what it puts there."""
    return promql.parse(expr.replace("$__rate_interval", "5m").replace("$world", "x"))


def nodes(expr: promql.Expr) -> Iterator[Any]:
    found: list[Any] = []
    promql.walk(expr, pre_visit=lambda node: found.append(node))
    yield from found


def faults(expr: str) -> list[str]:
    """What an expression asks for that there is not."""
    try:
        tree = parsed(expr)
    except ValueError as error:
        return [str(error)]
    found, known = [], set[str]()
    for node in nodes(tree):
        if not isinstance(node, promql.VectorSelector):
            continue
        if node.name not in METRICS:
            found.append(f"there is no metric {node.name}")
            continue
        known |= METRICS[node.name]
        for matcher in node.matchers.matchers:
            if matcher.name not in METRICS[node.name]:
                found.append(f"{node.name} has no label {matcher.name}")
            asked = set(matcher.value.split("|")) - {"x"}
            if not asked <= VALUES.get(matcher.name, asked):
                found.append(f"{matcher.name} is never {matcher.value}")
    for node in nodes(tree) if not found else ():
        if isinstance(node, promql.AggregateExpr) and node.modifier is not None:
            found += [f"by {name}" for name in node.modifier.labels if name not in known]
    return found


def labels_of(expr: str) -> set[str]:
    """The labels that are left on what an expression finds: of the outermost aggregation on its
    left, else all."""
    tree = parsed(expr)
    while True:
        if isinstance(tree, promql.BinaryExpr):
            tree = tree.lhs
        elif isinstance(tree, promql.ParenExpr):
            tree = tree.expr
        elif isinstance(tree, promql.Call):
            tree = tree.args[-1]
        else:
            break
    if isinstance(tree, promql.AggregateExpr):
        return set(tree.modifier.labels) if tree.modifier is not None else set()
    assert isinstance(tree, promql.VectorSelector)
    return METRICS[str(tree.name)]


# ---- Alerts ------------------------------------------------------------------------------------


def wrong(alert: dict[str, Any]) -> Iterator[str]:
    """What of an alert Prometheus would refuse, or a person could not use."""
    if not set(alert) <= {"alert", "expr", "for", "labels", "annotations"}:
        yield f"unknown keys: {sorted(alert)}"
    if not re.fullmatch(r"Qmtl[A-Z][A-Za-z]+", str(alert.get("alert"))):
        yield "its name"
    if not re.fullmatch(r"[1-9]\d*[smhd]", alert.get("for", "1m")):
        yield "for"
    if alert.get("labels", {}).get("severity") not in ("warning", "critical"):
        yield "severity"
    told = alert.get("annotations", {})
    if set(told) != {"summary", "what_to_do"}:
        yield "it says what is wrong and what to do, and nothing else"
    if not all(len(str(text)) > 20 for text in told.values()):
        yield "it says next to nothing"
    problems = faults(alert["expr"])
    yield from problems
    said = " ".join(map(str, told.values()))
    for template in re.findall(r"\{\{(.*?)\}\}", said):
        use = re.fullmatch(r" \$(?:labels\.(\w+)|value(?: \| humanize\w*)?) ", template)
        if use is None:
            yield f"template {template}"
        elif use[1] and not problems and use[1] not in labels_of(alert["expr"]):
            yield f"label {use[1]} is not left"
    for command in re.findall(r"`(qmtl [a-z -]+[a-z])", said):
        words = command.split(" --")[0].split()
        if not any(f"## `{' '.join(words[:n])}`" in CLI for n in (2, 3)):
            yield f"there is no {command}"


CLI = reference.pages()["cli.md"]


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_can_fire_and_says_what_to_do(alert: dict[str, Any]) -> None:
    assert list(wrong(alert)) == []


def test_the_rules_are_groups_of_rules() -> None:
    assert set(RULES) == {"groups"}
    assert all(set(group) <= {"name", "interval", "rules"} for group in RULES["groups"])
    for names in ([g["name"] for g in RULES["groups"]], [a["alert"] for a in ALERTS]):
        assert len(names) == len(set(names)) > 0


TOLD = {
    "summary": "The world {{ $labels.world }} was killed",
    "what_to_do": "Ask `qmtl status` what is the matter",
}
GOOD = {
    "alert": "QmtlSome",
    "expr": "max by (world) (qmtl_world_killed) == 1",
    "for": "5m",
    "labels": {"severity": "critical"},
    "annotations": TOLD,
}
BROKEN = [
    ("there is no metric qmtl_world_kiled", {"expr": "max by (world) (qmtl_world_kiled) == 1"}),
    ("has no label stage", {"expr": 'max by (world) (qmtl_world_killed{stage="live"}) == 1'}),
    ("is never", {"expr": 'max by (world) (qmtl_world_quiet_strategies{stage="lvie"}) > 0'}),
    ("by word", {"expr": "max by (world, word) (qmtl_world_killed) == 1"}),
    ("no metric", {"expr": "sum by (world) (rate(qmtl_world_entries_total[5m])) > 0"}),
    ("unclosed", {"expr": "max by (world) (qmtl_world_killed == 1"}),
    ("label world is not left", {"expr": "max(qmtl_world_killed) == 1"}),
    ("for", {"for": "5 minutes"}),
    ("severity", {"labels": {}}),
    ("what to do", {"annotations": {"summary": TOLD["summary"]}}),
    ("next to nothing", {"annotations": {**TOLD, "what_to_do": "Look."}}),
    ("unknown keys", {"annotation": {}}),
    ("its name", {"alert": "killed"}),
    ("no qmtl statsu", {"annotations": {**TOLD, "what_to_do": "Ask `qmtl statsu` of it all"}}),
    ("template", {"annotations": {**TOLD, "summary": "The world {{ labels.world }} was killed"}}),
]


def test_what_is_right_is_left_alone() -> None:
    assert list(wrong(GOOD)) == []


@pytest.mark.parametrize(("why", "change"), BROKEN, ids=[why for why, _ in BROKEN])
def test_one_thing_that_is_wrong_is_found(why: str, change: dict[str, Any]) -> None:
    found = list(wrong({**GOOD, **change}))
    assert len(found) == 1, found
    assert why in found[0]


# ---- The dashboard -----------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "target"), QUERIES, ids=[name for name, _ in QUERIES])
def test_a_query_of_the_dashboard_asks_for_what_there_is(name: str, target: Any) -> None:
    assert faults(target["expr"]) == []
    left = labels_of(target["expr"])
    assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= left
    assert target["datasource"]["uid"] == "${datasource}"


def test_the_panels_are_whole_and_do_not_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        mine = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not taken & mine, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= mine
    assert all(panel["description"].endswith(".") and panel["targets"] for panel in PANELS)
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(ids) == len(set(ids))
    (world,) = (each for each in BOARD["templating"]["list"] if each["name"] == "world")
    metric = re.fullmatch(r"label_values\((\w+), world\)", world["query"]["query"])
    assert metric is not None
    assert "world" in METRICS[metric[1]]


def test_every_metric_is_looked_at_somewhere() -> None:
    asked = " ".join([*(alert["expr"] for alert in ALERTS), *(t["expr"] for _, t in QUERIES)])
    assert [name for name, *_ in observed.listed() if name not in asked] == []


# ---- The scrape --------------------------------------------------------------------------------


def test_prometheus_is_told_where_the_rules_are_and_that_a_token_is_needed() -> None:
    told = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert all((FOLDER / name).is_file() for name in told["rule_files"])
    server, gateway = told["scrape_configs"]
    assert server["authorization"] == {"credentials_file": "prometheus.token"}
    assert "authorization" not in gateway, "a gateway's own figures are of no world"
    assert all(job["job_name"].startswith("qmtl") for job in (server, gateway)), "as QmtlDown asks"
