# One image, two programs: `matrix-pypi` (the bot) and `matrix-pypi-index` (the frontend).
FROM python:3.12-slim
WORKDIR /src
COPY requirements-run.lock pyproject.toml README.md LICENSE ./
# Exactly what the tests ran with, by hash.
RUN python -m venv /app && /app/bin/pip install --no-cache-dir --no-deps --require-hashes --requirement requirements-run.lock
COPY matrix_pypi_bot matrix_pypi_bot
COPY index_frontend index_frontend
RUN /app/bin/pip install --no-cache-dir --no-deps . \
 && useradd --uid 1337 --home-dir /data --shell /usr/sbin/nologin matrix-pypi \
 && mkdir -p /data /config && chown matrix-pypi /data /config
COPY docker/first-start.sh /usr/local/bin/first-start
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1
USER matrix-pypi
VOLUME ["/data", "/config"]
WORKDIR /data
CMD ["matrix-pypi", "--help"]
