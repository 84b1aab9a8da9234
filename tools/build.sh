#!/bin/bash
# Configures and builds into build/ (or $ASTROCLIP_BUILD): all, or the targets given. Ninja knows what is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
build=${ASTROCLIP_BUILD:-build}

# What the precompiled header needs to be found again in the cache.
export CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
export CCACHE_MAXSIZE=${CCACHE_MAXSIZE:-5G}

jobs_that_fit() { # a file with LibTorch takes up to 1.5 GB of memory
    local cores memory
    cores=$(nproc)
    memory=$(awk '/MemAvailable/ { print int($2 / 1.5e6) }' /proc/meminfo)
    echo $((memory < 1 ? 1 : memory < cores ? memory : cores))
}

# Another LibTorch than that of the last configuration: look for it anew.
settings="torch=${ASTROCLIP_TORCH:-} prefix=${CMAKE_PREFIX_PATH:-} cuda=${ASTROCLIP_CUDA:-AUTO} faiss=${ASTROCLIP_FAISS:-AUTO}"
if [ ! -f "$build/build.ninja" ] || [ "$(cat "$build/settings" 2>/dev/null || true)" != "$settings" ]; then
    mkdir -p "$build"
    cmake -C tools/cmake/release.cmake -S . -B "$build" -G Ninja -U 'LibTorch_*' \
        "-DASTROCLIP_CUDA=${ASTROCLIP_CUDA:-AUTO}" "-DASTROCLIP_FAISS=${ASTROCLIP_FAISS:-AUTO}" >"$build/configure.log" 2>&1 || {
        cat "$build/configure.log" >&2
        exit 1
    }
    echo "$settings" >"$build/settings"
fi
ninja -C "$build" -j "$(jobs_that_fit)" "$@"
