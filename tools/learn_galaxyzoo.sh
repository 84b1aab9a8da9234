#!/bin/bash
# What does an encoder learn from real pictures without labels? Galaxy Zoo thumbnails: MoCo on a ResNet-18, then the share of
# right classes among the nearest neighbours in its features, beside the untrained network and beside principal components of
# the pixels.
# usage: tools/learn_galaxyzoo.sh LABELS.csv THUMBNAILS [RUN]
# The same command again goes on where it was.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '5s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 64; }
labels=$(realpath "$1") thumbnails=$(realpath "$2") run=$(realpath -m "${3:-run-galaxyzoo}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/learning.sh
config=configs/galaxyzoo.cfg
bash tools/setup.sh
bash tools/build.sh
mkdir -p "$run"

/usr/bin/python3 tools/galaxy_zoo.py list "$labels" "$thumbnails" "$run/list.csv"
run_stage ingest-images --config "$config" --input "$run/list.csv" --output "$run/images"
# shellcheck disable=SC2034
learned=(--images "$run/images") stores=(--images "$run/images")
encoder "$run/untrained" "$config" --steps 1 --learning-rate 0
encoder "$run/encoder" "$config"
/usr/bin/python3 tools/galaxy_zoo.py classify "$labels" "$run/encoder-embeddings" "$run/untrained-embeddings" \
    --pixels "$run/images"
