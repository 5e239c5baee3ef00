"""The key file: a key more, keys less, and never a moment without it."""

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker import key_file
from worker.errors import ConfigurationError, LeadSyncError
from worker.key_file import held, replace, unchanged_for, with_key, without_keys
from worker.sealing import Key, KeyRing, Keys, KeysUnreadable, TokenLocked, new_key, of_page, parse_keys

PAGE = of_page("153125381133")
OLD, OTHER, NEW = new_key(), new_key(), new_key()


def write(path: Path, *keys: Key) -> Path:
    path.write_text("".join(f"{key.text}\n" for key in keys))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "token.keys", OLD)


def test_a_key_comes_first_and_the_rest_stays_as_it_is() -> None:
    """What the operator wrote beside the keys is his."""
    text = f"# ours, of 2026\n{OLD.text}  # the first one, grün\n"
    assert with_key(text, NEW, "made today") == f"{NEW.text}  # made today\n{text}"
    assert parse_keys(with_key(text, NEW, "made today")) == (NEW, OLD)


def test_keys_are_taken_out_of_lines_and_lists() -> None:
    """A key's own line goes with its comment; other keys, comments and blank lines stay."""
    text = (
        f"# ours\n{NEW.text}\n\n{OLD.text}  # old\n{OTHER.text}, {OLD.text}  # two\n{OLD.text},{OTHER.text}\n"
    )
    left = without_keys(text, {OLD.key_id})
    assert left == f"# ours\n{NEW.text}\n\n{OTHER.text}  # two\n{OTHER.text}\n"
    assert without_keys(text, set()) == text


@given(st.lists(st.sampled_from((OLD, OTHER, NEW)), max_size=6), st.sets(st.sampled_from((OLD, OTHER, NEW))))
def test_no_other_key_goes(keys: list[Key], out: set[Key]) -> None:
    """Whatever the file lists, the named keys are gone and the others are there in their order."""
    text = "".join(f"{key.text}{',' if place % 2 else chr(10)}" for place, key in enumerate(keys))
    left = parse_keys(without_keys(text, {key.key_id for key in out}))
    assert left == tuple(key for key in keys if key not in out)


def test_the_file_is_replaced_whole_for_its_owner_only(file: Path) -> None:
    """It is another file under the same name, which nobody else reads, and nothing is left beside it."""
    before = file.stat().st_ino
    file.chmod(0o644)
    replace(file, "# new\n")
    assert file.read_text() == "# new\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_ino != before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("before", "after"), [(0o640, 0o640), (0o660, 0o640), (0o600, 0o600), (0o400, 0o600), (0o666, 0o600)]
)
def test_a_group_that_was_let_read_it_still_does(file: Path, before: int, after: int) -> None:
    """Workers may be of that group alone: without the new key none of their tokens would open."""
    file.chmod(before)
    replace(file, "# new\n")
    assert stat.S_IMODE(file.stat().st_mode) == after


def test_a_folder_that_cannot_be_locked_is_told_in_one_line(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems lock nothing; then the key is put in by hand."""

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(key_file.fcntl, "flock", no_locks)
    with pytest.raises(ConfigurationError, match="No locks available"), held(file):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_file_stays_its_owner_s(file: Path) -> None:
    """Rotated by root, it can still be read by the account that the workers run under."""
    os.chown(file, 12_345, 12_346)
    replace(file, "# new\n")
    assert (file.stat().st_uid, file.stat().st_gid) == (12_345, 12_346)


def test_a_write_that_fails_leaves_the_file_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk costs no key, and the error says what to do in one line without quoting any."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(key_file.os, "fsync", full)
    with pytest.raises(ConfigurationError, match="No space left") as told:
        replace(file, with_key(file.read_text(), NEW, "made today"))
    assert parse_keys(file.read_text()) == (OLD,)
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert "\n" not in str(told.value)
    assert NEW.text not in str(told.value)


def test_what_a_killed_write_left_is_in_nobody_s_way(file: Path) -> None:
    """Half a file beside it is written anew, not read."""
    (file.parent / "token.keys.new").write_text(NEW.text[:20])
    replace(file, with_key(file.read_text(), NEW, "made today"))
    assert Keys((), file).ring().keys == (NEW, OLD)


def test_two_rotations_do_not_meet(file: Path) -> None:
    """The second would write the file without the first one's key, under which tokens are sealed already."""
    with held(file) as real:
        assert real == file.resolve()
        with pytest.raises(LeadSyncError, match="another rotation"), held(file):
            pass
    with held(file):
        pass


def test_a_link_is_followed(file: Path, tmp_path: Path) -> None:
    """The file that a link leads to is replaced, not the link."""
    link = tmp_path / "link"
    link.symlink_to(file)
    with held(link) as real:
        replace(real, f"{NEW.text}\n")
    assert link.is_symlink()
    assert parse_keys(file.read_text()) == (NEW,)


def test_a_folder_that_is_away_is_told_in_one_line(tmp_path: Path) -> None:
    """So is a file system that takes nothing."""
    with (
        pytest.raises(ConfigurationError, match="TOKEN_KEYS_FILE: cannot be replaced"),
        held(tmp_path / "no" / "f"),
    ):
        pass


def test_how_long_a_file_is_as_it_is(file: Path) -> None:
    """From its last change on."""
    os.utime(file, (1_000.0, 1_000.0))
    assert unchanged_for(file, 1_090.5) == pytest.approx(90.5)


def same_stamp(path: Path, *keys: Key) -> None:
    """Write in place, leaving size and time of change as they were: a second write within one tick of the clock."""
    about = path.stat()
    write(path, *keys)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (about.st_size, about.st_mtime_ns)


def test_a_second_write_within_a_tick_is_seen(file: Path) -> None:
    """The keys count from the next look, whatever the file's time says."""
    keys = Keys((), file)
    assert keys.ring().keys == (OLD,)
    same_stamp(file, NEW)
    assert keys.ring().keys == (NEW,)


def test_a_file_replaced_by_rename_is_seen(file: Path) -> None:
    """Another file under the same name with the same size and time of change is another file."""
    keys = Keys((), file)
    assert keys.ring().keys == (OLD,)
    about = file.stat()
    other = write(file.with_name("other"), NEW)
    os.utime(other, ns=(about.st_atime_ns, about.st_mtime_ns))
    other.replace(file)
    assert keys.ring().keys == (NEW,)


def test_a_token_sealed_with_a_key_of_a_moment_ago_opens(file: Path) -> None:
    """A process that read the file before the rotation opens what was sealed after it."""
    keys = Keys((), file)
    keys.ring()
    replace(file, with_key(file.read_text(), NEW, "made today"))
    sealed = KeyRing((NEW,)).seal("token", PAGE)
    assert keys.ring().open(sealed, PAGE) == "token"


@pytest.mark.parametrize("spoil", ["missing", "empty", "comment", "half", "binary", "folder"])
def test_while_the_file_is_unreadable_former_keys_serve(file: Path, spoil: str) -> None:
    """An editor that deletes and writes anew costs no call; what needs a key not yet read is asked for later."""
    keys = Keys((OTHER,), file)
    old, new = KeyRing((OLD,)).seal("old", PAGE), KeyRing((NEW,)).seal("new", PAGE)
    assert keys.ring().keys == (OLD, OTHER)
    file.unlink()
    contents = {
        "empty": b"",
        "comment": b"# nothing\n",
        "half": NEW.text[:30].encode(),
        "binary": b"\xff\xfe\x00",
    }
    if spoil == "folder":
        file.mkdir()
    elif spoil in contents:
        file.write_bytes(contents[spoil])
    ring = keys.ring()
    assert ring.keys == (OLD, OTHER)
    assert ring.open(old, PAGE) == "old"
    with pytest.raises(KeysUnreadable):
        ring.seal("token", PAGE)  # its key may be out of the file by now
    with pytest.raises(KeysUnreadable, match="TOKEN_KEYS_FILE") as told:
        ring.open(new, PAGE)
    assert NEW.text[:30] not in str(told.value)
    if spoil == "folder":
        file.rmdir()
    write(file, NEW, OLD)
    assert keys.ring().open(new, PAGE) == "new"


def test_a_key_that_no_file_lacks_is_locked(file: Path) -> None:
    """Where the file can be read and does not have it, waiting is no use."""
    with pytest.raises(TokenLocked):
        Keys((), file).ring().open(KeyRing((NEW,)).seal("token", PAGE), PAGE)


@pytest.mark.parametrize("text", [None, "", "# nothing\n", "hunter2"])
def test_a_file_that_was_never_readable_may_be_soon(tmp_path: Path, text: str | None) -> None:
    """The same look may work later; given keys alone would seal with the wrong one."""
    file = tmp_path / "token.keys"
    if text is not None:
        file.write_text(text)
    with pytest.raises(KeysUnreadable) as told:
        Keys((OLD,), file).ring()
    assert "hunter2" not in str(told.value)


def test_keys_of_the_file_go_before_those_given(file: Path) -> None:
    """The file's first key seals; each key is told with its setting."""
    keys = Keys((OTHER,), file)
    assert keys.sources() == ((OLD, "TOKEN_KEYS_FILE"), (OTHER, "TOKEN_KEYS"))
    assert Keys((OTHER,), None).sources() == ((OTHER, "TOKEN_KEYS"),)
    assert Keys((), None).ring().keys == ()
