"""IPFS software that others wrote: Helia fetches from our gateway, ipfs-car reads and writes CARs as we do."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from index_frontend.dag.car import CarReader
from matrix_pypi_bot.wire.cids import CidBuilder
from tests.support.components import has
from tests.support.dists import Dist, wheel
from tests.support.http_client import Reply, ask
from tests.support.npm import helia_cat, ipfs_car
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not has("npm clients"), reason="no npm clients: .ci/npm/install"),
]
MIB = 1 << 20
SIZES = [1, MIB, MIB + 1, 5 * MIB + 12_345]


def cid_of(content: bytes) -> str:
    builder = CidBuilder()
    builder.update(content)
    return builder.finish()


def served(stack: Stack, upstream: Upstream, dist: Dist) -> str:
    """The CID of a file that a client was given and whose blocks the gateway gives since."""
    upstream.publish(dist)
    assert stack.file(dist).body == dist.content
    cid = cid_of(dist.content)
    wait_until(lambda: car_of(stack, cid).status == 200, f"the gateway gives {dist.filename}")
    return cid


def car_of(stack: Stack, cid: str) -> Reply:
    return ask(f"{stack.org.frontend}/ipfs/{cid}?format=car", Accept="application/vnd.ipld.car")


@pytest.mark.parametrize("payload_bytes", [100, 3 * MIB])
def test_helia_gets_a_file_from_our_gateway_block_by_block(
    stack: Stack, upstream: Upstream, name: str, payload_bytes: int
) -> None:
    dist = wheel(name, payload_bytes=payload_bytes)
    cid = served(stack, upstream, dist)
    assert helia_cat(stack.org.frontend, cid) == dist.content


def test_helia_gets_a_part_of_a_file_across_two_blocks(stack: Stack, upstream: Upstream, name: str) -> None:
    dist = wheel(name, payload_bytes=3 * MIB)
    cid = served(stack, upstream, dist)
    assert helia_cat(stack.org.frontend, cid, (MIB - 100, MIB + 100)) == dist.content[MIB - 100 : MIB + 100]


def test_helia_gets_nothing_of_a_file_that_is_refused(stack: Stack, upstream: Upstream, name: str) -> None:
    dist = wheel(name, payload_bytes=100)
    cid = served(stack, upstream, dist)
    upstream.publish(wheel(name, payload_bytes=100, salt="another"))
    stack.page_once(name, lambda page: stack.file(dist).status == 403, "lists it as changed")
    stack.withdrawn(dist.path)
    with pytest.raises(subprocess.CalledProcessError):
        helia_cat(stack.org.frontend, cid)


def test_ipfs_car_unpacks_the_car_that_our_gateway_gives(
    stack: Stack, upstream: Upstream, name: str, tmp_path: Path
) -> None:
    dist = wheel(name, payload_bytes=3 * MIB)
    cid = served(stack, upstream, dist)
    (car := tmp_path / "file.car").write_bytes(car_of(stack, cid).body)
    assert ipfs_car("roots", str(car)).split() == [cid]
    ipfs_car("unpack", str(car), "--output", str(unpacked := tmp_path / "file"))
    assert unpacked.read_bytes() == dist.content


@pytest.mark.parametrize("size", SIZES)
def test_ipfs_car_computes_the_cid_that_we_compute_and_we_read_its_car(size: int, tmp_path: Path) -> None:
    content = wheel(f"mxcar{size}", payload_bytes=size).content[-size:]
    (file := tmp_path / "file").write_bytes(content)
    ipfs_car("pack", str(file), "--no-wrap", "--output", str(car := tmp_path / "file.car"))
    assert ipfs_car("roots", str(car)).split() == [cid_of(content)]
    reader = CarReader(max_bytes=2 * size + MIB)
    blocks = reader.feed(car.read_bytes())
    reader.finish()
    assert reader.roots == (cid_of(content),)
    assert cid_of(content) in dict(blocks)
