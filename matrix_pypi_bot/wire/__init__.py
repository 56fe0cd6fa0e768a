"""What the bot and the frontend must agree on, byte for byte: names, digests, CIDs, messages and problems. Pure."""
