# The server without torch:  docker build --target cpu --tag zorro-av:cpu .
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS python
ENV PATH=/opt/zorro/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/zorro

# Our own packages as one wheel, so that no source tree is left in the image.
FROM python AS wheel
WORKDIR /src
COPY . .
RUN pip wheel --quiet --no-deps --wheel-dir /wheel .

FROM python AS cpu
# What it stands on changes seldom, the code often: two layers.
COPY pyproject.toml constraints.txt /tmp/
RUN python -c 'import tomllib; p = tomllib.load(open("/tmp/pyproject.toml", "rb"))["project"]; \
print(*p["dependencies"], *p["optional-dependencies"]["cpu"], sep="\n")' > /tmp/requirements.txt \
    && pip install --quiet --constraint /tmp/constraints.txt --requirement /tmp/requirements.txt \
    && rm /tmp/requirements.txt /tmp/constraints.txt /tmp/pyproject.toml
COPY --from=wheel /wheel /wheel
RUN pip install --quiet --no-deps /wheel/*.whl && rm -r /wheel
COPY bundles /bundles

ENV ZORRO_HOST=0.0.0.0 \
    ZORRO_PORT=8000 \
    ZORRO_BUNDLES=/bundles \
    ORT_DISABLE_TELEMETRY=1
# A number, so that an orchestrator can see that it is not root. It owns nothing and writes only below /tmp.
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['ZORRO_PORT'] + '/readyz', timeout=4)"]
CMD ["zorro", "serve"]
