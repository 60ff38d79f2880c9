"""The tutorial is replayed, command by command, in one shell."""

from pathlib import Path

from tests import pages, transcripts

TUTORIAL = Path(__file__).parent.parent / "docs" / "tutorial.md"


def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    found = pages.blocks(TUTORIAL.read_text())
    assert {block.language for block in found} == {"console"}
    transcripts.replay("# The tutorial.\n".join(block.text for block in found), tmp_path)
