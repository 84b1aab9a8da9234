#!/bin/bash
# The whole pipeline on a simulated survey: set-up, build, simulation, all stages on this machine, report.
# usage: tools/demo.sh [--run DIR] [--config FILE]
#   --run     where everything goes (run-NAME of configs/NAME.cfg: run-demo)
#   --config  what to run (configs/demo.cfg; configs/demo-workshop.cfg is the earlier variant)
# The same command again goes on where it was; what is complete stays.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."
run='' config=$PWD/configs/demo.cfg

absolute() { case $1 in /*) echo "$1" ;; *) echo "$here/$1" ;; esac; }
usage() { echo "usage: tools/demo.sh [--run DIR] [--config FILE]" >&2; exit "$1"; }
while [ $# -gt 0 ]; do
    case $1 in
        --run | --config) [ $# -ge 2 ] || usage 64 ;;&
        --run) run=$(absolute "$2"); shift 2 ;;
        --config) config=$(absolute "$2"); shift 2 ;;
        --run=*) run=$(absolute "${1#*=}"); shift ;;
        --config=*) config=$(absolute "${1#*=}"); shift ;;
        -h | --help) usage 0 ;;
        *) echo "demo: unknown argument '$1'" >&2; usage 64 ;;
    esac
done

run=${run:-$PWD/run-$(basename "$config" .cfg)}

times=()
part() { # NAME COMMAND...: runs it, notes its time
    local name=$1 start=$SECONDS
    shift
    echo "== demo: $name" >&2
    "$@" || { local code=$?; echo "demo: $name ended with $code; the same command goes on from here" >&2; exit "$code"; }
    times+=("$(printf '%-10s %4d s' "$name" $((SECONDS - start)))")
}

simulate() { build/bin/astroclip-simulate --config "$config" --threads "$(nproc)" --output "$run/survey"; }

stages() {
    local images=$run/survey/images
    [ ! -e "$images/cutouts.csv" ] || images=$images/cutouts.csv   # FITS cutouts are named by a list
    slurm/submit --local --config "$config" --run "$run" \
        --set "ingest-images.input=$images" --set "ingest-spectra.input=$run/survey/spectra" \
        --set "evaluate.labels=$run/survey/truth.fits" --set "evaluate.morphology=$run/survey/votes.csv"
}

views() {
    [ ! -e "$run/views.safetensors" ] || return 0
    build/bin/astroclip-show-images --images "$run/images" --model "$run/image-encoder" --output "$run/views.safetensors" >&2
}

probe() {
    [ ! -e "$run/probe.json" ] || return 0
    build/bin/astroclip-probe-spectra --threads "$(nproc)" --model "$run/spectrum-encoder" --spectra "$run/spectra" \
        --pairs "$run/pairs" --trust --output "$run/probe.json" >&2
}

report() { /usr/bin/python3 tools/report "$run"; }

part set-up bash tools/setup.sh
part build bash tools/build.sh
part simulate simulate
part stages stages
part views views
part probe probe
part report report

printf '\ndemo: time of each part\n' && printf '  %s\n' "${times[@]}"
slurm/status "$run" --json | /usr/bin/python3 -c '
import json, sys
for row in json.load(sys.stdin)["stages"]:
    print("    %-18s %6.1f s" % (row["stage"], row["seconds"]))'
/usr/bin/python3 - "$run/report/report.json" <<'END'
import json, sys
found = json.load(open(sys.argv[1]))
print("demo: what it has learned, on held-out galaxies")
for mode, name in (("is", "image -> spectrum"), ("si", "spectrum -> image")):
    one = found["retrieval"][mode]
    print("    %-18s recall@10 %.3f  (chance %.3f, photometry %.3f)" % (name, one["recall_at_10"], one["chance"], one["photometry"]))
for name, one in found["photo_z"].items():
    print("    %-18s R2 of redshift %.3f" % (name, one["r2"]))
END
echo "demo: the report is $run/report/report.html (figures: $run/report/report.json)"
