# shellcheck shell=bash
# For tools/learn_*.sh: encoders and what they know, by two ranks that share the cores; from the root of the checkout.
learned=() # what encoders learn from: --images STORE, and --pairs STORE if galaxies are held out
stores=()  # what is embedded and evaluated
[ "$(id -u)" != 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# The folder of --run DIR, else DEFAULT, absolute. Other words end the script with its usage, the line that begins so.
run_folder() { # SCRIPT DEFAULT WORDS...
    case $#:${3:-} in
        2:) realpath -m "$2" ;;
        4:--run) realpath -m "$4" ;;
        *) sed -n 's/^# usage/usage/p' "$1" >&2; [ "${3:-}" = --help ] && return 1; return 64 ;;
    esac
}
run_stage() { # STAGE OPTIONS
    local threads=$((($(nproc) + 1) / 2))
    OMP_NUM_THREADS=$threads OMPI_MCA_mpi_yield_when_idle=1 mpirun --oversubscribe --bind-to none -n 2 \
        "build/bin/astroclip-$1" "${@:2}" --threads "$threads"
}
embed() { run_stage embed "${stores[@]}" --model "$1" --output "$1-embeddings"; } # ENCODER
encoder() { # ENCODER CONFIG MORE...: pretrains into the folder ENCODER and embeds with it
    run_stage pretrain-image --config "$2" "${learned[@]}" --output "$1" "${@:3}"
    embed "$1"
}
# R² of what the embeddings of MODEL know of held-out galaxies, beside those of other models.
compare() { # OUTPUT CONFIG TRUTH MODEL EMBEDDINGS NAME=EMBEDDINGS,...
    run_stage evaluate --config "$2" "${stores[@]}" --labels "$3" --label-columns LOG_MSTAR,SHAPE_R,SERSIC,AXIS_RATIO \
        --model "$4" --embeddings "$5" --compare "$6" --morphology '' --few-shot-epochs 0 --flows 0 --label-fractions none --output "$1"
    /usr/bin/python3 - "$1/evaluation.json" <<'END'
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
