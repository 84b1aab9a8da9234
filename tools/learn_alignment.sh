#!/bin/bash
# What does alignment bring? 5,000 simulated galaxies through all stages on this machine: recall of the partner among the
# held-out thousand beside matching by photometry, and redshift and mass from aligned images beside the unaligned encoder's.
# usage: tools/learn_alignment.sh [--run DIR]
# The same command again goes on where it was.
exec bash "$(dirname "${BASH_SOURCE[0]}")/demo.sh" --config "$(dirname "${BASH_SOURCE[0]}")/../configs/alignment.cfg" --run "${2:-$PWD/run-alignment}"
