#!/bin/bash
# Installs what the build needs on Debian 12: packages by apt (as root or with sudo) and LibTorch from PyPI's torch wheel.
# What is there already is left alone, so a second call takes no time.
# usage: tools/setup.sh [--readers]
#   --readers   also the programs that tests open the catalogue with: STILTS, and LSDB in a Python of its own, which
#               tools/export_hats.py uses too; Chromium, with which they open the page of tools/serve_search.py; and
#               umap-learn, for maps by UMAP (--umap of tools/report and tools/encoder_page). What cannot be
#               installed is told, and its tests are skipped
#
#   ASTROCLIP_TORCH=DIR or CMAKE_PREFIX_PATH   use this LibTorch 2.x (a folder with include/ and lib/)
#   ASTROCLIP_CACHE=DIR                        where LibTorch goes (default ~/.cache/astroclip)
#   ASTROCLIP_CUDA=ON|OFF                      with its CUDA libraries (about 5 GB); default: if nvidia-smi works
#   ASTROCLIP_FAISS=ON|OFF                     with FAISS, for approximate search; default: if it can be installed
set -euo pipefail

torch_version=2.11.0
lsdb_version=0.11.1
cuda_packages=(nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)   # libtorch_cpu.so itself is linked with these
packages=(g++ cmake ninja-build ccache lld git pkg-config libopenmpi-dev openmpi-bin libhdf5-openmpi-dev
    libboost-program-options-dev libcfitsio-dev wcslib-dev libjpeg-dev libfmt-dev nlohmann-json3-dev libxxhash-dev libnanoflann-dev
    procps libgtest-dev python3-numpy python3-h5py python3-astropy python3-matplotlib python3-venv python3-pip shellcheck
    clang-format)
faiss_packages=(libfaiss-dev libopenblas-dev)   # the latter instead of the reference BLAS, with which an index takes long
if [ "$(id -u)" = 0 ] && ! command -v sbatch >/dev/null; then
    packages+=(slurm-wlm munge)   # tests try the workflow on a Slurm of virtual nodes, which root alone can make
fi

say() { echo "setup: $*" >&2; }

missing_packages() { # PACKAGES
    # shellcheck disable=SC2016  # the braces are dpkg-query's
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null | sed -n 's/^installed //p' |
        grep -vxFf - <(printf '%s\n' "$@")
}

install_packages() { # PACKAGES
    local -a missing as_root=()
    mapfile -t missing < <(missing_packages "$@")
    [ "${#missing[@]}" -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ]; then
        as_root=(sudo)
        if ! command -v sudo >/dev/null || ! { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
            say "these packages are missing, and installing them needs root or sudo:"
            say "  apt-get install ${missing[*]}"
            exit 1
        fi
    fi
    say "installing ${missing[*]}"
    "${as_root[@]}" apt-get update -q >&2
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
}

given_torch() { # a LibTorch that the user has named
    local folder suffix
    local -a folders
    IFS=':;' read -r -a folders <<<"${ASTROCLIP_TORCH:-}:${CMAKE_PREFIX_PATH:-}"
    for folder in "${folders[@]}"; do
        [ -n "$folder" ] || continue
        for suffix in '' /torch /libtorch; do
            if [ -e "$folder$suffix/include/ATen/ATen.h" ] && [ -e "$folder$suffix/lib/libtorch_cpu.so" ]; then
                return 0
            fi
        done
    done
    if [ -n "${ASTROCLIP_TORCH:-}" ]; then
        say "ASTROCLIP_TORCH=$ASTROCLIP_TORCH: no LibTorch there (include/ATen/ATen.h and lib/libtorch_cpu.so)"
        exit 1
    fi
    return 1
}

wants_cuda() {
    case ${ASTROCLIP_CUDA:-AUTO} in
        ON) true ;;
        OFF) false ;;
        *) command -v nvidia-smi >/dev/null && nvidia-smi >/dev/null 2>&1 ;;
    esac
}

has_torch() { # FOLDER
    [ -e "$1/torch/lib/libtorch_cpu.so" ] && { ! wants_cuda || [ -e "$1/torch/lib/libtorch_cuda.so" ]; }
}

# Of the wheels only what compiling and running C++ needs; without a GPU the CUDA kernels (0.5 GB) are left out.
unpack() { # WHEELS FOLDER
    local skip='^$'
    wants_cuda || skip='^torch/lib/libtorch_cuda'
    "$python" - "$1" "$2" "$skip" <<'PY'
import pathlib, re, sys, zipfile

wheels, folder, skip = sys.argv[1:]
wanted = re.compile(r"torch/(include|lib|share)/|torch/version\.py$|nvidia/.*/lib/")
for wheel in pathlib.Path(wheels).glob("*.whl"):
    with zipfile.ZipFile(wheel) as files:
        files.extractall(folder, [n for n in files.namelist() if wanted.match(n) and not re.match(skip, n)])
PY
}

fetch_torch() { # FOLDER
    local folder=$1 work
    local -a wanted=("torch==$torch_version")
    work=$(mktemp -d "$cache/.torch.XXXXXX")
    # shellcheck disable=SC2064  # this folder, not a later value of the name
    trap "rm -rf '$work'" EXIT
    if wants_cuda; then
        say "taking LibTorch $torch_version with its CUDA libraries into $folder"
    else
        say "taking LibTorch $torch_version into $folder"
        wanted+=("${cuda_packages[@]}" --no-deps)
    fi
    "$python" -m pip download -q --disable-pip-version-check --no-cache-dir --only-binary=:all: --python-version 3.11 \
        --dest "$work/wheels" "${wanted[@]}" >&2
    unpack "$work/wheels" "$work/unpacked"
    [ -e "$work/unpacked/torch/lib/libtorch_cpu.so" ] || { say "the torch wheel holds no libtorch_cpu.so"; exit 1; }
    rm -rf "$folder"
    mv -T "$work/unpacked" "$folder"
}

install_lsdb() {
    [ ! -e "$cache/hats/lsdb-$lsdb_version" ] || return 0
    say "taking LSDB $lsdb_version into $cache/hats"
    rm -rf "$cache/hats"
    "$python" -m venv "$cache/hats" &&
        "$cache/hats/bin/pip" install -q --disable-pip-version-check --no-cache-dir --no-compile "lsdb==$lsdb_version" h5py >&2 &&
        touch "$cache/hats/lsdb-$lsdb_version"
}

cache=${ASTROCLIP_CACHE:-$HOME/.cache/astroclip}
python=/usr/bin/python3   # Debian's, which has pip; another one in PATH may not
install_packages "${packages[@]}"
case ${ASTROCLIP_FAISS:-AUTO} in
    OFF) ;;
    ON) install_packages "${faiss_packages[@]}" ;;
    *) (install_packages "${faiss_packages[@]}") || say "without FAISS: search is exact alone, and tests of the index are skipped" ;;
esac
if [ "${1:-}" = --readers ]; then
    (install_packages stilts) || say "without STILTS: its tests are skipped"
    (install_packages chromium) || say "without Chromium: the search page is not tried in a browser"
    (install_packages umap-learn) || say "without umap-learn: its test is skipped"
    mkdir -p "$cache"
    (flock 9 && install_lsdb) 9>"$cache/.lock-hats" || say "without LSDB: its tests are skipped"
fi
given_torch && exit 0
has_torch "$cache/torch-$torch_version" && exit 0
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9   # two set-ups at once: the second finds the work done
rm -rf "$cache"/.torch.*
has_torch "$cache/torch-$torch_version" || fetch_torch "$cache/torch-$torch_version"
