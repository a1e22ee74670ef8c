# The API with the viewer; `docker compose run --rm api doctor` and the other commands work too.
FROM python:3.13.9-slim-trixie AS build
WORKDIR /source
COPY requirements.txt requirements-dev.txt ./
# Everything by its hash, and nothing that would have to be compiled. The tools that build stay in this stage.
RUN python -m venv /tools \
    && /tools/bin/python -m pip install --no-cache-dir --only-binary=:all: --require-hashes -r requirements-dev.txt \
    && python -m venv --without-pip /app \
    && /tools/bin/python -m pip --python /app/bin/python install --no-cache-dir --only-binary=:all: \
        --require-hashes -r requirements.txt
COPY . .
RUN /tools/bin/python -m build --wheel --no-isolation --outdir /dist . \
    && /tools/bin/python -m pip --python /app/bin/python install --no-cache-dir --no-deps /dist/*.whl

FROM python:3.13.9-slim-trixie
# A volume that is mounted there for the first time takes over this owner: the user below can write the spool.
RUN useradd --uid 1000 --user-group --no-create-home --shell /usr/sbin/nologin audit \
    && install -d -o audit -g audit -m 0700 /var/lib/audit-pipeline \
    && python -m pip uninstall --quiet --yes --root-user-action=ignore pip
COPY --from=build /app /app
ENV PATH=/app/bin:$PATH PYTHONUNBUFFERED=1 AUDIT_SPOOL=/var/lib/audit-pipeline/spool.db
USER 1000:1000
WORKDIR /var/lib/audit-pipeline
VOLUME /var/lib/audit-pipeline
EXPOSE 8000
# Any answer means that it is alive, also that the host name is not one of AUDIT_ALLOWED_HOSTS.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/healthz'); raise SystemExit(c.getresponse().status >= 500)"]
ENTRYPOINT ["audit-pipeline"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
