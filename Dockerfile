# The harness with the versions of constraints.txt. Results stay in the folder that is mounted at /work:
#
#   docker build -t peft-harness .
#   docker run --rm -v "$PWD:/work" peft-harness doctor
#   docker run --rm -v "$PWD:/work" --gpus all peft-harness -m peft=lora,ia3 lora.r=4,8,16
FROM python:3.11-slim-bookworm AS base
# git: records name the commit of the code that made them.
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
ENV PYTHONUTF8=1 PIP_NO_CACHE_DIR=1

FROM base
WORKDIR /opt/peft-harness
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY harness harness
COPY hydra_plugins hydra_plugins
COPY conf conf
COPY data data
RUN pip install --constraint constraints.txt .
WORKDIR /work
ENTRYPOINT ["peft-harness"]
CMD ["doctor"]
