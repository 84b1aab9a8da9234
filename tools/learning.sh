# shellcheck shell=bash
# Encoders for tools/learn_galaxyzoo.sh and tools/learn_images.sh: one rank, all threads; from the root of the checkout.
stores=() # of the galaxies: --images STORE, and --pairs STORE if there are any
run_stage() { OMP_NUM_THREADS=$(nproc) build/bin/astroclip-"$1" "${@:2}" --threads "$(nproc)"; }
embed() { run_stage embed "${stores[@]}" --model "$1" --output "$1-embeddings"; } # ENCODER
encoder() { # ENCODER CONFIG MORE...: pretrains into the folder ENCODER and embeds with it
    run_stage pretrain-image --config "$2" "${stores[@]}" --output "$1" "${@:3}"
    embed "$1"
}
