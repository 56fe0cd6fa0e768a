"""Matrix-PyPI: the HTTP frontend. It handles bytes; statements are the business of `matrix_pypi_bot`."""
