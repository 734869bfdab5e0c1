# The image of the action: Python, ptebot and what an export on a processor needs.
#
# GitHub's runner builds it from the action's folder and gives no build arguments, so the defaults below have to
# work as they stand. It also demands root: there is no USER line, and ptebot itself hands the exporter to the
# account ptebot-export. `make image` builds it here, also where
# nothing can be pulled.

# debian:bookworm-slim of 18 September 2026: the index of all its platforms.
ARG BASE_IMAGE=debian:bookworm-slim@sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251


FROM ${BASE_IMAGE} AS python
# Versions are those of Debian's stable release: it changes them for security only.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates python3 \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/cache/ldconfig/* /var/log/*


FROM python AS dependencies
# Versions as above; the lists go with this stage, of which nothing but /opt/ptebot is kept.
# hadolint ignore=DL3008,DL3009
RUN apt-get update && apt-get install --yes --no-install-recommends python3-venv
# On PyPI, torch for x86 comes with CUDA; the builds for processors alone have an index of their own.
ARG PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
ARG PIP_FIND_LINKS=
ARG PIP_NO_INDEX=false
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY pyproject.toml constraints.txt ./
# The installer stays outside of what is installed.
# hadolint ignore=DL3013
RUN python3 -m venv /build/installer \
    && /build/installer/bin/pip install --no-compile --constraint constraints.txt pip \
    && python3 -m venv --without-pip /opt/ptebot \
    && echo /opt/ptebot/app > "$(echo /opt/ptebot/lib/python3*/site-packages)/ptebot.pth" \
    && python3 -c 'import tomllib; \
        project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
        extras = project["optional-dependencies"]; \
        print(*project["dependencies"], *extras["openvino"], *extras["kubernetes"], *extras["otel"], sep="\n")' \
        > requirements.txt
# Dependencies alone: a change of ptebot's own code leaves this layer, nearly the whole image, as it is. What no
# export opens goes at once: C++ headers, test programs (but for the one that torch looks for as it starts), tests of
# packages, and kernels for CUDA.
WORKDIR /opt/ptebot/lib/python3.11/site-packages
RUN /build/installer/bin/pip --python /opt/ptebot/bin/python install --no-compile --requirement /build/requirements.txt \
        --constraint /build/constraints.txt --build-constraint /build/constraints.txt \
    && find torch/bin \( -type f -o -type l \) ! -name torch_shm_manager -delete \
    && rm -rf torch/test torch/include torch/share openvino/include torchao/_C_cutlass_90a*.so torchao/_C_mxfp8*.so \
    && find networkx numpy pandas scipy sklearn sympy -type d -name tests -prune -exec rm -rf {} + \
    && find /opt/ptebot ! -type l ! -perm -go=r -exec chmod go=rX {} +


FROM dependencies AS code
WORKDIR /build
COPY . .
RUN /build/installer/bin/pip --python /opt/ptebot/bin/python install --no-compile --target /opt/ptebot/app \
        --no-deps --no-index --no-build-isolation . \
    && chmod -R u=rwX,go=rX /opt/ptebot/app


FROM python
# Nobody else has this account; ptebot gives it the exporter and nothing else.
RUN groupadd --gid 10001 ptebot-export \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin ptebot-export \
    && rm -rf /var/log/* /etc/*-
COPY --from=dependencies /opt/ptebot /opt/ptebot
COPY --from=code /opt/ptebot/app /opt/ptebot/app
COPY entrypoint.py /opt/ptebot/entrypoint.py
ENV PATH=/opt/ptebot/app/bin:/opt/ptebot/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8
# Asking every backend once proves that the image can export, and leaves the bytecode of what is imported for it, and
# of nothing else: the exporter's account cannot write it, and would compile for seconds at each start.
RUN HOME=/tmp/home python -P -m exporter.available && ptebot doctor --quick && rm -rf /tmp/*
# A job is busy for minutes with nothing to say; the check asks for versions and imports no library.
HEALTHCHECK --interval=5m --timeout=30s CMD ["ptebot", "doctor", "--quick"]
ARG VERSION=0
ARG REVISION=
LABEL org.opencontainers.image.title="ptebot" \
    org.opencontainers.image.description="A model repository goes in, a pull request with proven ExecuTorch .pte files comes out." \
    org.opencontainers.image.source="https://github.com/ptebot/ptebot" \
    org.opencontainers.image.documentation="https://github.com/ptebot/ptebot/blob/main/docs/action/prebuilt-image.md" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"
# -I: nothing that a workflow or a repository says (PYTHONPATH, a module in the working directory) is imported.
ENTRYPOINT ["/opt/ptebot/bin/python", "-I", "-u", "/opt/ptebot/entrypoint.py"]
