#!/bin/bash
# The published table on 5,000 simulated galaxies: a run of tools/learn_alignment.sh, its encoders before alignment, MoCo v2 with
# the views of Stein et al. and with those of configs/moco.cfg, and networks trained on labels until their validation loss no
# longer falls, in one evaluation (DIR/beside/table).
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
run_stage evaluate --config "$run/config.cfg" "${stores[@]}" --labels "$run/survey/truth.fits" --embeddings "$run/embeddings" \
    --model "$run/aligned" --supervised "$(join "${supervised[@]}")" --photometry-epochs 2000 --photometry-patience 20 \
    --output "$others/table" --compare \
    "$(join "AstroDINO=$others/before-embeddings" "SpecFormer=$others/specformer-embeddings" "Stein=$others/stein-embeddings" \
        "MoCo=$others/moco-embeddings")"
/usr/bin/python3 - "$others/table/evaluation.json" "AstroCLIP=$run/aligned" "image encoder=$run/image-encoder" \
    "spectrum encoder=$run/spectrum-encoder" "Stein et al.=$others/stein" "MoCo=$others/moco" <<'END'
import json, sys
figures = lambda one, what, key: (one or {}).get(what) and one[what] and one[what].get(key)
print(f"{'':11}{'':34}{'':12}{'redshift':>24}{'properties':>24}   published    epochs, the best of them")
for row in json.load(open(sys.argv[1]))["table"]:
    cells, epochs = [], []
    for what in ("redshift", "properties"):
        r2, low, high = (figures(row["ours"], what, key) for key in ("r2", "r2_low", "r2_high"))
        cells.append(f"{r2:.3f} [{low:.3f}, {high:.3f}]" if r2 is not None else "-")
        trained = figures(row["ours"], what, "epochs")
        epochs += [f"{trained['trained']:.0f}, {trained['best']:.0f}"] if trained else []
    known = row["published"] or {}
    published = f"{known.get('redshift') or '-'} {known.get('properties') or '-'}"
    print(f"{row['source']:11}{row['model']:34}{row['type']:12}{cells[0]:>24}{cells[1]:>24}   {published:13}{'; '.join(epochs)}")
print("learned without labels, epochs and the one of least validation loss:")
for one in sys.argv[2:]:
    name, folder = one.split("=")
    lines = [json.loads(line) for line in open(f"{folder}/metrics.jsonl")]
    losses = {line["epoch"] + 1: line[key] for line in lines for key in ("val_loss", "val_contrast") if key in line}
    print(f"    {name:20}{lines[-1]['epoch'] + 1:4}   {min(losses, key=losses.get) if losses else 'no validation loss'}")
END
