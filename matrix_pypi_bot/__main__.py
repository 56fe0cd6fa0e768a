"""`python -m matrix_pypi_bot` is `matrix-pypi`."""

from matrix_pypi_bot.cli import main

if __name__ == "__main__":
    main(prog_name="matrix-pypi")
