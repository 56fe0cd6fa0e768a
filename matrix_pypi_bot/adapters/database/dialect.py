"""What SQLite and PostgreSQL say differently, once. Everything else is one SQL with `$1`, `$2`, ... for both.

Definitions of tables are written with these names in braces:

| in a definition | meaning |
|---|---|
| `{identity}` | a primary key that grows with every row and never comes back, also not after rows were deleted |
| `{blob}` | bytes |
| `{name}` | text that is compared and sorted byte by byte, whatever the locale of the database |
"""

from __future__ import annotations

from typing import Final

from mautrix.util.async_db import Connection, Scheme

__all__ = ["Connection", "Scheme", "definition", "insert_only", "prepare"]

_WORDS: Final = {
    Scheme.SQLITE.value: {"identity": "INTEGER PRIMARY KEY AUTOINCREMENT", "blob": "BLOB", "name": "TEXT"},
    Scheme.POSTGRES.value: {
        "identity": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
        "blob": "BYTEA",
        "name": 'TEXT COLLATE "C"',
    },
}
_REFUSE_FUNCTION: Final = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '% is insert-only', TG_TABLE_NAME; END $$"""


def prepare(scheme: Scheme) -> tuple[str, ...]:
    """What has to be defined before the first table."""
    return (_REFUSE_FUNCTION,) if scheme == Scheme.POSTGRES else ()


def definition(template: str, scheme: Scheme) -> str:
    """A definition with the words in braces, as this engine writes it."""
    return template.format_map(_WORDS[scheme.value])


def insert_only(table: str, scheme: Scheme) -> tuple[str, ...]:
    """Triggers by which the database refuses to change or to delete a row of `table`."""
    if scheme == Scheme.POSTGRES:
        when = "BEFORE UPDATE OR DELETE OR TRUNCATE"
        return (f"CREATE TRIGGER {table}_insert_only {when} ON {table} EXECUTE FUNCTION refuse_change()",)
    return tuple(
        f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
        f"BEGIN SELECT RAISE(ABORT, '{table} is insert-only'); END"
        for verb in ("UPDATE", "DELETE")
    )
