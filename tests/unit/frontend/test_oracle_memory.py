"""What is held of the bot's word: bounded, and never taken for current when it may not be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index_frontend.oracle import PageAnswer
from index_frontend.oracle import memory as module
from index_frontend.oracle.held import HeldPage, key_of
from index_frontend.oracle.memory import Memory
from matrix_pypi_bot.wire.messages import Change, Decision
from matrix_pypi_bot.wire.names import ProjectName, parse_file_path
from matrix_pypi_bot.wire.problems import Problem, ProblemCode
from tests.support.bot_pages import file_entry, page


def keep(memory: Memory, project: str, revision: str = "r1", seq: int = 1, files: int = 1) -> HeldPage:
    """The bot answers with a page."""
    name, entries = ProjectName(project), [file_entry(f"{project}-{number}.0.tar.gz") for number in range(files)]
    answer = PageAnswer(
        raw=page(project, entries, revision=revision, seq=seq),
        revision=revision,
        state="live",
        age_seconds=0,
        fresh_seconds=60,
        seq=seq,
    )
    return memory.keep_page(name, answer, memory.page(name), epoch=memory.epoch, now=0)


def test_pages_used_longest_ago_are_forgotten_first_and_their_files_with_them() -> None:
    memory = Memory(max_bytes=3 * keep(Memory(1 << 30), "p0").cost)
    for number in range(3):
        keep(memory, f"p{number}")
    memory.page(ProjectName("p0"))
    keep(memory, "p3")
    there = [number for number in range(4) if memory.page(ProjectName(f"p{number}"))]
    keys = [key_of(parse_file_path(file_entry(f"p{number}-0.0.tar.gz")["_path"])) for number in range(4)]
    assert there == [0, 2, 3]
    assert [number for number in range(4) if memory.page_of(keys[number])] == there


def test_a_page_larger_than_all_room_is_held_until_the_next() -> None:
    memory = Memory(max_bytes=1)
    keep(memory, "p0", files=50)
    assert memory.page(ProjectName("p0")) is not None
    keep(memory, "p1")
    assert memory.page(ProjectName("p0")) is None
    assert memory.bytes_held == keep(Memory(1), "p1").cost


def test_dropping_and_replacing_gives_back_all_room() -> None:
    memory = Memory(1 << 30)
    keep(memory, "p0", "r1", files=9)
    keep(memory, "p0", "r2", files=2)
    assert memory.bytes_held == keep(Memory(1 << 30), "p0", "r2", files=2).cost
    memory.drop_page(ProjectName("p0"))
    memory.drop_page(ProjectName("p0"))
    assert memory.bytes_held == 0


def test_a_change_too_long_ago_to_be_remembered_still_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_CHANGES", 2)
    memory = Memory(1 << 30)
    held = keep(memory, "p0", "r1", seq=1)
    path = parse_file_path(file_entry("p9-1.0.tar.gz")["_path"])
    decision = Decision(action="serve", http=200, rule="R8", project="p9", file=path.file, path="", seq=1)
    memory.keep_decision("key", decision, 0)
    for seq, project in enumerate(("p0", "p9", "p2", "p3"), start=2):
        memory.hear(Change(seq=seq, project=project, revision="r2", withdrawn=(path.file,)))
    assert (memory.is_current(held), memory.is_current_decision(decision), memory.decision("key")) == (
        False,
        False,
        None,
    )
    assert memory.is_current(keep(memory, "p0", "r2", seq=9))


@given(st.lists(st.tuples(st.sampled_from(["change", "answer"]), st.integers(0, 3), st.integers(0, 3)), max_size=30))
def test_a_page_is_current_only_if_no_later_change_made_another_of_it(steps: list[tuple[str, int, int]]) -> None:
    memory, seq = Memory(1 << 30), 1
    last_change = (0, "")
    for what, number, back in steps:
        if what == "change":
            seq += 1
            last_change = (seq, f"r{number}")
            memory.hear(Change(seq=seq, project="p0", revision=f"r{number}"))
        else:
            keep(memory, "p0", f"r{number}", seq=max(0, seq - back))
        held = memory.page(ProjectName("p0"))
        if held is not None and memory.is_current(held):
            assert held.seq >= last_change[0] or held.revision == last_change[1]


def test_an_absence_is_bounded_in_time_and_ends_with_the_next_change() -> None:
    memory = Memory(1)
    memory.keep_absence("p0", Problem("gone", hint="h", code=ProblemCode.NOT_FOUND), until=10)
    absence = memory.absence("p0", 9.9)
    assert absence is not None
    again = absence.again()
    assert (again.detail, again.hint, again.code) == ("gone", "h", ProblemCode.NOT_FOUND)
    assert memory.absence("p0", 10) is None
    memory.hear(Change(seq=2, project="p1", revision="r1"))
    assert memory.absence("p0", 0) is None
