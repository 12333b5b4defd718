# A server of predictions: docker build -t mora-lite . && docker run --rm -p 127.0.0.1:8765:8765 mora-lite
# It prints the address with its token, or takes the token from MORA_LITE_TOKEN. docs/serve.md says more.
FROM python:3.12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev
COPY . /source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels /source

FROM python:3.12-slim
# RDKit draws with these two.
RUN apt-get update && apt-get install -y --no-install-recommends libxrender1 libxext6 && rm -rf /var/lib/apt/lists/*
COPY --from=build /wheels /wheels
COPY .constraints.txt /
RUN pip install --no-cache-dir --constraint /.constraints.txt "$(echo /wheels/mora_lite-*.whl)[serve,xlsx]"
RUN useradd --create-home chemist
USER chemist
WORKDIR /home/chemist
EXPOSE 8765
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "-c", \
    "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8765, timeout=5); c.request('GET', '/health'); exit(c.getresponse().status != 200)"]
ENTRYPOINT ["mora-lite", "serve", "--host", "0.0.0.0", "--port", "8765", "--no-browser"]
