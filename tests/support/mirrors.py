"""Two stacks as two mirrors of one upstream: one keeps what it has, the other may lose it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from tests.support.backends import content_of
from tests.support.dists import Dist
from tests.support.http_client import Reply, ask
from tests.support.stack import Stack
from tests.support.upstream import Upstream
from tests.support.waiting import wait_until

TOLD_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Mirrors:
    """`a` keeps what it has; `b` may lose its store. They attest nothing to one another: each decides by itself."""

    a: Stack
    b: Stack
    upstream: Upstream

    def both_serve(self, *dists: Dist) -> None:
        """Both have fetched the files from the upstream and attested them, and give their blocks."""
        self.upstream.publish(*dists)
        for dist in dists:
            for mirror in (self.a, self.b):
                assert mirror.file(dist).body == dist.content
                wait_until(
                    lambda mirror=mirror, dist=dist: block(mirror, dist).status == 200,
                    f"{mirror.home} gives the blocks of {dist.filename}",
                    timeout_seconds=TOLD_SECONDS,
                )

    def b_loses_its_store_and_the_upstream_goes(self) -> None:
        """`b` starts again with nothing but its memory of what it decided."""
        assert self.b.stop() == 0
        shutil.rmtree(self.b.home / "orga" / "files")
        self.upstream.off()
        self.b.start()


def block(mirror: Stack, dist: Dist) -> Reply:
    """The root block of a file, as any IPFS client asks for it."""
    url = f"{mirror.org.frontend}/ipfs/{content_of(dist.content).cid}?format=raw"
    return ask(url, Accept="application/vnd.ipld.raw")
