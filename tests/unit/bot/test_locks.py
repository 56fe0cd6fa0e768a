"""Lock files: what they let an installer take, and that nothing in them is skipped in silence."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matrix_pypi_bot.core.locks import UnreadableLock, Wanted, pinned_version, read_lock
from matrix_pypi_bot.wire.digests import Sha256
from matrix_pypi_bot.wire.names import FileName, ProjectName
from matrix_pypi_bot.wire.problems import Problem

A, B = Sha256("a" * 64), Sha256("b" * 64)
MXA = ProjectName("mxa")
WHEEL = FileName("mxa-1.0-py3-none-any.whl")


def requirements(text: str) -> list[Wanted]:
    return read_lock("requirements.txt", text.encode())


def test_a_requirement_names_a_version_and_every_hash_that_it_accepts() -> None:
    text = f"""
# made by a tool
--index-url https://index.example/simple/
Mx_A[extra]==1.0 ; python_version >= "3.8" \\
    --hash=sha256:{"a" * 64} \\
    --hash=sha256:{"B" * 64}
    # via -r requirements.in
"""
    assert requirements(text) == [Wanted(project=ProjectName("mx-a"), version="1.0", hashes=frozenset({A, B}))]


@pytest.mark.parametrize(
    ("line", "unchecked"),
    [
        ("mxa", "is not pinned to one version"),
        ("mxa>=1", "is not pinned to one version"),
        ("mxa==1.*", "is not pinned to one version"),
        ("mxa @ https://files.example/mxa-1.0.tar.gz", "comes from an address of its own, not from the index"),
    ],
)
def test_what_cannot_be_checked_is_listed_with_the_reason(line: str, unchecked: str) -> None:
    assert [one.unchecked for one in requirements(line)] == [unchecked]


@pytest.mark.parametrize(
    "text",
    [
        "-r other.txt", "-e .", "--hash=sha256:" + "a" * 64, "mxa==1.0 --hash=md5:" + "a" * 32, "mxa==1.0 --hash=sha256:xyz",
        "--requ other.txt", "--pre -r other.txt", "--pre '-r' other.txt", "--pre -e .", "--edit .", "-i 'https://index.example",
        "mxa==1.0 --has=sha256:" + "a" * 64, "mxa==1.0 --hash=sha256:" + "a" * 64 + " -r other.txt",
        "not a requirement !", "../x==1", f"mxa==1.0 \\\n# a comment ends the line\n--hash=sha256:{'a' * 64}",
    ],
)  # fmt: skip
def test_what_could_hide_a_hash_is_refused(text: str) -> None:
    with pytest.raises(UnreadableLock):
        requirements(text)


def test_a_hash_that_is_spelled_for_a_shell_is_read_as_pip_reads_it() -> None:
    [found] = requirements(f'mxa==1.0 --hash=sha256:{"a" * 64} "--ha"sh=sha256:{"b" * 64}')
    assert found.hashes == {A, B}


@pytest.mark.parametrize("end", ["\r", "\v", "\f", "\x1c", "\x85", "\u2028"])
def test_a_comment_ends_where_pip_lets_it_end(end: str) -> None:
    assert [one.project for one in requirements(f"mxa==1.0 # a comment{end}mxb==1.0\n")] == ["mxa", "mxb"]


@pytest.mark.parametrize("line", ["--index-url https://index.example/simple/", "-fhttps://files.example", "-c c.txt"])
def test_without_a_hash_a_file_that_says_where_from_names_nothing_that_a_mirror_could_vouch_for(line: str) -> None:
    told = "has no hash, and the file names where to take it from"
    assert [one.unchecked for one in requirements(f"{line}\nmxa==1.0\nmxb==1.0 --hash sha256:{'a' * 64}")] == [told, ""]


def test_a_pylock_names_files_with_their_digests() -> None:
    text = f"""
lock-version = "1.0"
created-by = "test"
[[packages]]
name = "mxa"
version = "1.0"
wheels = [{{name = "{WHEEL}", url = "https://files.example/x/{WHEEL}", hashes = {{sha256 = "{A}"}}}}]
sdist = {{url = "https://files.example/x/mxa-1.0.tar.gz", hashes = {{sha256 = "{B}"}}}}
[[packages]]
name = "mxb"
directory = {{path = "."}}
[[packages]]
name = "mxc"
version = "1"
sdist = {{name = "mxc-1.tar.gz", url = "https://files.example/x/mxc-1.tar.gz", hashes = {{sha512 = "x"}}}}
"""
    found = read_lock("pylock.toml", text.encode())
    assert found[:2] == [
        Wanted(project=MXA, version="1.0", file=WHEEL, hashes=frozenset({A})),
        Wanted(project=MXA, version="1.0", file=FileName("mxa-1.0.tar.gz"), hashes=frozenset({B})),
    ]
    assert [one.unchecked for one in found[2:]] == [
        "comes from a directory or a repository, not from the index",
        "has no sha256 in the lock",
    ]


def test_a_uv_lock_names_files_and_leaves_out_the_project_itself() -> None:
    text = f"""
version = 1
[[package]]
name = "own"
version = "0.1"
source = {{ virtual = "." }}
[[package]]
name = "mxa"
version = "1.0"
source = {{ registry = "https://index.example/simple/" }}
sdist = {{ url = "https://files.example/mxa-1.0.tar.gz", hash = "sha256:{B}", size = 5 }}
wheels = [
    {{ url = "https://files.example/mxa-1.0%2Bcpu-py3-none-any.whl#sha256={A}", hash = "sha256:{A}" }},
]
[[package]]
name = "mxb"
version = "1.0"
source = {{ git = "https://git.example/mxb" }}
"""
    assert read_lock("uv.lock", text.encode()) == [
        Wanted(project=MXA, version="1.0", file=FileName("mxa-1.0+cpu-py3-none-any.whl"), hashes=frozenset({A})),
        Wanted(project=MXA, version="1.0", file=FileName("mxa-1.0.tar.gz"), hashes=frozenset({B})),
        Wanted(project=ProjectName("mxb"), version="1.0", unchecked="does not come from an index"),
    ]


@pytest.mark.parametrize("name", ["uv.lock", "pylock.toml", "requirements.txt"])
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=200).map(str.encode)))
def test_any_bytes_are_a_lock_or_a_problem(name: str, data: bytes) -> None:
    with contextlib.suppress(Problem):
        read_lock(name, data)


@pytest.mark.parametrize(
    "text",
    [
        "package = 1",
        "package = [1]",
        "[[package]]\nname = 1",
        '[[package]]\nname = "-"',
        '[[package]]\nname = "a"\nwheels = [1]',
    ],
)
def test_a_uv_lock_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(Problem):
        read_lock("uv.lock", text.encode())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Mx.A==1.0.0", Wanted(project=ProjectName("mx-a"), version="1.0.0")),
        ("mxa", None),
        ("mxa==", None),
        ("mxa==1.*", None),
        ("requirements.txt", None),
        ("==1", None),
    ],
)
def test_one_release_is_a_name_and_a_version(text: str, found: Wanted | None) -> None:
    assert pinned_version(text) == found
