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


@pytest.fixture(params=["folder", "gateway", "kubo"])
def make(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes the backend, as from a configuration."""
    kind, section = request.param, {}
    if kind in ("file", "folder"):
        section = {"folder": str(tmp_path / "files")}
        (tmp_path / "files").mkdir()
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
