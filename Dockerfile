# One image for MLflow's server, the served model and the gateway. Trainings run in the gateway's
# container, so a thin image for it would hold the same libraries after all.

FROM python:3.11-slim AS libraries
COPY requirements.txt .
# what stands below the last heading serves tests and checks only; pip compiles the bytecode
RUN python -m venv /opt/jobmatch \
 && sed '/^# tests and checks/,$d' requirements.txt > wanted.txt \
 && grep -q '^mlflow==' wanted.txt \
 && /opt/jobmatch/bin/pip install --no-cache-dir --disable-pip-version-check -r wanted.txt \
 && /opt/jobmatch/bin/pip uninstall --yes --quiet pip setuptools

FROM python:3.11-slim
RUN groupadd --gid 10001 jobmatch \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin jobmatch \
 && install -d -o jobmatch -g jobmatch -m 700 /var/lib/jobmatch/gateway /var/lib/jobmatch/model \
      /var/lib/jobmatch/artifacts
COPY --from=libraries /opt/jobmatch /opt/jobmatch
WORKDIR /app
COPY MLproject conda.yaml requirements.txt ./
COPY data/sample data/sample
COPY jobmatch_pyfunc jobmatch_pyfunc
COPY steps steps
COPY serving serving
COPY gateway gateway
COPY deploy/mlflow_auth.ini deploy/healthy.py deploy/
# the file system is read-only when it runs: bytecode that is not here would be made at every start
RUN /opt/jobmatch/bin/python -m compileall -q jobmatch_pyfunc steps serving gateway
ENV PATH=/opt/jobmatch/bin:$PATH PYTHONUNBUFFERED=1 HOME=/tmp MPLCONFIGDIR=/tmp/matplotlib \
    GIT_PYTHON_REFRESH=quiet MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=true
USER 10001:10001
