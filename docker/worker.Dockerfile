# The worker: the library with torch. One image serves every queue; the command says which.
#
#   TORCH_BUILD       cpu (default) or cuda: what the image is to hold. A cuda image is refused when pip found no CUDA wheel.
#   TORCH_INDEX_URL   an additional package index for torch; empty means the default one. On Linux the default index has
#                     the CUDA wheel (several GB; it runs without a GPU too). The CPU wheel has an index of its own, which
#                     the install page of PyTorch names for "Pip, Linux, CPU": with it the image is far smaller.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE} AS dependencies
ARG TORCH_BUILD=cpu
ARG TORCH_INDEX_URL=
WORKDIR /build
COPY docker/constraints.txt ./
# The environment has no pip of its own: what runs needs no installer. torch stands alone, in a layer that seldom changes;
# its own tests and C++ headers, of no use here, would be a fifth of it.
RUN python -m venv --without-pip /opt/venv \
 && pip --python /opt/venv/bin/python install --no-cache-dir ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} torch -c constraints.txt \
 && /opt/venv/bin/python -c "import sys, torch; print('torch', torch.__version__); '$TORCH_BUILD' == 'cuda' and not torch.version.cuda and sys.exit('TORCH_BUILD=cuda, but pip found a torch without CUDA: set TORCH_INDEX_URL')" \
 && rm -rf /opt/venv/lib/python3.11/site-packages/torch/test /opt/venv/lib/python3.11/site-packages/torch/include
COPY pyproject.toml docker/requirements.py ./
RUN python requirements.py service worker >requirements.txt \
 && pip --python /opt/venv/bin/python install --no-cache-dir -r requirements.txt -c constraints.txt

FROM dependencies AS package
COPY . .
# Readable whatever the file modes of the checkout are.
RUN pip install --no-cache-dir --no-deps --target /opt/app . && chmod -R a+rX /opt/app

FROM ${PYTHON_IMAGE}
# The same user as the API's: they share a volume, and a new named volume takes its owner from the folder that it covers.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data/home sdfsrn \
 && install -d -o sdfsrn -g sdfsrn /data /data/home /data/tmp
COPY --from=dependencies /opt/venv /opt/venv
COPY --from=package /opt/app /opt/app
# There is no compiler, and /tmp admits no executables, so torch is told not to try.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/app \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/data/home \
    TMPDIR=/data/tmp \
    MPLCONFIGDIR=/data/home/matplotlib \
    TORCH_COMPILE_DISABLE=1 \
    SDFSRN_DATA=/data
WORKDIR /data
USER 10001:10001
CMD ["python", "-m", "worker", "--queue", "reconstruction"]
