"""The rules: statements, decisions, pages and logs. Pure: no I/O, no clock, no randomness, no framework."""
