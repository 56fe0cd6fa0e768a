"""`python -m index_frontend` is `matrix-pypi-index`."""

from index_frontend.cli import main

if __name__ == "__main__":
    main(prog_name="matrix-pypi-index")
