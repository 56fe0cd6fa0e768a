"""Blocks from others: asked for side by side, each checked before a byte of it is let out, whoever gave a wrong one left alone."""

from index_frontend.blocks.blocks import Blocks, cids_of, is_right_by_block, needs_cid
from index_frontend.blocks.file import BlockFile
from index_frontend.blocks.gateways import Gateways
from index_frontend.blocks.neighbour import Kind, Neighbour

__all__ = ["BlockFile", "Blocks", "Gateways", "Kind", "Neighbour", "cids_of", "is_right_by_block", "needs_cid"]
