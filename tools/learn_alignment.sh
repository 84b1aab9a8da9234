#!/bin/bash
# What does alignment bring? 5,000 simulated galaxies through all stages on this machine: recall of the partner among the
# held-out thousand beside matching by photometry, and redshift and mass from aligned images beside the unaligned encoder's.
# usage: tools/learn_alignment.sh [--run DIR]   (run-alignment)
# The same command again goes on where it was.
set -euo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=tools/learning.sh
source "$tools/learning.sh"
run=$(run_folder "${BASH_SOURCE[0]}" run-alignment "$@") || exit $(($? == 1 ? 0 : $?))
cd "$tools/.."
bash tools/demo.sh --config configs/alignment.cfg --run "$run"
# shellcheck disable=SC2034
stores=(--images "$run/images" --spectra "$run/spectra" --pairs "$run/pairs")
mkdir -p "$run/beside"
ln -sfn "$run/image-encoder" "$run/beside/before"
embed "$run/beside/before"
compare "$run/beside/evaluation" "$run/config.cfg" "$run/survey/truth.fits" "$run/aligned" "$run/embeddings" \
    before="$run/beside/before-embeddings"
