#!/bin/sh
# Writes .env for Docker Compose: a copy of .env.example with a fresh secret wherever one is needed.
set -eu
cd "$(dirname "$0")/.."
if [ -e .env ]; then
  echo "error: .env is there already; its secrets belong to the data that was made with them" >&2
  exit 1
fi
random() { od -An -v -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
trap 'rm -f .env.new' EXIT
{
  cat .env.example
  echo
  echo "# --- made by deploy/make-env.sh"
  for name in JOBMATCH_DB_PASSWORD JOBMATCH_DB_MLFLOW_PASSWORD JOBMATCH_DB_GATEWAY_PASSWORD \
    JOBMATCH_MLFLOW_SECRET_KEY JOBMATCH_GRAFANA_PASSWORD MLFLOW_TRACKING_PASSWORD \
    GATEWAY_ADMIN_PASSWORD GATEWAY_METRICS_TOKEN; do
    echo "$name=$(random 16)"
  done
  echo "GATEWAY_JWT_KEYS=key1:$(random 32)"
} > .env.new
mv .env.new .env
echo ".env is written: GATEWAY_ADMIN_PASSWORD and MLFLOW_TRACKING_PASSWORD in it log you in as admin"
