"""The Kubo backend, over a real node and over one that lies."""
