"""The database: one schema and one SQL dialect for SQLite and PostgreSQL, the ledger insert-only by the database's own force."""
