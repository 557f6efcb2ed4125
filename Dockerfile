# One image for both roles: `gradtune api` and `gradtune worker`.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY worker worker
RUN python -m venv /opt/gradtune && /opt/gradtune/bin/pip install --no-cache-dir .

FROM python:3.13-slim
RUN useradd --create-home --uid 10001 gradtune
COPY --from=build /opt/gradtune /opt/gradtune
ENV PATH=/opt/gradtune/bin:$PATH PYTHONUNBUFFERED=1 GRADTUNE_PORT=8000
USER 10001
WORKDIR /home/gradtune
EXPOSE 8000
# of the default role; a worker's container brings its own check, see docker-compose.yml
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"GRADTUNE_PORT\"]}/healthz', timeout=2)"]
CMD ["gradtune", "api", "--host", "0.0.0.0"]
