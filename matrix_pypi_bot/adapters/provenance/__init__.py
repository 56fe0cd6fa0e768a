"""Provenance (PEP 740) from outside: documents over HTTP, and Sigstore, which verifies them. The only importers of its libraries."""
