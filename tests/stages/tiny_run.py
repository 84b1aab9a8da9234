#!/usr/bin/python3
"""Runs all stages on the tiny survey in the folder given, on 2 ranks: what the other tests of stages start from."""
import pathlib
import shutil
import sys

import pipeline

run = pathlib.Path(sys.argv[1]).resolve()
shutil.rmtree(run, ignore_errors=True)
run.mkdir(parents=True)
pipeline.run_until(run)
for folder, _ in pipeline.STAGES.values():
    print(folder, pipeline.digest(run / folder))
