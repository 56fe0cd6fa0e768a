"""What a Kubo node answers, as far as it is looked at. Everything else in an answer is ignored, everything of another shape refused."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, field

Text = Annotated[str, Meta(max_length=4096)]
Bytes = Annotated[int, Meta(ge=0, le=1 << 62)]


class Failure(msgspec.Struct, frozen=True):
    """An error: the body of a status that is not 200, or a line among others under a 200."""

    message: str = field(name="Message")
    type: str = field(name="Type", default="")


class Version(msgspec.Struct, frozen=True):
    """`version`: e.g. `0.43.0`."""

    version: Text = field(name="Version")


class Identity(msgspec.Struct, frozen=True):
    """`id`: the peer id, and the multiaddresses under which others find the node (each with the peer id at its end)."""

    peer_id: Text = field(name="ID")
    addresses: list[Text] | None = field(name="Addresses", default=None)


class RepositorySize(msgspec.Struct, frozen=True):
    """`repo/stat?size-only=true`, in bytes. `limit` is the node's own soft one."""

    size: Bytes = field(name="RepoSize")
    limit: int = field(name="StorageMax", default=0)


class PinInfo(msgspec.Struct, frozen=True):
    """How something is pinned."""

    type: Text = field(name="Type", default="")
    name: Text = field(name="Name", default="")


class Pins(msgspec.Struct, frozen=True):
    """`pin/ls?arg=…`: pins by CID."""

    keys: dict[str, PinInfo] = field(name="Keys", default_factory=dict)


class PinLine(msgspec.Struct, frozen=True):
    """A line of `pin/ls?stream=true`."""

    cid: Text = field(name="Cid")
    name: Text = field(name="Name", default="")


class PinProgress(msgspec.Struct, frozen=True):
    """A line of `pin/add?progress=true`: how many blocks were looked at so far, or at the end what is pinned now."""

    pins: list[Text] | None = field(name="Pins", default=None)
    blocks: int = field(name="Progress", default=0)


class Added(msgspec.Struct, frozen=True):
    """A line of `add`: what a file has become."""

    cid: Text = field(name="Hash")


class Link(msgspec.Struct, frozen=True):
    """A CID in DAG-JSON."""

    cid: Text = field(name="/")


class ImportedRoot(msgspec.Struct, frozen=True):
    """A root of an imported archive. A pin error comes under the status 200."""

    cid: Link = field(name="Cid")
    pin_error: Text = field(name="PinErrorMsg", default="")


class ImportLine(msgspec.Struct, frozen=True):
    """A line of `dag/import`: a root, or figures that nobody needs."""

    root: ImportedRoot | None = field(name="Root", default=None)


class Peering(msgspec.Struct, frozen=True):
    """A peer that the node stays connected with."""

    peer_id: Text = field(name="ID")


class Peerings(msgspec.Struct, frozen=True):
    """`swarm/peering/ls`."""

    peers: list[Peering] | None = field(name="Peers", default=None)


class SwarmPeers(msgspec.Struct, frozen=True):
    """`swarm/peers`: whom the node is connected with now."""

    peers: list[msgspec.Raw] | None = field(name="Peers", default=None)


class RemovedLine(msgspec.Struct, frozen=True):
    """A line of `repo/gc`; an error comes under the status 200."""

    error: Text = field(name="Error", default="")
