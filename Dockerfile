# One image for all that is wdsearch's in docker-compose.yml: workers, scheduler, MLflow's server, Optuna's dashboard.
FROM python:3.11-slim-bookworm AS base
ENV PATH=/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1

FROM base AS dependencies
ARG TORCH_INDEX
WORKDIR /build
RUN python3 -m venv /venv
COPY constraints.txt pyproject.toml ./
# torch without CUDA, far smaller, is not on PyPI; an empty TORCH_INDEX takes what is
RUN [ -z "$TORCH_INDEX" ] || pip install --no-deps -c constraints.txt --index-url "$TORCH_INDEX" torch
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
      extras = [project['optional-dependencies'][name] for name in ('postgresql', 'dashboard')]; \
      print(*project['dependencies'], *sum(extras, []), 'mlflow[auth]', sep='\n')" >needed.txt \
    && pip install -c constraints.txt -r needed.txt
# what only those who develop these packages need
RUN cd /venv/lib/python3*/site-packages && rm -rf torch/test torch/include */tests */*/tests

FROM dependencies AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY wdsearch wdsearch
RUN pip wheel --no-deps --wheel-dir /wheel .

FROM base
RUN useradd --uid 1000 --create-home wdsearch \
    && install -d -o wdsearch -g wdsearch /app /var/lib/wdsearch /var/lib/mlflow
COPY --from=dependencies /venv /venv
COPY --from=wheel /wheel /wheel
RUN pip install --no-deps --no-index /wheel/*.whl
USER wdsearch
WORKDIR /app
ENV WDSEARCH_HOME=/var/lib/wdsearch PYTHONUNBUFFERED=1
ENTRYPOINT ["wdsearch"]
