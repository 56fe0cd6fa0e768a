"""Each outside system once: the database, the upstream index, Matrix, the clock."""
