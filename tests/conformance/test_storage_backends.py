"""One body over every storage backend: the suite that `check-storage` runs, the CID vectors, and ways from one to another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from index_frontend.dag.car import car_header, car_section
from index_frontend.storage.api import Capability
from index_frontend.storage.registry import installed, make_backends
from index_frontend.storage.suite import check, points
from index_frontend.storage.verified import Verified, opened
from tests.support import components
from tests.support.backends import MIB, blocks_of, chunks_of, content_of, plugin, read_all, vector
from tests.support.kubo import Kubo, nodes

EXAMPLE = Path(__file__).parents[2] / "docs/examples/matrix-pypi-storage-folder"
VECTORS = Path(__file__).with_name("vectors") / "cid_vectors.json"
KNOWN = [vector(size) for size in (0, 1, MIB, 4 * MIB + 23)]


@pytest.fixture(scope="module")
def kubo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubo]:
    """A node of its own."""
    components.require("Kubo")
    with nodes(tmp_path_factory.mktemp("kubo")) as (node,):
        yield node


@pytest.fixture
async def gateway() -> AsyncIterator[str]:
    """The address of a trustless gateway that holds KNOWN."""
    blocks: dict[str, bytes] = {"bafkqaaa": b""}
    for data in KNOWN:
        blocks |= blocks_of(data)

    async def answer(request: web.Request) -> web.Response:
        data = blocks.get(request.match_info["cid"])
        if data is None:
            return web.Response(status=404)
        return web.Response(body=data, content_type="application/vnd.ipld.raw")

    app = web.Application()
    app.router.add_get("/ipfs/{cid}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{site.port}"
    await runner.cleanup()


Make = Callable[[], Verified]


@pytest.fixture(params=["file", "memory", "folder", "gateway", "kubo"])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes the backend, as from a configuration."""
    kind, section = request.param, {}
    if kind in ("file", "folder"):
        section = {"folder": str(tmp_path / "files")}
        (tmp_path / "files").mkdir(exist_ok=True)
    elif kind == "gateway":
        section = {"url": request.getfixturevalue("gateway")}
    elif kind == "kubo":
        section = request.getfixturevalue("kubo").settings(fetch_timeout_seconds=0)
    monkeypatch.syspath_prepend(EXAMPLE)
    plugins = (*installed(), plugin("folder", "matrix_pypi_storage_folder:backend"))
    return lambda: make_backends({kind: {"type": kind, **section}}, plugins)[kind]


async def test_every_point_that_applies_is_met(make: Make) -> None:
    outcomes = [outcome async for outcome in check(make, known=KNOWN)]
    assert [outcome for outcome in outcomes if outcome.result == "failed"] == []
    assert tuple(outcome.point for outcome in outcomes) == points()


async def test_the_vectors_have_their_cids_everywhere(make: Make) -> None:
    async with opened(make()) as backend:
        if Capability.PUT not in backend.capabilities:
            pytest.skip("it only reads")
        for one in json.loads(VECTORS.read_bytes())["vectors"]:
            if one["size"] <= 10 * MIB:
                data = vector(one["size"])
                content = content_of(data)
                assert (content.sha256, content.cid) == (one["sha256"], one["cids"]["unixfs-v1-2025"])
                await backend.put(content, chunks_of(data))
                assert await read_all(backend, content) == data


def run(*arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """`matrix-pypi-index ARGUMENTS`, with the plug-ins that are installed in `path` beside ours."""
    environ: Mapping[str, Any] = {**os.environ, "COLUMNS": "200", **({"PYTHONPATH": str(path)} if path else {})}
    command = [sys.executable, "-m", "index_frontend", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=180, check=False)


@pytest.fixture(scope="module")
def example_installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the example plug-in was installed."""
    target = tmp_path_factory.mktemp("plugins")
    options = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    source = tmp_path_factory.mktemp("source") / "plugin"
    source.mkdir()
    for file in EXAMPLE.iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    subprocess.run(command, check=True, timeout=180)
    return target


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with the example plug-in."""
    (tmp_path / "share").mkdir()
    file = tmp_path / "frontend.yaml"
    file.write_text(
        "oracle: {url: 'unix:bot.sock', token_file: token}\nstorage: {folder: files}\n"
        "backends:\n  office:\n    type: folder\n    folder: share\n"
    )
    return file


def test_a_third_partys_plugin_is_installed_configured_and_tried_out(config: Path, example_installed: Path) -> None:
    done = run("check-storage", "office", "-c", str(config), path=example_installed)
    assert (done.returncode, done.stderr) == (0, "")
    assert "what it cannot do it says it cannot" in done.stdout
    assert "FAILED" not in done.stdout
    assert done.stdout.splitlines()[-1].startswith("office: ")
    assert [*(config.parent / "share").iterdir()] == []


def test_a_share_that_is_away_is_told_as_such(config: Path, example_installed: Path) -> None:
    (config.parent / "share").rmdir()
    done = run("check-storage", "office", "-c", str(config), path=example_installed)
    assert (done.returncode, done.stdout) == (4, "")
    assert "office is down" in done.stderr


def test_without_the_plugin_the_line_is_named(config: Path) -> None:
    done = run("check-storage", "office", "-c", str(config))
    assert done.returncode == 3
    assert f"{config}, line 5: backends.office.type: no storage plug-in is called folder" in done.stderr


def test_a_name_that_nobody_has_gets_the_nearest(config: Path, example_installed: Path) -> None:
    done = run("check-storage", "ofice", "-c", str(config), path=example_installed)
    assert done.returncode == 3
    assert "did you mean office?" in done.stderr


@pytest.fixture
def places(tmp_path: Path, kubo: Kubo) -> Path:
    """A configuration of two folders and a Kubo node."""
    node = json.dumps({"type": "kubo", **kubo.settings(fetch_timeout_seconds=0)})
    file = tmp_path / "frontend.yaml"
    file.write_text(
        "oracle: {url: 'unix:bot.sock', token_file: token}\nstorage: {folder: files}\n"
        f"backends:\n  second: {{type: file, folder: second}}\n  node: {node}\n"
    )
    return file


def test_from_the_store_through_kubo_and_back_every_archive_is_the_same(places: Path, kubo: Kubo) -> None:
    folder = places.parent
    files = [vector(size) for size in (0, 5, MIB, MIB + 1, 10 * MIB)] + [bytes(4 * MIB)]
    cids = [content_of(data).cid for data in files]
    (folder / "in").mkdir()
    for cid, data in zip(cids, files, strict=True):
        blocks = blocks_of(data)
        order = [cid, *(one for one in blocks if one != cid)]
        (folder / "in" / f"{cid}.car").write_bytes(
            car_header(cid) + b"".join(car_section(one, blocks[one]) for one in order)
        )
    said = ["-c", str(places)]
    for arguments in (
        ("import", "file", str(folder / "in")),
        ("export", "file", "--all", "-o", str(folder / "a")),
        ("copy", "file", "node", "--all"),
        ("export", "node", *cids, "-o", str(folder / "b")),
        ("copy", "node", "second", *cids),
        ("export", "second", "--all", "-o", str(folder / "c")),
    ):
        done = run("storage", *arguments, *said)
        assert (done.returncode, done.stdout.count("refused")) == (0, 0), done.stderr
    for cid in cids:
        archives = [(folder / name / f"{cid}.car").read_bytes() for name in ("in", "a", "b", "c")]
        assert len({*archives, kubo.cli("dag", "export", cid)}) == 1
    again = run("storage", "copy", "file", "node", "--all", *said)
    assert (again.returncode, again.stdout) == (0, "")
    assert f"{len(files)} was there" in again.stderr


def test_what_the_backends_hold_is_shown_pinned_and_deleted(places: Path) -> None:
    folder, said = places.parent, ["-c", str(places)]
    data = vector(3 * MIB + 77)
    content = content_of(data)
    blocks = blocks_of(data)
    car = folder / "one.car"
    car.write_bytes(car_header(content.cid) + b"".join(car_section(cid, block) for cid, block in blocks.items()))
    assert run("storage", "import", "second", str(car), *said).returncode == 0
    rows = [json.loads(line) for line in run("storage", "list", "--json", *said).stdout.splitlines()]
    assert [(row["name"], row["type"], row["health"]["state"]) for row in rows] == [
        ("file", "file", "ok"),
        ("second", "file", "ok"),
        ("node", "kubo", "ok"),
    ]
    assert rows[1]["usage"]["files"] == 1
    assert "second" in run("storage", "list", *said).stdout
    assert run("storage", "pin", "second", content.cid, "--as", "release", *said).returncode == 0
    listed = run("storage", "list", "second", *said).stdout
    assert listed.split() == [content.sha256, content.cid, str(content.size), "release"]
    refused = run("storage", "delete", "second", content.sha256, *said)
    assert (refused.returncode, "it is pinned: release" in refused.stdout) == (1, True)
    assert run("storage", "unpin", "second", "--all", *said).returncode == 0
    assert run("storage", "scrub", "second", *said).returncode == 0
    assert run("storage", "delete", "second", content.sha256, *said).returncode == 0
    gone = run("storage", "delete", "second", content.sha256, *said)
    assert (gone.returncode, "does not hold" in gone.stderr) == (1, True)
    assert run("storage", "copy", "file", "second", *said).returncode == 2  # neither files nor --all
