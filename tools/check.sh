#!/bin/bash
# Everything a change must pass: set-up, build without warnings, format, shell scripts, tests.
# usage: tools/check.sh [--kills]
#   --kills   also those labelled `kills`: every stage killed at many moments (up to 30 minutes)
# shellcheck disable=SC2317  # functions called through check()
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 70
left_out=(kills)
for argument in "$@"; do
    case $argument in
        --kills) left_out=("${left_out[@]/#kills/}") ;;
        *) sed -n '3,4s/^# //p' "${BASH_SOURCE[0]}" >&2; exit 64 ;;
    esac
done

passed=0 failed=0 skipped=0
check() { # NAME COMMAND...
    local name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "check: $name failed" >&2
    fi
}
finish() {
    [ "$skipped" = 0 ] || echo "$skipped skipped"
    echo "$passed passed, $failed failed"
    [ "$failed" = 0 ]
    exit
}

sources() { find common stages tests tools \( -name '*.cpp' -o -name '*.hpp' \) -print0; }
scripts() { find slurm tools tests .ci -type f \( -name '*.sh' -o -name '*.sbatch' -o -path '.ci/run' \) -print0; }
check_format() { sources | xargs -0 clang-format --dry-run -Werror; }
check_scripts() { scripts | xargs -0 shellcheck -x -s bash; }

# What was left out and why, a line a reason: by whole tests, which end with 77 and say so, and by parts of others, which
# ctest counts as passed: those of gtest (GTEST_SKIP) and of unittest (skipTest; its reasons come with verbosity=2 alone).
list_skipped() { # LOG of ctest
    awk '
        function skip(why) { if (!parts[test ": " why]++) order[++count] = test ": " why }
        / Test: / { test = $3; named = 0 }
        reason_follows { reason_follows = 0; skip($0); next }
        /^skipped: / { skip(substr($0, 10)) }
        /: Skipped$/ { reason_follows = 1 }
        match($0, /\.\.\. skipped /) { skip(substr($0, RSTART + RLENGTH + 1, length($0) - RSTART - RLENGTH - 1)); named = 1 }
        /^OK \(.*skipped=/ && !named { skip("parts of it") }
        END {
            for (i = 1; i <= count; ++i) {
                n = parts[order[i]]
                print "check: skipped: " order[i] (n > 1 ? " (" n " times)" : "")
            }
        }' "$1" >&2
}

# Adds the counts of ctest's summary to ours.
run_tests() {
    local labels output total bad whole
    labels=$(IFS='|'; echo "${left_out[*]}" | sed -E 's/^\|+|\|+$//g')
    output=build/ctest.log
    ctest --test-dir build -j2 --output-on-failure ${labels:+-LE "^($labels)\$"} 2>&1 | tee "$output"
    read -r bad total < <(sed -nE 's/.*tests passed, ([0-9]+) tests failed out of ([0-9]+).*/\1 \2/p' "$output" | tail -1)
    if [ -z "${total:-}" ]; then
        echo "check: ctest found no tests" >&2
        bad=1 total=1
    fi
    whole=$(grep -c '[*]Skipped ' "$output")
    passed=$((passed + total - bad - whole)) failed=$((failed + bad)) skipped=$((skipped + whole))
    list_skipped build/Testing/Temporary/LastTest.log
}

if ! { bash tools/setup.sh --readers && bash tools/build.sh; }; then
    failed=1
    finish
fi
check format check_format
check scripts check_scripts
run_tests
finish
