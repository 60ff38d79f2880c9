"""The journal's key: made once, whole or not at all, kept, and never told."""

import os
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from qmtl.adapters.signing import KEY_FILE, JournalKey, UnusableKey, exposed, kept
from qmtl.adapters.wire.verify import head_of, key_of, verify
from qmtl.app.ports import Head
from qmtl.core.names import WorldId
from tests.exports import KEY, exported

AT = datetime(2024, 1, 1, 21, tzinfo=UTC)

# A process per call of the system that making a key takes: each dies just before one more of them.
DYING = """
import os, signal, stat, sys
from pathlib import Path
from qmtl.adapters import signing

folder = Path(sys.argv[1])
fatal = ("unlink", "open", "fdopen", "fsync", "replace", "close")

def dying(most):
    left = [most]
    def counted(call):
        def run(*given, **named):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1
            return call(*given, **named)
        return run
    for name in fatal:
        setattr(os, name, counted(getattr(os, name)))
    signing.kept(folder)

deaths = 0
while True:
    for path in folder.iterdir():
        path.unlink()
    child = os.fork()
    if not child:
        dying(deaths)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    before = (folder / signing.KEY_FILE).read_bytes() if (folder / signing.KEY_FILE).exists() else None
    key, made = signing.kept(folder)
    assert made is (before is None), "a key that is there is kept"
    assert before in (None, (folder / signing.KEY_FILE).read_bytes())
    again, made = signing.kept(folder)
    assert (again.key_id, made) == (key.key_id, False)
    assert [path.name for path in folder.iterdir()] == [signing.KEY_FILE]
    assert stat.S_IMODE((folder / signing.KEY_FILE).stat().st_mode) == 0o600
    if os.WIFEXITED(status):
        assert os.WEXITSTATUS(status) == 0
        break
    deaths += 1
print(deaths)
"""  # noqa: E501 -- it is another program's line.


def test_a_folder_has_one_key(tmp_path: Path) -> None:
    first, made = kept(tmp_path)
    again, made_again = kept(tmp_path)
    assert (made, made_again) == (True, False)
    assert first.told == again.told
    assert key_of(first.told).hex() == first.told["public_key"]
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    head = Head(3, "ab" * 32)
    assert first.signed(WorldId("w"), head, AT) == again.signed(WorldId("w"), head, AT)


def test_what_it_signs_verifies(tmp_path: Path) -> None:
    key, _ = kept(tmp_path)
    head = head_of(key.signed(WorldId("w"), Head(0, "0" * 64), AT))
    assert (
        head.statement == f"qmtl-journal-head/1\nw\n0\n{'0' * 64}\n2024-01-01T21:00:00Z\n".encode()
    )
    assert verify(exported([], "w", key), [head], [key_of(key.told)]).problem is None


def test_a_start_that_dies_at_any_call_leaves_a_whole_key_or_none(tmp_path: Path) -> None:
    command = [sys.executable, "-c", DYING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 6, "it died at each of them"


def _sealed() -> bytes:
    return KEY._private.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )


def _another_kind() -> bytes:
    key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    "text", [b"", b"no key", b"\xff\x00", _sealed(), _another_kind()], ids=range(5)
)
def test_what_is_no_key_is_refused_and_left_alone(tmp_path: Path, text: bytes) -> None:
    (tmp_path / KEY_FILE).write_bytes(text)
    with pytest.raises(UnusableKey, match=r"journal\.key holds no Ed25519 key: put it back"):
        kept(tmp_path)
    assert (tmp_path / KEY_FILE).read_bytes() == text


def test_half_a_key_is_refused(tmp_path: Path) -> None:
    kept(tmp_path)
    whole = (tmp_path / KEY_FILE).read_bytes()
    for end in range(0, len(whole) - 2, 7):
        (tmp_path / KEY_FILE).write_bytes(whole[:end])
        with pytest.raises(UnusableKey):
            kept(tmp_path)


def test_a_key_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(UnusableKey, match="directory"):
        kept(tmp_path)


def test_a_key_that_others_may_read_is_warned_of(tmp_path: Path) -> None:
    kept(tmp_path)
    assert exposed(tmp_path) == ()
    os.chmod(tmp_path / KEY_FILE, 0o640)
    (warning,) = exposed(tmp_path)
    assert f"chmod 600 {tmp_path / KEY_FILE}" in warning


def test_a_key_says_nothing_of_its_secret(tmp_path: Path) -> None:
    key = JournalKey.new()
    secret = key._private.private_bytes_raw().hex()
    for said in (repr(key), str(key), repr(key._private), str(key.told)):
        assert secret not in said
