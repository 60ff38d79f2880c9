"""The same answers wherever they are computed: in order, and all of them or none."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from qmtl.adapters import workers
from qmtl.adapters.workers import Here, NotAPlace, Place, Processes, WorkersError, at, computed

from . import pieces

ROOT = Path(__file__).parent.parent.parent
DEADLINE_SEC = 20.0
SEEDS = range(7)
SPAWN = get_context("spawn")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


def soon(holds: Any) -> bool:
    until = time.monotonic() + DEADLINE_SEC
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(0.02)
    return False


# ---- Where it is computed is not seen ----------------------------------------------------------


def test_answers_are_the_same_wherever_they_are_computed(threads: ThreadPoolExecutor) -> None:
    here = [pieces.drawn(seed) for seed in SEEDS]
    with ProcessPoolExecutor(2, mp_context=SPAWN) as given:
        places: list[Place] = [Here(), threads, given, *map(Processes, (1, 2, 3))]
        for place in places:
            assert computed(pieces.drawn, SEEDS, place) == here, place


def test_answers_are_in_the_order_of_the_pieces_not_of_their_ends(
    threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    for number, place in enumerate((threads, Processes(2))):
        ended: list[int] = []
        call = partial(pieces.late, folder(tmp_path, number))
        assert computed(call, range(3), place, finished=ended.append) == [0, 1, 2]
        assert sorted(ended) == [0, 1, 2], "each is told of once"
        assert ended != [0, 1, 2], "and when it ends"


def test_nothing_to_do_is_done() -> None:
    assert computed(pieces.drawn, [], Processes(2)) == []


def test_enough_is_the_first_in_order_whoever_is_done_sooner(
    threads: ThreadPoolExecutor, tmp_path: Path
) -> None:
    for number, place in enumerate((threads, Processes(2))):
        call = partial(pieces.late, folder(tmp_path, number))
        assert computed(call, range(6), place, enough=lambda answer: answer < 2) == [0]
    asked: list[int] = []
    found = computed(doubled, range(6), Here(), finished=asked.append, enough=lambda n: n in (2, 8))
    assert (found, asked) == ([0, 2], [0, 1]), "and no other is begun"


def doubled(number: int) -> int:
    return 2 * number


def folder(home: Path, number: int) -> Path:
    found = home / str(number)
    found.mkdir()
    return found


def test_what_a_piece_raises_is_raised(threads: ThreadPoolExecutor) -> None:
    for place in (Here(), threads, Processes(2)):
        with pytest.raises(ZeroDivisionError, match="the third"):
            computed(pieces.failing, range(6), place)


# ---- Workers that die --------------------------------------------------------------------------


def test_what_a_worker_died_with_is_computed_again(tmp_path: Path) -> None:
    ended: list[int] = []
    call = partial(pieces.dying, tmp_path)
    found = computed(call, range(12), Processes(2), finished=ended.append)
    assert (tmp_path / "died").exists()
    assert found == [pieces.drawn(number) for number in range(12)]
    assert sorted(ended) == list(range(12)), "none is told of twice"


def test_a_piece_that_kills_whoever_computes_it_ends_in_words() -> None:
    with pytest.raises(WorkersError, match=r"died 3 times in a row, with 5 of 6 pieces done.*mem"):
        computed(pieces.deadly, range(6), Processes(2))


def test_an_executor_whose_worker_died_is_not_used_for_less(tmp_path: Path) -> None:
    with (
        ProcessPoolExecutor(2, mp_context=SPAWN) as given,
        pytest.raises(WorkersError, match=r"a worker of the executor died.*make a new one"),
    ):
        computed(partial(pieces.dying, tmp_path), range(12), given)


class Away(Executor):
    """Gives up whatever it is given."""

    def submit(self, call: Any, /, *given: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future


class Other(Executor):
    """A worker of it has another qmtl."""

    def submit(self, call: Any, /, *given: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        (_, *same), answer = call(*given)
        future.set_result((("qmtl 0123", *same), answer))
        return future


def test_an_executor_that_gives_up_is_no_answer() -> None:
    with pytest.raises(WorkersError, match="gave up pieces"):
        computed(pieces.drawn, SEEDS, Away())


def test_a_worker_with_other_code_is_not_believed() -> None:
    with pytest.raises(WorkersError) as caught:
        computed(pieces.drawn, SEEDS, Other())
    mine = workers.code_here()[0]
    assert f"a worker runs qmtl 0123, where this process runs {mine}: " in str(caught.value)


def test_what_cannot_be_sent_says_what_to_do() -> None:
    with pytest.raises(WorkersError, match=r"cannot be sent to a worker.*ThreadPoolExecutor"):
        computed(lambda number: number, range(3), Processes(2))


# ---- Stopping ----------------------------------------------------------------------------------

SCRIPT = """
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from qmtl.adapters.workers import Processes, computed
from tests.adapters import pieces

if __name__ == "__main__":
    computed(partial(pieces.endless, Path(sys.argv[1])), range(8), Processes(2))
"""


def started(tmp_path: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """A process whose two workers, of those ids, never end by themselves."""
    script, folder = tmp_path / "script.py", tmp_path / "ids"
    script.write_text(SCRIPT)
    folder.mkdir()
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert soon(lambda: len(list(folder.iterdir())) == 2)
    return process, [int(each.name) for each in folder.iterdir()]


def gone(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"  # Dead, and nobody has asked how.


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_who_asked(tmp_path: Path, number: signal.Signals) -> None:
    process, ids = started(tmp_path)
    try:
        process.send_signal(number)
        _, told = process.communicate(timeout=DEADLINE_SEC)
        assert process.returncode == -number
        assert soon(lambda: all(map(gone, ids))), "nobody waits for what they are at"
    finally:
        for each in (process.pid, *ids):
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
    assert told.count("Traceback") == (number == signal.SIGINT), "the workers say nothing"


def test_an_executor_is_given_back_without_the_rest() -> None:
    class Stopped(Exception):
        pass

    def stop(number: int) -> None:
        raise Stopped

    asked = count()
    with ThreadPoolExecutor(1) as pool, pytest.raises(Stopped):
        computed(lambda _: (next(asked), time.sleep(0.01)), range(500), pool, finished=stop)
    assert next(asked) < 400


# ---- Places by name ----------------------------------------------------------------------------


def test_places_by_name() -> None:
    with at("inline") as here, at("processes") as all_cores, at("processes", 3) as three:
        assert (here, all_cores, three) == (Here(), Processes(workers.cores()), Processes(3))
    with at("threads", 2) as threads:
        assert computed(pieces.drawn, SEEDS, threads) == [pieces.drawn(seed) for seed in SEEDS]
    with pytest.raises(RuntimeError, match="after shutdown"):
        computed(pieces.drawn, SEEDS, threads)


@pytest.mark.parametrize(
    ("named", "jobs", "says"),
    [
        ("slurm", None, "'slurm' is none of processes, threads, inline, or dask://HOST:PORT"),
        ("dask://", None, "is none of"),
        ("processes://x", None, "is none of"),
        ("dask://127.0.0.1:9", 2, "jobs are of processes and threads"),
        ("inline", 2, "jobs are of processes and threads"),
    ],
)
def test_what_is_no_place_says_so(named: str, jobs: int | None, says: str) -> None:
    with pytest.raises(NotAPlace, match=says), at(named, jobs):
        raise AssertionError("it was")
