# shellcheck shell=bash
# Encoders for tools/learn_*.sh and what they know: one rank, all threads; from the root of the checkout.
stores=() # of the galaxies: --images STORE, and --pairs STORE if there are any
run_stage() { OMP_NUM_THREADS=$(nproc) build/bin/astroclip-"$1" "${@:2}" --threads "$(nproc)"; }
embed() { run_stage embed "${stores[@]}" --model "$1" --output "$1-embeddings"; } # ENCODER
encoder() { # ENCODER CONFIG MORE...: pretrains into the folder ENCODER and embeds with it
    run_stage pretrain-image --config "$2" "${stores[@]}" --output "$1" "${@:3}"
    embed "$1"
}
compare() { # RUN FOLDER NAME...: R² of what the embeddings of FOLDER/NAME know of held-out galaxies, beside the run's aligned ones
    local run=$1 folder=$2 name rows=()
    for name in "${@:3}"; do rows+=("$name=$folder/$name-embeddings"); done
    run_stage evaluate --config "$run/config.cfg" "${stores[@]}" --spectra "$run/spectra" \
        --embeddings "$run/embeddings" --model "$run/aligned" --compare "$(IFS=,; echo "${rows[*]}")" \
        --labels "$run/survey/truth.fits" --label-columns LOG_MSTAR,SHAPE_R,SERSIC,AXIS_RATIO \
        --few-shot-epochs 0 --flows 0 --label-fractions none --output "$folder/evaluation"
    /usr/bin/python3 - "$folder/evaluation/evaluation.json" <<'END'
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
}
