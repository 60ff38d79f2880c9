"""A sealed text opens for what it was sealed for, at who has the secret, as it was."""

import pytest

from qmtl.adapters.sealing import Seal
from qmtl.adapters.signing import JournalKey

SEAL = Seal(b"k" * 32)


def test_it_opens_where_the_secret_is_the_same_and_says_nothing_elsewhere() -> None:
    text = SEAL.closed(b"who", "session", "a")
    assert Seal(b"k" * 32).opened(text, "session", "a") == b"who"
    assert b"who" not in text.encode()
    assert SEAL.closed(b"who", "session", "a") != text, "nobody sees that two are the same"
    assert Seal.new().opened(text, "session", "a") is None


@pytest.mark.parametrize(
    "purpose", [("session",), ("session", "b"), ("sessiona",), ("session", "a", ""), ()]
)
def test_for_anything_else_it_does_not_open(purpose: tuple[str, ...]) -> None:
    assert SEAL.opened(SEAL.closed(b"who", "session", "a"), *purpose) is None


def test_one_character_changed_and_it_does_not_open() -> None:
    text = SEAL.closed(b"who", "session")
    for place in range(len(text) - 1):  # The last holds bits that belong to nothing.
        other = "A" if text[place] != "A" else "B"
        assert SEAL.opened(text[:place] + other + text[place + 1 :], "session") is None
    for wrong in ("", "A", text[:-4], "ß", "%%%%", text + "AAAA"):
        assert SEAL.opened(wrong, "session") is None


def test_a_mark_is_of_its_parts_and_of_nobody_elses() -> None:
    mark = SEAL.mark("form", "a")
    assert len(mark) == 43, "as PKCE wants a verifier to be at least"
    assert Seal(b"k" * 32).is_mark(mark, "form", "a")
    for parts in (("form", "b"), ("forma",), ("form",), ("form", "a", "")):
        assert not SEAL.is_mark(mark, *parts)
    assert not Seal.new().is_mark(mark, "form", "a")
    assert not SEAL.is_mark("ß", "form", "a")


def test_a_journal_keys_secrets_are_the_keys_and_each_others_strangers() -> None:
    key = JournalKey.new()
    found = [key.secret("sessions", "a"), key.secret("sessions", "b"), key.secret("others", "a")]
    found.append(JournalKey.new().secret("sessions", "a"))
    assert len(set(found)) == 4
    assert all(len(secret) == 32 for secret in found)
    assert key.secret("sessions", "a") == found[0]
