"""`matrix-pypi-index storage`: what goes wrong outside of us is one line and an exit code, never a traceback."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import BinaryIO

import pytest
from click.testing import CliRunner, Result

from index_frontend.cli import main
from index_frontend.storage.api import Health, Unavailable
from index_frontend.storage.store_backend import StoreBackend

HINT = "hint: look at the path, its permissions, and the room on its disk\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with a second store."""
    (tmp_path / "token").write_text("t" * 40)
    (tmp_path / "token").chmod(0o600)
    path = tmp_path / "frontend.yaml"
    path.write_text(
        "storage: {folder: files, min_free_bytes: 0, min_free_inodes: 0}\n"
        "oracle: {url: 'http://127.0.0.1:1', token_file: token}\n"
        "backends: {other: {type: file, folder: other, min_free_bytes: 0, min_free_inodes: 0}}\n"
    )
    return path


def storage(config: Path, *arguments: object) -> Result:
    command = ["storage", *(str(argument) for argument in arguments), "-c", str(config)]
    return CliRunner().invoke(main, command, env={"COLUMNS": "200"})


def test_a_folder_that_cannot_be_made_is_named_in_one_line(config: Path) -> None:
    done = storage(config, "export", "file", "--all", "-o", config / "below a file")
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr == f"error: {config}/below a file: Not a directory\n{HINT}"


def test_a_full_disk_under_an_export_is_told_and_leaves_nothing_half_written(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: BinaryIO) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    archives = tmp_path / "archives"
    empty_file = b"\x3a\xa2\x65roots\x81\xd8\x2a\x58\x25\x00"  # a CARv1 of one root, which is the file of no bytes
    block = bytes.fromhex("01551220e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    (tmp_path / "empty.car").write_bytes(empty_file + block + b"\x67version\x01" + b"\x24" + block)
    assert storage(config, "import", "file", tmp_path / "empty.car").exit_code == 0
    monkeypatch.setattr("index_frontend.storage.archive._sync", full)
    done = storage(config, "export", "file", "--all", "-o", archives)
    assert (done.exit_code, done.stdout) == (4, "")
    assert done.stderr.endswith(f"error: No space left on device\n{HINT}")
    assert [*archives.iterdir()] == []


def test_a_folder_with_an_archives_name_is_no_archive(config: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.car").mkdir()
    done = storage(config, "import", "file", tmp_path)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "importing: no files; 0 B\n")


def test_what_a_backend_says_of_itself_is_shown_as_it_is(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def health(self: StoreBackend) -> Health:
        return Health(state="down", detail="no route to [/ip4/192.0.2.7/tcp/4001]")

    monkeypatch.setattr(StoreBackend, "health", health)
    done = storage(config, "list")
    assert done.exit_code == 1
    assert "no route to [/ip4/192.0.2.7/tcp/4001]" in done.stdout


def test_a_backend_that_does_not_open_does_not_hide_the_others(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opening = StoreBackend.open

    async def refusing(self: StoreBackend) -> None:
        if self.name == "other":
            raise Unavailable("the share is away [/mnt/x]", backend=self.name)
        await opening(self)

    monkeypatch.setattr(StoreBackend, "open", refusing)
    done = storage(config, "list")
    assert done.exit_code == 1
    assert [line.split()[:3] for line in done.stdout.splitlines()[1:3]] == [
        ["file", "file", "ok"],
        ["other", "file", "down"],
    ]


def test_delete_wants_names_and_does_not_offer_everything(config: Path) -> None:
    done = storage(config, "delete", "file")
    assert done.exit_code == 2
    assert done.stderr.endswith("Error: name files by sha256 or CID\n")
