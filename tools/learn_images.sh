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
compare=()
for name in dino dino-untrained moco moco-untrained; do compare+=("$name=$by/$name-embeddings"); done
run_stage evaluate --config "$run/config.cfg" "${stores[@]}" --spectra "$run/spectra" \
    --embeddings "$run/embeddings" --model "$run/aligned" --compare "$(IFS=,; echo "${compare[*]}")" \
    --labels "$run/survey/truth.fits" --label-columns LOG_MSTAR,SHAPE_R,SERSIC,AXIS_RATIO \
    --few-shot-epochs 0 --flows 0 --label-fractions none --output "$by/evaluation"
/usr/bin/python3 - "$by/evaluation/evaluation.json" <<'END'
import json, sys
scores = json.load(open(sys.argv[1]))
tables = {"redshift": scores["photo_z"], **scores["properties"]}
rows = sorted({name for table in tables.values() for name in table})
print(f"{'R2 from':24}" + "".join(f"{name:>26}" for name in tables))
for row in rows:
    cells = [table.get(row, {}) for table in tables.values()]
    print(f"{row:24}" + "".join(f"{c['r2']:10.3f} [{c['r2_low']:.3f}, {c['r2_high']:.3f}]" if "r2_low" in c else
                                f"{c['r2']:26.3f}" if "r2" in c else f"{'':26}" for c in cells))
END
