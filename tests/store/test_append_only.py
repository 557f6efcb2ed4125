"""What can be read of an append-only file, wherever it is cut or damaged."""

import random
from pathlib import Path

import pytest

from worker import append_only
from worker.append_only import FOLDER, MANIFEST, Scan, layout, looks_sound, scan

ARITIES = {b"set": -3, b"del": -2, b"select": 2, b"multi": 1, b"exec": 1}


def command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


LIKE_A_COMMAND = b"x\r\n*1\r\n$4\r\nTORN\r\n"  # not one that ARITIES knows
UNITS = [
    [command(b"SELECT", b"0")],
    [command(b"SET", b"a", b"1\r\n\0\xff")],
    [b"#TS:1700000000\r\n"],
    [command(b"MULTI"), command(b"SET", b"b", LIKE_A_COMMAND), command(b"DEL", b"a", b"c"), command(b"EXEC")],
    [command(b"set", b"c", bytes(20_000))],
    [command(b"DEL", b"b")],
]
FLAT = [part for unit in UNITS for part in unit]
TEXT = b"".join(FLAT)


def boundaries(parts: list[bytes]) -> list[int]:
    ends = [0]
    for part in parts:
        ends.append(ends[-1] + len(part))
    return ends


UNIT_ENDS = boundaries([b"".join(unit) for unit in UNITS])
STARTS = boundaries(FLAT)


def read(tmp_path: Path, text: bytes) -> Scan:
    path = tmp_path / "a.aof"
    path.write_bytes(text)
    return scan(path, 0, ARITIES)


def cuts() -> list[int]:
    inside = range(STARTS[-3] + 40, STARTS[-2] - 10, 4001)  # not every byte of the long payload
    return [*range(STARTS[-3] + 40), *inside, *range(STARTS[-2] - 10, len(TEXT) + 1)]


def test_wherever_a_file_is_cut_the_whole_units_before_it_remain(tmp_path: Path) -> None:
    for cut in cuts():
        found = read(tmp_path, TEXT[:cut])
        assert found.whole == max(end for end in UNIT_ENDS if end <= cut), cut
        assert (found.damage is None) == (cut in UNIT_ENDS)
        assert found.following == 0


@pytest.mark.parametrize(
    "tail", [b"\0", bytes(512), b"garbage\r\n", b"*", b"*1\r\n$-1\r\n", b"*0\r\n", b"*1\r\n$9\r\nNO"]
)
def test_whatever_stands_after_the_last_command_is_told_from_it(tail: bytes, tmp_path: Path) -> None:
    for end in STARTS[1:]:
        found = read(tmp_path, TEXT[:end] + tail)
        accused = tail == b"garbage\r\n" and TEXT[:end].endswith(
            LIKE_A_COMMAND + b"\r\n"
        )  # as if it had swallowed words
        damage = STARTS[STARTS.index(end) - 1] if accused else end
        assert (found.whole, found.damage, found.following) == (max(e for e in UNIT_ENDS if e <= end), damage, 0)


def test_zeros_at_the_end_of_the_last_payload_are_no_payload(tmp_path: Path) -> None:
    text = TEXT[: STARTS[-2]]
    for zeros in (1, 2, 3, 4096):
        found = read(tmp_path, text[:-zeros] + bytes(zeros))
        assert (found.whole, found.following) == (STARTS[-3], 0)


@pytest.mark.parametrize("window", [64, 1 << 20])
def test_commands_after_damage_are_counted(window: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(append_only, "_WINDOW", window)
    monkeypatch.setattr(append_only, "LONGEST_LINE", min(window, append_only.LONGEST_LINE))
    for number, start in enumerate(STARTS[:-1]):
        if FLAT[number][:1] == b"#":
            continue
        damaged = TEXT[:start] + bytes(3) + TEXT[start + 3 :]
        found = read(tmp_path, damaged)
        assert found.damage == start
        assert found.whole == max(end for end in UNIT_ENDS if end <= start)
        assert found.following == sum(part[:1] == b"*" for part in FLAT[number + 1 :])


def test_any_damaged_digit_of_a_length_or_a_count_is_noticed(tmp_path: Path) -> None:
    chance = random.Random(5)
    for number, start in enumerate(STARTS[:-1]):
        head = FLAT[number].index(b"\r\n", 6) if FLAT[number][:1] == b"*" else 0
        for place in [start + at for at in range(head) if TEXT[start + at : start + at + 1].isdigit()]:
            other = chance.choice([digit for digit in b"123456789" if digit != TEXT[place]])
            found = read(tmp_path, TEXT[:place] + bytes([other]) + TEXT[place + 1 :])
            assert found.damage is not None
            assert found.whole <= start, "a command with a wrong length is kept"


def test_words_that_no_command_claims_belong_to_the_command_before_them(tmp_path: Path) -> None:
    first, second, third = command(b"SET", b"a", b"1"), command(b"DEL", b"a", b"b"), command(b"DEL", b"c")
    found = read(tmp_path, first + second.replace(b"*3", b"*2") + third)
    assert (found.whole, found.damage, found.following) == (len(first), len(first), 1)


def test_a_value_that_lost_bytes_is_not_kept(tmp_path: Path) -> None:
    first, second, third = command(b"SET", b"a", b"1"), command(b"SET", b"b", b"x" * 100), command(b"DEL", b"c") * 9
    for lost in (1, 2, 5, 30):  # the value would take its end from what follows it
        found = read(tmp_path, first + second.replace(b"x" * lost, b"", 1) + third)
        assert (found.whole, found.damage) == (len(first), len(first))
        assert found.following == 9


def test_a_value_that_swallowed_the_next_head_is_not_kept(tmp_path: Path) -> None:
    first, second, third = command(b"SET", b"a", b"1"), command(b"SET", b"b", b"1"), command(b"EXEC") * 9
    found = read(tmp_path, first + second.replace(b"$1\r\n1", b"$9\r\n1") + third)  # up to the line end after $4
    assert (found.whole, found.damage, found.following) == (len(first), len(first), 9)


def test_a_length_beyond_the_end_hides_no_command(tmp_path: Path) -> None:
    first, second = command(b"SET", b"a", b"1"), command(b"DEL", b"c") * 50
    found = read(tmp_path, first.replace(b"$1\r\n1", b"$100000000\r\n1") + second)
    assert (found.whole, found.damage, found.following) == (0, 0, 50)


@pytest.mark.parametrize(
    "text", [b"*1x\r\n$3\r\nFOO\r\n", command(b"SELECT"), command(b"SET", b"a"), b"*+1\r\n$1\r\n\n\r\n"]
)
def test_unknown_commands_and_wrong_numbers_of_words(text: bytes, tmp_path: Path) -> None:
    assert read(tmp_path, text).whole == 0


def test_what_the_server_reads_although_it_is_damaged_is_read(tmp_path: Path) -> None:
    last = command(b"DEL", b"a")
    for text in (b"*+2\r\n$3\r\nDEL\r\n$1\r\na\r\n", b"*2x\r\n$3\r\nDEL\r\n$1\r\na\r\n", b"*2\n$3\nDEL\0\0$1\r\na\r\n"):
        assert read(tmp_path, text + last).damage is None


def folder(tmp_path: Path, manifest: bytes | None, **sizes: int) -> Path:
    parts = tmp_path / FOLDER
    parts.mkdir(parents=True)
    for name, size in sizes.items():
        kind = "base.rdb" if name[0] == "b" else "incr.aof"
        content = (b"REDIS0011" if name[0] == "b" else command(b"DEL", b"a") * size)[: size * 100]
        (parts / f"appendonly.aof.{name[1:]}.{kind}").write_bytes(content)
    if manifest is not None:
        (parts / MANIFEST).write_bytes(manifest)
    return tmp_path


BASE, INCR = b"file appendonly.aof.1.base.rdb seq 1 type b\n", b"file appendonly.aof.1.incr.aof seq 1 type i\n"
SECOND = b"file appendonly.aof.2.incr.aof seq 2 type i startoffset 5\n"


def test_the_parts_are_found_in_the_order_of_loading(tmp_path: Path) -> None:
    history = b"file appendonly.aof.7.incr.aof seq 7 type h\n"
    where = folder(tmp_path, SECOND + b"# a comment\n" + INCR + history + BASE, b1=1, i1=1, i2=0)
    found = layout(where)
    assert found.fault is None
    assert [part.path.name[15:] for part in found.parts] == ["1.base.rdb", "1.incr.aof", "2.incr.aof"]
    assert looks_sound(where)


@pytest.mark.parametrize(
    "manifest",
    [None, b"", bytes(88), BASE, BASE + INCR[:-1], BASE + INCR[:20], BASE + INCR.replace(b"type i", b"type x"),
     BASE + INCR.replace(b"appendonly.aof.1", b"../appendonly.aof.1"), b"\xff\xfe" + BASE + INCR],
)  # fmt: skip
def test_a_damaged_list_is_made_again_where_it_is_certain(manifest: bytes | None, tmp_path: Path) -> None:
    where = folder(tmp_path / "one", manifest, b1=1, i1=1)
    found = layout(where)
    assert found.fault is not None
    assert found.certain
    assert "".join(part.line for part in found.parts).encode() == BASE + INCR
    assert not looks_sound(where)
    assert not layout(folder(tmp_path / "two", manifest, b1=1, b2=1, i1=1)).certain
    assert not layout(folder(tmp_path / "gap", manifest, b1=1, i1=1, i3=1)).certain


def test_ends_that_the_server_would_pass_over(tmp_path: Path) -> None:
    assert looks_sound(tmp_path)  # no server has been here
    where = folder(tmp_path, BASE + INCR, b1=1, i1=1)
    assert looks_sound(where)
    increment, base = (where / FOLDER / f"appendonly.aof.1.{name}" for name in ("incr.aof", "base.rdb"))
    text = increment.read_bytes()
    increment.write_bytes(text[:-1] + b"\0")
    assert not looks_sound(where)
    increment.write_bytes(text)
    base.write_bytes(b"")
    assert not looks_sound(where)
    base.unlink()
    assert not looks_sound(where)
