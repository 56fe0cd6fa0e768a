"""Gateways that files name: made when they are needed, a few at a time, and only those that may be asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from index_frontend.blocks import Blocks, Gateways
from index_frontend.blocks.neighbour import FAILURES
from index_frontend.ports import SourceAway, Wanted
from index_frontend.storage.verified import Verified
from matrix_pypi_bot.process.outbound import Origin
from matrix_pypi_bot.wire.cids import Cid
from matrix_pypi_bot.wire.messages import Observed
from tests.unit.frontend.test_blocks import BIG, BLOCKS, ROOT, SMALL, Mirror, fetched, wanted

ONE, TWO, PRIVATE = "https://one.example", "https://two.example/mirror", "http://127.0.0.1:8081"


class Net:
    """Mirrors by address. `made` tells of each that was made what it is called and what is open to it, `closed` which are closed."""

    def __init__(self) -> None:
        self.mirrors: dict[str, Mirror] = {}
        self.made: list[tuple[str, str, frozenset[Origin]]] = []
        self.closed: list[str] = []

    def __call__(self, name: str, url: str, opened: frozenset[Origin]) -> Verified:
        self.made.append((name, url, opened))
        mirror = self.mirrors[url] = _Closing(name, dict(BLOCKS), self.closed)
        return Verified(mirror)


class _Closing(Mirror):
    def __init__(self, name: str, held: dict[Cid, bytes], closed: list[str]) -> None:
        super().__init__(name, held)
        self.closed = closed

    async def close(self) -> None:
        self.closed.append(self.name)


def naming(*peers: str, origins: tuple[str, ...] = ()) -> Wanted:
    return replace(wanted(), peers=peers, peer_origins=frozenset(origins), has_peers=True)


def blocks_over(net: Net, **options: object) -> Blocks:
    async def report(observed: Observed) -> None:
        raise AssertionError(observed)

    return Blocks((), report, Gateways(net, **options))  # type: ignore[arg-type]


async def test_a_file_comes_from_the_gateways_that_it_names_and_no_others() -> None:
    net = Net()
    blocks = blocks_over(net)
    assert blocks.ways(wanted()) == ()
    assert await fetched(blocks, naming(ONE, TWO)) == BIG
    assert [url for _, url, _ in net.made] == [ONE, TWO]
    assert all(mirror.asked for mirror in net.mirrors.values())
    assert await fetched(blocks, naming(TWO + "/")) == BIG
    assert len(net.made) == 2


async def test_what_is_known_of_a_gateway_is_known_for_the_next_file() -> None:
    net = Net()
    blocks = blocks_over(net)
    assert await fetched(blocks, naming(ONE)) == BIG
    net.mirrors[ONE].fails = 2 * FAILURES
    for _ in range(FAILURES - 1):
        with pytest.raises(SourceAway):
            await blocks.open(naming(ONE))
    assert blocks.ways(naming(ONE)) == ()
    assert blocks.ways(naming(ONE, TWO)) != ()


@pytest.mark.parametrize(
    "url",
    [
        PRIVATE,
        "http://one.example",
        "https://user:password@one.example",
        "ftp://one.example",
        "file:///etc/passwd",
        "one.example",
        "https://",
        "https://one.example:99999",
        "",
    ],
)
async def test_an_address_that_nobody_opened_and_that_is_no_https_is_not_asked(url: str) -> None:
    net = Net()
    blocks = blocks_over(net)
    assert blocks.ways(naming(url)) == ()
    with pytest.raises(SourceAway):
        await blocks.open(naming(url))
    assert net.made == []


async def test_exactly_the_origin_that_the_operator_opened_may_be_private() -> None:
    net = Net()
    blocks = blocks_over(net)
    other = "http://127.0.0.1:8082"
    assert await fetched(blocks, naming(PRIVATE, other, ONE, origins=(PRIVATE,))) == BIG
    assert [(url, opened) for _, url, opened in net.made] == [(PRIVATE, {PRIVATE}), (ONE, frozenset())]
    assert blocks.ways(naming(PRIVATE)) == ()  # opened for one file is not open for all


async def test_a_gateway_that_the_configuration_names_is_no_second_neighbour() -> None:
    net = Net()
    assert blocks_over(net, known=frozenset({ONE + "/"})).ways(naming(ONE)) == ()


async def test_no_more_gateways_are_known_than_there_is_room_for_and_the_one_not_asked_for_longest_goes() -> None:
    net = Net()
    blocks = blocks_over(net, most=3)
    urls = [f"https://m{number}.example" for number in range(4)]
    for url in (*urls[:3], urls[0], urls[3]):
        await blocks.open(naming(url))
    assert net.closed == ["https://m1.example:443"]
    await blocks.open(naming(*urls, "https://m9.example"))
    assert len(net.made) - len(net.closed) == 3


async def test_all_are_closed_in_the_end() -> None:
    net = Net()
    gateways = Gateways(net)
    await gateways.named(naming(ONE, TWO))
    await gateways.close()
    assert sorted(net.closed) == ["https://one.example:443", "https://two.example:443"]
    assert gateways.held == ()


async def test_a_lost_block_is_asked_of_gateways_that_were_asked_lately() -> None:
    net = Net()
    blocks = blocks_over(net)
    assert await blocks.repair(ROOT) is None
    await blocks.open(naming(ONE))
    assert await blocks.repair(ROOT) == BLOCKS[ROOT]


@pytest.mark.parametrize(
    ("changes", "asks"),
    [
        ({"has_peers": True}, True),
        ({"has_peers": True, "cids": (ROOT,)}, True),
        ({"has_peers": True, "peers": (ONE,)}, False),
        ({"cids": ()}, False),
    ],
)
def test_the_bot_is_asked_who_has_a_file_when_there_may_be_somebody(changes: dict[str, object], *, asks: bool) -> None:
    small = wanted(SMALL, cids=())
    for want in (wanted(), small):
        assert blocks_over(Net()).asks_for_whereabouts(replace(want, **changes)) is asks  # type: ignore[arg-type]
