"""What the documents say is so: the quickstart runs, and every public thing has its page."""

import re
import socket
import subprocess
from pathlib import Path

import pytest

import qmtl
from qmtl.core.names import Mode, Phase, Reason, Stage, Verdict
from qmtl.entry import reference
from tests import pages
from tests.servers import served

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = reference.pages()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def block(language: str, holding: str) -> pages.Block:
    """The one code block of the README in a language that holds a string."""
    blocks = [each for each in pages.blocks(README) if each.language == language]
    found = [each for each in blocks if holding in each.text]
    assert len(found) == 1, f"{len(found)} {language} blocks hold {holding!r}"
    return found[0]


def test_the_quickstart_runs_as_it_stands(tmp_path: Path) -> None:
    port = free_port()
    script = block("sh", "qmtl serve").text.replace("qmtl serve", f"qmtl serve --port {port}")
    env = pages.environment(HOME=str(tmp_path), QMTL_URL=f"http://127.0.0.1:{port}")
    # `set -m`: jobs as in a person's shell, so that `kill %1` means the server.
    done = subprocess.run(
        ["bash", "-m", "-e", "-c", script],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for told in ("trend in world sandbox: paper", "it waits for", "phase_entered", "invariants"):
        assert told in done.stdout, told


def test_the_python_example_runs_as_it_stands(tmp_path: Path) -> None:
    """Beside the server of the quickstart, whose admin token lies in its data folder."""
    with served(tmp_path / "data") as server:
        data = str(tmp_path / "data")
        env = pages.environment(HOME=str(tmp_path), QMTL_URL=server.url, QMTL_DATA=data)
        said = pages.run(block("python", "class Trend"), tmp_path, env)
    assert said.splitlines()[-1] in set(Mode)


def test_the_first_command_is_the_demo_and_the_second_the_tests() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)
    assert [text.strip() for text in blocks[:2]] == ["make demo", "make test"]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_reference_is_what_the_code_says(name: str) -> None:
    page = ROOT / "docs" / "reference" / name
    assert page.read_text() == PAGES[name], "run `make docs`"


def test_there_is_no_page_that_nothing_makes() -> None:
    assert {page.name for page in (ROOT / "docs" / "reference").iterdir()} == set(PAGES)


@pytest.mark.parametrize("name", qmtl.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    assert f"## `qmtl.{name}`" in PAGES["python.md"]
    after = PAGES["python.md"].split(f"## `qmtl.{name}`\n", 1)[1].split("\n#", 1)[0]
    assert after.strip(), f"qmtl.{name} has no docstring"


def test_every_command_says_what_it_does() -> None:
    commands = re.split(r"\n## `", PAGES["cli.md"])[1:]
    assert len(commands) > 20
    silent = [text.split("`")[0] for text in commands if not text.split("`\n", 1)[1].strip()]
    assert silent == []


@pytest.mark.parametrize("kind", [Stage, Phase, Mode, Verdict, Reason])
def test_every_value_an_answer_carries_has_its_page(kind: type[Stage]) -> None:
    assert all(f"`{member.value}`" in PAGES["words.md"] for member in kind)


def test_the_glossary_has_the_words() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    for kind in (Stage, Phase, Mode, Verdict):
        assert all(f"`{member.value}`" in glossary for member in kind), kind


def test_every_decision_is_on_the_list() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", (folder / "README.md").read_text())
    assert sorted(listed) == sorted(p.name for p in folder.iterdir() if p.name != "README.md")
    for name in listed:
        text = (folder / name).read_text()
        assert all(f"## {part}" in text for part in ("Context", "Decision", "Consequences")), name
