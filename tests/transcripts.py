"""Transcripts: a story, commands, and what they answer, replayed in a real shell.

    # A line of the story.
    $ qmtl world list
    world    state   …
    sandbox  active  …
    $ qmtl world show nowhere
    error: No such world…
    …
    (exit 1)

`…` in a line stands for any text, and alone on a line for any lines, none included. What a command
answers is both of its streams; its exit code is 0 unless the last line says another. A command that
ends in `&` goes on in the background, and has answered once it says that it listens. All commands
of a transcript share one shell: `cd` and `export` last.

The shell's home is its own, so servers, tokens and kept submissions are, too; `qmtl serve` listens
on a free port, and QMTL_URL names it.
"""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ANY = "…"
READY = "listening on "
MARK = "\x1e"  # Parts what one command says from its exit code; no command prints it.
SEC_MAX = 60  # Of a whole transcript. Something that waits for input would wait for ever.
EXIT = re.compile(r"\(exit (\d+)\)")


@dataclass(frozen=True, slots=True)
class Step:
    """One command, and what is expected of it.  `line` of the transcript, from 1."""

    line: int
    command: str
    expected: str
    code: int


@dataclass(frozen=True, slots=True)
class Answer:
    said: str
    code: int


def read(text: str) -> list[Step]:
    """The steps of a transcript.  What is neither story nor command nor answer fails."""
    steps: list[Step] = []
    answer: list[str] = []
    began: tuple[int, str] | None = None

    def done() -> None:
        if began is None:
            assert not "".join(answer).strip(), f"an answer without a command: {answer}"
            return
        while answer and not answer[-1].strip():
            answer.pop()
        found = EXIT.fullmatch(answer[-1]) if answer else None
        code = int(found[1]) if found else 0
        told = answer[:-1] if found else answer
        steps.append(Step(began[0], began[1], "\n".join(told), code))

    for number, line in enumerate(text.splitlines(), start=1):
        if line.startswith("$ "):
            done()
            began, answer = (number, line.removeprefix("$ ")), []
        elif line.startswith("# "):
            done()
            began, answer = None, []
        else:
            answer.append(line.rstrip())
    done()
    assert steps, "a transcript without a command"
    return steps


def agrees(expected: str, said: str) -> bool:
    """Whether an answer is what is expected; trailing blanks count for nothing."""
    pattern = ""
    for line in expected.splitlines():
        if line == ANY:
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(part) for part in line.split(ANY)) + r"\n"
    text = "".join(f"{line.rstrip()}\n" for line in said.rstrip().splitlines())
    return re.fullmatch(pattern, text) is not None


def replay(text: str, folder: Path) -> None:
    """Run a transcript in a folder of its own; fails at the first answer that is another."""
    steps = read(text)
    answers = _run(steps, folder)
    for step, answer in zip(steps, answers, strict=False):
        same = agrees(step.expected, answer.said) and step.code == answer.code
        assert same, (
            f"line {step.line}: $ {step.command}\n"
            f"--- expected (exit {step.code})\n{step.expected}\n"
            f"--- answered (exit {answer.code})\n{answer.said.rstrip()}"
        )
    assert len(answers) == len(steps), f"it ended before line {steps[len(answers)].line}"


def _run(steps: list[Step], folder: Path) -> list[Answer]:
    port = _free_port()
    home = folder / "home"
    (home / "work").mkdir(parents=True)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("QMTL_", "FORCE_COLOR"))}
    environment = {
        **kept,
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}",
        "QMTL_URL": f"http://127.0.0.1:{port}",
    }
    script = "\n".join(_script(steps, port))
    shell = subprocess.Popen(
        ["bash", "-c", script],
        cwd=home / "work",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(timeout=SEC_MAX)
    finally:
        with suppress(ProcessLookupError):  # The rule: the script has ended all it started.
            os.killpg(shell.pid, signal.SIGKILL)
    *told, _ = output.split(f"{MARK}\n")
    pairs = (part.rpartition(MARK) for part in told)
    return [Answer(said, int(code)) for said, _, code in pairs]


def _script(steps: list[Step], port: int) -> Iterator[str]:
    tell = f"printf '{MARK}%d{MARK}\\n' \"$?\""
    yield "trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT"
    for number, step in enumerate(steps):
        command = step.command.replace("qmtl serve", f"qmtl serve --port {port}")
        if command.endswith("&"):
            said = f'"$HOME/background-{number}"'
            yield f": >{said}"  # There before anybody looks for it.
            yield f"{command.removesuffix('&')} >{said} 2>&1 &"
            yield f"until grep -q '{READY}' {said} || ! kill -0 $! 2>/dev/null"
            yield "do sleep 0.05; done"
            yield f"cat {said}; grep -q '{READY}' {said}"
        else:
            yield command
        yield tell


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
