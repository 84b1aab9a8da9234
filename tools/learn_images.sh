#!/bin/bash
# What does an image encoder learn without labels? On 5,000 simulated galaxies a vision transformer by DINOv2
# (configs/images.cfg) and a ResNet-18 by MoCo v2 (configs/moco.cfg), each beside the same network untrained: redshift, mass
# and shape of held-out galaxies by nearest neighbours in frozen features, beside magnitudes and principal components of the
# pixels.
# usage: tools/learn_images.sh [--run DIR]   (run-images)
# The same command again goes on where it was.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/learning.sh
source "$tools/learning.sh"
run=$(run_folder "${BASH_SOURCE[0]}" run-images "$@") || exit $(($? == 1 ? 0 : $?))
cd "$tools/.."
bash tools/setup.sh
bash tools/build.sh
config=configs/images.cfg
mkdir -p "$run"
build/bin/astroclip-simulate --config "$config" --threads "$(nproc)" --output "$run/survey"
run_stage ingest-images --config "$config" --input "$run/survey/images" --output "$run/images"
run_stage ingest-spectra --config "$config" --input "$run/survey/spectra" --output "$run/spectra"
run_stage match --config "$config" --images "$run/images" --spectra "$run/spectra" --output "$run/pairs"
# shellcheck disable=SC2034
learned=(--images "$run/images" --pairs "$run/pairs") stores=("${learned[@]}" --spectra "$run/spectra")
encoder "$run/dino" "$config"
encoder "$run/moco" configs/moco.cfg
encoder "$run/moco-untrained" configs/moco.cfg --epochs 1 --steps 1 --learning-rate 0
compare "$run/evaluation" "$config" "$run/survey/truth.fits" "$run/dino" "$run/dino-embeddings" \
    "moco=$run/moco-embeddings,moco-untrained=$run/moco-untrained-embeddings"
