#!/bin/bash
# Does masked modelling learn spectra? 5,000 simulated ones, an encoder trained on four fifths of them, and a probe of the
# rest: hidden samples against the noiseless truth, and redshifts, which the encoder never saw.
# usage: tools/learn_spectra.sh [--run DIR] [--real STORE]
#   --real   a store of real spectra (astroclip-ingest-spectra), whose redshifts are asked of the same encoder
# The same command again goes on where it was. DIR/probe.json is what tools/report draws.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
run=$PWD/run-spectra real=''
absolute() { case $1 in /*) echo "$1" ;; *) echo "$here/$1" ;; esac; }
while [ $# -gt 0 ]; do
    case $1 in
        --run) run=$(absolute "${2:?}"); shift 2 ;;
        --real) real=$(absolute "${2:?}"); shift 2 ;;
        *) sed -n '4,5s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 64 ;;
    esac
done
source tools/learning.sh
config=configs/spectra.cfg
stage() { run_stage "$1" --config "$config" "${@:2}"; }

bash tools/setup.sh
bash tools/build.sh
build/bin/astroclip-simulate --config "$config" --threads "$(nproc)" --output "$run/survey"
stage ingest-spectra --input "$run/survey/spectra" --output "$run/spectra"
stage ingest-spectra --input "$run/survey/noiseless" --output "$run/noiseless"
stage pretrain-spectrum --spectra "$run/spectra" --output "$run/spectrum-encoder"
OMP_NUM_THREADS=$(nproc) build/bin/astroclip-probe-spectra --config "$config" --threads "$(nproc)" --model "$run/spectrum-encoder" \
    --spectra "$run/spectra" --noiseless "$run/noiseless" --real "$real" --output "$run/probe.json"
