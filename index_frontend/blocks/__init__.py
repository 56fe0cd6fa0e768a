"""Blocks from others: asked for side by side, each checked before a byte of it is let out, whoever gave a wrong one left alone."""
