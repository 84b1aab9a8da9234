#!/bin/bash
# The published table on 5,000 simulated galaxies: a run of tools/learn_alignment.sh, its encoders before alignment, MoCo v2 with
# the views of Stein et al. and with those of configs/moco.cfg, and networks trained on labels until their validation loss no
# longer falls, in one evaluation (DIR/beside/table) and a report of it (DIR/report/report-table.html).
# usage: tools/learn_table.sh [--run DIR]   (run-alignment)
# The same command again goes on where it was.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/learning.sh
source "$tools/learning.sh"
run=$(run_folder "${BASH_SOURCE[0]}" run-alignment "$@") || exit $(($? == 1 ? 0 : $?))
cd "$tools/.."
bash tools/learn_alignment.sh --run "$run"
others=$run/beside
learned=(--images "$run/images" --pairs "$run/pairs") stores=("${learned[@]}" --spectra "$run/spectra")
# Dust over its whole range, other sizes, blur, as published; 2 of 32 pixels are about what the published shifts, 7, are of 96.
encoder "$others/stein" configs/moco.cfg --augmentations grrrssgbjcgnrg --uniform-draws true --jitter 2
encoder "$others/moco" configs/moco.cfg
ln -sfn "$run/spectrum-encoder" "$others/specformer"
embed "$others/specformer"

supervised=()
train() { # NAME MODALITY: one network for the redshift, one for all properties
    local what targets
    for what in redshift properties; do
        targets=redshift
        [ "$what" = redshift ] || targets=LOG_MSTAR,Z_MW,TAGE_MW,LOG_SSFR
        run_stage train-supervised --config "$run/config.cfg" "${stores[@]}" --labels "$run/survey/truth.fits" --modality "$2" \
            --targets "$targets" --patience 5 --output "$others/$1-$what"
        supervised+=("$1=$others/$1-$what")
    done
}
train ResNet18 image
train Conv+Att spectrum

join() { local IFS=,; echo "$*"; }
run_stage evaluate --config "$run/config.cfg" "${stores[@]}" --labels "$run/survey/truth.fits" \
    --morphology "$run/survey/votes.csv" --embeddings "$run/embeddings" \
    --model "$run/aligned" --supervised "$(join "${supervised[@]}")" --photometry-epochs 2000 --photometry-patience 20 \
    --output "$others/table" --compare \
    "$(join "AstroDINO=$others/before-embeddings" "SpecFormer=$others/specformer-embeddings" "Stein=$others/stein-embeddings" \
        "MoCo=$others/moco-embeddings")" >/dev/null
cat "$others/table/table.txt"
echo "learned without labels: epochs, and the one of least validation loss"
/usr/bin/python3 - "AstroCLIP=$run/aligned" "image encoder=$run/image-encoder" "spectrum encoder=$run/spectrum-encoder" \
    "Stein et al.=$others/stein" "MoCo=$others/moco" <<'END'
import json, sys
for one in sys.argv[1:]:
    name, folder = one.split("=", 1)
    lines = [json.loads(line) for line in open(f"{folder}/metrics.jsonl")]
    losses = {line["epoch"] + 1: line[key] for line in lines for key in ("val_loss", "val_contrast") if key in line}
    print(f"    {name:20}{lines[-1]['epoch'] + 1:4}   {min(losses, key=losses.get) if losses else 'it has none'}")
END
tools/report "$run" --evaluation "$others/table"
