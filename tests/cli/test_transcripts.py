"""The transcripts beside this file, replayed against a real server; and that a replay looks."""

from pathlib import Path

import pytest

from tests import transcripts

FILES = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_transcript(file: Path, tmp_path: Path) -> None:
    transcripts.replay(file.read_text(encoding="utf-8"), tmp_path)


def test_the_transcripts_were_found() -> None:
    assert {file.stem for file in FILES} >= {"first-project", "away"}


def test_a_transcript_is_read_as_steps() -> None:
    text = "# Story.\n$ one\nsaid\n\n(exit 3)\n$ two\n\n# More.\n$ three\n…\n"
    assert transcripts.read(text) == [
        transcripts.Step(2, "one", "said\n", 3),
        transcripts.Step(6, "two", "", 0),
        transcripts.Step(9, "three", "…", 0),
    ]


@pytest.mark.parametrize("text", ["", "# Only a story.\n", "an answer to nothing\n"])
def test_what_is_no_transcript_fails(text: str) -> None:
    with pytest.raises(AssertionError):
        transcripts.read(text)


@pytest.mark.parametrize(
    ("expected", "said", "same"),
    [
        ("a\nb", "a\nb\n", True),
        ("a", "a   \n\n", True),
        ("a", "a\nb\n", False),
        ("a", "", False),
        ("", "", True),
        ("", "a\n", False),
        ("…", "", True),
        ("…", "a\nb\n", True),
        ("…\nb", "a\nb\n", True),
        ("…\nb", "a\nc\n", False),
        ("took … s", "took 1.5 s\n", True),
        ("took … s", "took 1.5\ns\n", False),
        ("a.c", "abc\n", False),
    ],
)
def test_an_answer_agrees_or_not(expected: str, said: str, same: bool) -> None:
    assert transcripts.agrees(expected, said) is same


@pytest.mark.parametrize(
    "text",
    [
        "$ echo a\nb\n",
        "$ false\n",
        "$ true\n(exit 1)\n",
        "$ echo a; exit 0\na\n$ echo b\nb\n",
        "$ false &\n",
    ],
    ids=["another answer", "another code", "no code", "ends early", "a job that dies"],
)
def test_a_transcript_that_is_not_so_fails(text: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="line "):
        transcripts.replay(text, tmp_path)


def test_the_commands_share_a_shell(tmp_path: Path) -> None:
    transcripts.replay("$ mkdir x && cd x && export A=b\n$ pwd; echo $A\n…/x\nb\n", tmp_path)
