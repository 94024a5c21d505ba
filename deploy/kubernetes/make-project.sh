#!/usr/bin/env bash
# MLflow's Kubernetes backend wants a project with docker_env, and a project may declare one
# environment only. This makes FOLDER such a project: the entry points of MLproject, run in IMAGE,
# which holds the code (see the Dockerfile).
#
#   deploy/kubernetes/make-project.sh FOLDER IMAGE
set -euo pipefail
if [[ $# -ne 2 ]]; then
  echo "error: usage: $0 FOLDER IMAGE" >&2
  exit 1
fi
folder=$1 image=$2
project=$(cd "$(dirname "$0")/../.." && pwd)
if [[ ! $image =~ ^[a-z0-9][A-Za-z0-9._/:@-]*$ ]]; then
  echo "error: $image is not the name of an image, such as registry.example.com/jobmatch:1" >&2
  exit 1
fi
if [[ -e $folder ]]; then
  echo "error: $folder is there already: choose a new folder" >&2
  exit 1
fi
mkdir -p "$folder/deploy"
sed "s|^conda_env: .*|docker_env: {image: \"$image\"}|" "$project/MLproject" > "$folder/MLproject"
cp -r "$project/deploy/kubernetes" "$folder/deploy/"
echo "change $folder/deploy/kubernetes/*, build $image (docs/scaling.md says how), then, in $folder:"
echo "mlflow run . -e train --backend kubernetes" \
  "--backend-config deploy/kubernetes/backend_config.json -P data_dir=/data"
