#!/bin/bash
# What does alignment bring? 5,000 simulated galaxies through all stages on this machine: recall of the partner among the
# held-out thousand beside matching by photometry, and redshift and mass from aligned images beside the unaligned encoder's.
# usage: tools/learn_alignment.sh [--run DIR]   (run-alignment)
# The same command again goes on where it was.
tools=$(dirname "${BASH_SOURCE[0]}")
exec bash "$tools/demo.sh" --config "$tools/../configs/alignment.cfg" "$@"
