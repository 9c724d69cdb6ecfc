# The API and the keeper: everything that the service needs, and no torch.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE} AS dependencies
WORKDIR /build
COPY pyproject.toml docker/requirements.py docker/constraints.txt ./
# The environment has no pip of its own: what runs needs no installer.
RUN python -m venv --without-pip /opt/venv \
 && python requirements.py service >requirements.txt \
 && pip --python /opt/venv/bin/python install --no-cache-dir -r requirements.txt -c constraints.txt

FROM dependencies AS package
COPY . .
# Readable whatever the file modes of the checkout are.
RUN pip install --no-cache-dir --no-deps --target /opt/app . && chmod -R a+rX /opt/app

FROM ${PYTHON_IMAGE}
# A new named volume takes its owner from the folder that it covers.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data/home sdfsrn \
 && install -d -o sdfsrn -g sdfsrn /data /data/home /data/tmp
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=package /opt/app /opt/app
# Uploads are spooled to TMPDIR: the volume, not the memory behind /tmp.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data/home \
    TMPDIR=/data/tmp \
    SDFSRN_DATA=/data \
    SDFSRN_HOST=0.0.0.0
WORKDIR /data
USER 10001:10001
EXPOSE 8000
CMD ["python", "-m", "service.serve"]
