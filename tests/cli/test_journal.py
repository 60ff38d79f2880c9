"""`qmtl journal` export, head, key and verify: against real servers, and without any."""

import io
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from qmtl.adapters.memory import MemoryStore
from qmtl.adapters.signing import KEY_FILE, JournalKey
from qmtl.entry.cli import app
from qmtl.entry.cli import journal as command
from qmtl.entry.cli.context import Setting
from tests.exports import KEY, Told, chained, exported, head_of, told_of
from tests.servers import Served, served
from tests.worlds import live

W = "w"
NOWHERE = "http://127.0.0.1:9"  # Nobody listens there; a command that asks is away, exit code 3.
WAIT_SEC = 15.0


@pytest.fixture(autouse=True)
def _no_surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("QMTL_URL", "QMTL_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("QMTL_DATA", str(tmp_path / "no-data"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def told() -> Told:
    scene = live(MemoryStore())
    return told_of(scene.store, scene.world_id)


def run(*arguments: str, code: int = 0, stdin: bytes | None = None, **setting: Any) -> Any:
    result = CliRunner().invoke(
        app,
        ["--url", setting.pop("url", NOWHERE), "journal", *arguments],
        obj=Setting(**setting),
        input=stdin,
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def serving(told: Told, key: JournalKey = KEY) -> httpx.MockTransport:
    """A server that knows one journal, and tells it in small pages."""

    def handle(request: httpx.Request) -> httpx.Response:
        answers = {
            "/journal/key": key.told,
            f"/worlds/{W}/journal/head": head_of(told, W, key),
        }
        if request.url.path in answers:
            return httpx.Response(200, json=answers[request.url.path])
        after = int(request.url.params["after"])
        page = told[after : after + 7]
        more = str(after + 7) if after + 7 < len(told) else None
        return httpx.Response(200, json={"entries": page, "next_cursor": more})

    return httpx.MockTransport(handle)


def written(path: Path, lines: list[bytes]) -> str:
    path.write_bytes(b"".join(lines))
    return str(path)


# ---- Without a server ------------------------------------------------------------------------


def test_a_file_is_verified_without_the_server(told: Told, tmp_path: Path) -> None:
    path = written(tmp_path / "w.jsonl", exported(told, W))
    said = run("verify", path).stdout
    assert f"{path}: whole. {len(told)} entries of w, each following the one before" in said
    assert KEY.key_id in said
    assert "not checked: that the key is the server's" in said
    assert "not checked: that nobody rewrote all of it" in said


def test_with_a_key_and_heads_nothing_is_left_unchecked(told: Told, tmp_path: Path) -> None:
    path = written(tmp_path / "w.jsonl", exported(told, W))
    (tmp_path / "key.json").write_text(json.dumps(KEY.told))
    heads = [json.dumps(head_of(told[:count], W), indent=2) for count in (0, 9, len(told))]
    (tmp_path / "heads.json").write_text("\n".join(heads[:2]))
    (tmp_path / "last.json").write_text(heads[2])
    options = ("--key", "key.json", "--head", "heads.json", "--head", "last.json")
    said = run("verify", path, *options).stdout
    assert "not checked" not in said
    assert "it leads to every head that was kept: 3" in said
    found = json.loads(run("verify", path, *options, "--json").stdout)
    assert found["not_checked"] == []
    assert (found["ok"], found["entries"], found["heads_kept"]) == (True, len(told), 3)


def test_what_is_wrong_is_said_in_words_and_in_json(told: Told, tmp_path: Path) -> None:
    path = written(tmp_path / "w.jsonl", exported([*told[:6], *told[7:]], W))
    said = run("verify", path, code=1)
    assert said.stdout == ""
    assert f"error: {path}: entry 7 was removed: entry 8 comes instead" in said.stderr
    assert "removed (entry 7); whole before it: 6 entries" in said.stderr
    found = json.loads(run("verify", path, "--json", code=1).stdout)
    assert found["ok"] is False
    assert found["problem"] == {
        "fault": "removed",
        "seq": 7,
        "what": "entry 7 was removed: entry 8 comes instead",
    }


def test_a_journal_that_was_rewritten_is_found_by_a_head(told: Told, tmp_path: Path) -> None:
    (tmp_path / "head.json").write_text(json.dumps(head_of(told[:9], W)))
    false = chained([{**told[0], "actor": "eve"}, *told[1:]], W)
    path = written(tmp_path / "w.jsonl", exported(false, W))
    assert "whole" in run("verify", path).stdout, "it is whole, and false"
    said = run("verify", path, "--head", "head.json", code=1).stderr
    assert "entry 9 is another than in the head that was kept" in said


def test_standard_input_is_read(told: Told) -> None:
    text = b"".join(exported(told, W))
    assert "standard input: whole." in run("verify", "-", stdin=text).stdout
    assert "unreadable" in run("verify", "-", stdin=b"", code=1).stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("{}", "is no signed head: world_id is missing"),
        ('{"world_id": "w"', "Expecting"),
        ("[]", "not a JSON object"),
    ],
)
def test_a_file_without_heads_is_wrong_usage(
    told: Told, tmp_path: Path, content: str, says: str
) -> None:
    path = written(tmp_path / "w.jsonl", exported(told, W))
    (tmp_path / "head.json").write_text(content)
    assert says in " ".join(run("verify", path, "--head", "head.json", code=2).stderr.split())


def test_wrong_usage(told: Told, tmp_path: Path) -> None:
    path = written(tmp_path / "w.jsonl", exported(told, W))
    run("verify", path, "--head", "nowhere.json", code=2)
    (tmp_path / "key.json").write_text('{"public_key": "00"}')
    run("verify", path, "--key", "key.json", code=2)
    assert "there is no file ./x.jsonl" in run("verify", "./x.jsonl", code=2).stderr
    assert "say WORLD" in run("verify", code=2).stderr
    said = run("verify", "x.jsonl", code=3).stderr
    assert "there is no file x.jsonl here, so it was taken for a world" in said


# ---- Online ----------------------------------------------------------------------------------


def test_a_world_is_verified_over_the_wire(told: Told, tmp_path: Path) -> None:
    assert "w: whole." in run("verify", W, transport=serving(told)).stdout
    (tmp_path / "qmtl.toml").write_text('world = "w"\n')
    assert "w: whole." in run("verify", transport=serving(told)).stdout
    (tmp_path / "head.json").write_text(json.dumps(head_of(told, W)))
    said = run("verify", W, "--head", "head.json", transport=serving(told[:9]), code=1).stderr
    assert "it ends at entry 9" in said
    wrong = [*told[:8], {**told[8], "actor": "eve"}, *told[9:]]
    assert "entry 9 was edited" in run("verify", W, transport=serving(wrong), code=1).stderr


def test_an_export_is_what_the_format_says(told: Told, tmp_path: Path) -> None:
    shown = run("export", W, transport=serving(told))
    assert shown.stdout_bytes == b"".join(exported(told, W))
    assert f"{len(told)} entries in standard output" in shown.stderr
    said = run("export", W, "--out", "w.jsonl", transport=serving(told)).stdout
    assert f"w: {len(told)} entries in w.jsonl, signed by {KEY.key_id}" in said
    assert (tmp_path / "w.jsonl").read_bytes() == shown.stdout_bytes
    assert [path.name for path in tmp_path.iterdir()] == ["w.jsonl"]


def test_an_export_of_what_is_wrong_is_written_and_says_so(told: Told, tmp_path: Path) -> None:
    wrong = [*told[:8], {**told[8], "actor": "eve"}, *told[9:]]
    said = run("export", W, "--out", "w.jsonl", transport=serving(wrong), code=1).stderr
    assert "w: entry 9 was edited" in said
    assert (tmp_path / "w.jsonl").read_bytes() == b"".join(exported(wrong, W))


def test_a_file_is_there_when_all_of_it_is(told: Told, tmp_path: Path) -> None:
    (tmp_path / "w.jsonl").write_text("of yesterday")
    whole = serving(told)

    def dying(request: httpx.Request) -> httpx.Response:
        if request.url.params.get("after") == "14":
            raise httpx.ReadError("gone")
        return whole.handler(request)  # type: ignore[return-value]  # It is no coroutine.

    run("export", W, "--out", "w.jsonl", transport=httpx.MockTransport(dying), code=3)
    assert (tmp_path / "w.jsonl").read_text() == "of yesterday"
    assert [path.name for path in tmp_path.iterdir()] == ["w.jsonl"]


def test_nothing_is_asked_for_before_it_is_written(told: Told) -> None:
    """It streams: a page is on its way out before the next is asked for."""
    out, seen = io.BytesIO(), []

    def lines() -> Iterator[bytes]:
        for line in exported(told, W):
            seen.append(out.tell())
            yield line

    for _ in command._tee(lines(), out):
        continue
    assert seen[1:] == sorted(set(seen[1:])), "each was written before the next was made"


# ---- Against real servers --------------------------------------------------------------------


def cli(server: Served, *arguments: str, code: int = 0) -> Any:
    shown = CliRunner().invoke(
        app, ["--url", server.url, "journal", *arguments], env={"QMTL_TOKEN": server.token}
    )
    assert shown.exit_code == code, shown.output
    return shown


def test_a_restart_keeps_the_key_and_a_lost_one_is_replaced(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    with served(data) as server:
        (tmp_path / "key.json").write_text(cli(server, "key").stdout)
        (tmp_path / "heads.json").write_text(cli(server, "head", "sandbox").stdout)
    with served(data) as server:
        assert json.loads(cli(server, "key").stdout) == json.loads(
            (tmp_path / "key.json").read_text()
        )
        options = ("--key", "key.json", "--head", "heads.json")
        assert "whole" in cli(server, "verify", "sandbox", *options).stdout
    capfd.readouterr()
    shutil.move(data / KEY_FILE, tmp_path / "lost")
    with served(data) as server:
        warned = " ".join(capfd.readouterr().err.split())
        (tmp_path / "new.json").write_text(cli(server, "key").stdout)
        new = json.loads((tmp_path / "new.json").read_text())["key_id"]
        assert f"had no journal.key: a new one was made, and signs from now on as {new}" in warned
        said = cli(server, "verify", "sandbox", "--key", "key.json", code=1).stderr
        assert "which is not one that was given" in said
        said = cli(server, "verify", "sandbox", "--head", "heads.json", code=1).stderr
        assert "signed by another key" in said
        both = (*options, "--key", "new.json")
        assert "every head that was kept: 1" in cli(server, "verify", "sandbox", *both).stdout
        cli(server, "export", "sandbox", "--out", "sandbox.jsonl")
    assert "whole" in run("verify", "sandbox.jsonl", *both).stdout
    with served(data):
        assert "journal.key" not in capfd.readouterr().err, "it is said once"


def test_a_server_that_is_killed_while_it_makes_its_key_starts_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    command_ = [sys.executable, "-m", "qmtl", "serve", "--data", str(data), "--port", "0"]
    process = subprocess.Popen(command_, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    end = time.monotonic() + WAIT_SEC
    while not list(data.glob(f"{KEY_FILE}*")):
        assert time.monotonic() < end, "it never came to its key"
    process.kill()
    process.wait(WAIT_SEC)
    text = (data / KEY_FILE).read_bytes() if (data / KEY_FILE).exists() else None
    with served(data) as server:
        assert text in (None, (data / KEY_FILE).read_bytes()), "a key that was made is kept"
        assert json.loads(cli(server, "head", "sandbox").stdout)["seq"] > 0
        assert "whole" in cli(server, "verify", "sandbox").stdout


# ---- Audit -----------------------------------------------------------------------------------


def test_an_audit_says_what_was_allowed(told: Told, tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    path.write_bytes(b"".join(exported(told, W)))
    said = run("audit", str(path)).output
    assert "alpha: live at ramp step 1, weight 0.1: ok" in said
    assert "1 time a weight went up, 1 allowed, 0 not" in said
    answer = json.loads(run("audit", str(path), "--json").output)
    assert answer["ok"]
    assert answer["entries"] == len(told)
    assert [each["violations"] for each in answer["transitions"]] == [[]]


def test_an_audit_says_what_was_not_allowed_and_exits_1(told: Told, tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    seq = next(entry["seq"] for entry in told if entry["kind"] == "approval_given")
    forged = chained((entry for entry in told if entry["seq"] != seq), W)
    path.write_bytes(b"".join(exported(forged, W)))
    said = run("audit", str(path), code=1).output
    assert "NOT ALLOWED" in said
    assert "it had 1 of 2 approvals that count" in said
    answer = json.loads(run("audit", str(path), "--json", code=1).output)
    assert not answer["ok"]
    assert answer["problem"] is None


def test_an_audit_of_an_edited_journal_says_that_first(told: Told, tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    path.write_bytes(b"".join(exported(told, W)).replace(b"looks good", b"looks well"))
    answer = json.loads(run("audit", str(path), "--json", code=1).output)
    assert not answer["ok"]
    assert "edited" in answer["problem"]
    assert answer["transitions"] == []


def test_a_journal_that_cannot_be_audited_is_not_allowed(told: Told, tmp_path: Path) -> None:
    path = tmp_path / "w.jsonl"
    newer = {**told[-1], "kind": "of_next_year", "fact": {"kind": "of_next_year"}}
    path.write_bytes(b"".join(exported(chained([*told, newer], W), W)))
    answer = json.loads(run("audit", str(path), "--json", code=1).output)
    assert "of_next_year" in answer["problem"]


def test_an_audit_of_a_world_reads_it_from_the_server(told: Told) -> None:
    answer = json.loads(run("audit", W, "--json", transport=serving(told)).output)
    assert answer["ok"]
    assert answer["source"] == W
