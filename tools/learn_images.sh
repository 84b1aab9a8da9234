#!/bin/bash
# What does an image encoder learn without labels? On the simulated survey of a run of tools/learn_alignment.sh: the vision
# transformer that the run pretrained by DINOv2, and a ResNet-18 pretrained here by MoCo v2 (configs/moco.cfg), each beside the
# same network untrained; redshift, mass and shape of the held-out galaxies by nearest neighbours in frozen features, beside
# magnitudes and principal components of the pixels.
# usage: tools/learn_images.sh [RUN]
# The same command again goes on where it was.
set -euo pipefail
run=$(realpath -m "${1:-run-alignment}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
[ -e "$run/embeddings/manifest.json" ] || { echo "learn_images: $run has no embeddings; tools/learn_alignment.sh --run $run makes them" >&2; exit 66; }
source tools/learning.sh
stores=(--images "$run/images" --pairs "$run/pairs")
by=$run/images-by
mkdir -p "$by"
encoder "$by/moco" configs/moco.cfg
encoder "$by/moco-untrained" configs/moco.cfg --epochs 1 --steps 1 --learning-rate 0
encoder "$by/dino-untrained" "$run/config.cfg" --steps 1 --schedule-steps 1 --warmup-steps 0 --base-learning-rate 0
ln -sfn "$run/image-encoder" "$by/dino"
embed "$by/dino"
compare "$run" "$by" dino dino-untrained moco moco-untrained
