"""Files kept in a Kubo node: small commands by aioipfs, bytes by streams of our own, nothing believed that was not counted."""
