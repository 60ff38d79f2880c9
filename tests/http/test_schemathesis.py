"""What OpenAPI says is what happens: every check of schemathesis, on generated requests.

A look of some seconds here.  QMTL_SCHEMATHESIS_EXAMPLES=100 is a long one: as many examples a
route, every boundary of every parameter, and chains of requests.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from schemathesis.engine import Status, events, from_schema

from tests.http.harness import Harness, harness_over, with_candidate, with_world

EXAMPLES = int(os.environ.get("QMTL_SCHEMATHESIS_EXAMPLES", "0"))
EXAMPLES_SHORT = 4
CONFIG = Path(__file__).parents[2] / "schemathesis.toml"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    with harness_over("memory", Path(tmp_path_factory.mktemp("schemathesis"))) as harness:
        with_world(harness)
        with_candidate(harness)
        yield harness


def phases() -> list[str]:
    return ["coverage", "fuzzing", "stateful"] if EXAMPLES else ["fuzzing"]


def test_what_is_described_is_what_happens(served: Harness) -> None:
    config = schemathesis.Config.from_path(CONFIG)
    config.projects.default.update(headers=served.headers("admin"))
    config.projects.default.phases.update(phases=phases())
    config.projects.default.generation.update(
        max_examples=EXAMPLES or EXAMPLES_SHORT, database="none", deterministic=not EXAMPLES
    )
    app = served.client.app
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=config)
    tested, wrong = set(), []
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            tested.add(event.label)
            wrong += [
                f"{event.label}: {check.failure_info.failure}"
                for checks in event.recorder.checks.values()
                for check in checks
                if check.status == Status.FAILURE and check.failure_info is not None
            ]
        elif isinstance(event, events.NonFatalError | events.FatalError):
            wrong.append(str(event.value if hasattr(event, "value") else event))
    assert not wrong, "\n\n".join(dict.fromkeys(wrong))
    assert len(tested) > 50
