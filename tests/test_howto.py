"""Every code block of the how-to pages runs as it stands, in order, on a fresh server."""

from pathlib import Path

import pytest

from tests import pages
from tests.servers import served

HOWTO = Path(__file__).parent.parent / "docs" / "howto"
PAGES = sorted(page.name for page in HOWTO.glob("*.md"))


@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_what_it_says(name: str, tmp_path: Path) -> None:
    found = pages.blocks((HOWTO / name).read_text())
    assert found, "a how-to shows how"
    folder = tmp_path / "reader"
    folder.mkdir()
    with served(tmp_path / "data") as server:
        env = pages.environment(
            QMTL_URL=server.url,
            QMTL_TOKEN=server.token,
            QMTL_SPOOL=str(tmp_path / "spool"),
            QMTL_STATE=str(tmp_path / "state"),
        )
        for block in found:
            pages.run(block, folder, env)


@pytest.mark.parametrize(
    ("page", "why"),
    [
        ("```sh\nfalse\n```\n", "line 1"),
        ("text\n\n```python\nraise SystemExit(1)\n```\n", "line 3"),
        ("```fortran\nEND\n```\n", "nothing runs a fortran block"),
        ("```yaml\na: 1\n```\n", "nothing runs a yaml block"),
        ("```crontab\n0 0 * * * false\n```\n", "line"),
    ],
)
def test_a_block_that_fails_is_found(page: str, why: str, tmp_path: Path) -> None:
    (block,) = pages.blocks(page)
    with pytest.raises(AssertionError, match=why):
        pages.run(block, tmp_path, pages.environment())


def test_a_block_without_a_language_is_a_fault() -> None:
    with pytest.raises(AssertionError, match="says its language"):
        pages.blocks("```\nqmtl submit\n```\n")
