#!/usr/bin/python3
"""Kills the ranks of each stage at random moments and at each step of publishing; the same command again must end with
the bits of an undisturbed run, and nothing incomplete may ever pass for complete.

usage: kill_test.py RUN [--kills N] [--faults] [--stage S …]
  RUN       a folder that tiny_run.py made on 2 ranks
  --kills   random moments a stage (2); a third of them after the first published part or checkpoint
  --faults  also once at each named fault point that the stage reaches
"""
import argparse
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import time

import pipeline

STORE_FAULTS = ["publish.before-close", "publish.before-sync", "publish.before-rename", "publish.after-rename",
                "publish.before-manifest", "publish.after-manifest"]
CHECKPOINT_FAULTS = ["checkpoint.before-write", "checkpoint.before-manifest", "checkpoint.after-manifest",
                     "train.step", "train.before-publish"]


def ranks_of(launcher):
    """Process ids of the ranks that mpirun started."""
    found = subprocess.run(["pgrep", "-P", str(launcher.pid)], capture_output=True, text=True).stdout.split()
    return [int(pid) for pid in found]


def progressed(output):
    """Has a part or a checkpoint been published?"""
    return any(output.glob("part-*.json")) or any(output.glob("checkpoints/step-*/manifest.json"))


def start(line, **environment):
    return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            env=pipeline.environment(**environment))


def kill_at_random(line, output, duration, late, draw):
    """Starts the command and kills one of its ranks; False if it ended before."""
    launcher = start(line)
    begun = time.monotonic()
    moment = draw.uniform(0.3, 1.0) * duration
    while launcher.poll() is None:
        waited = time.monotonic() - begun
        if (progressed(output) and waited > 0.6 * moment) if late else waited > moment:
            break
        time.sleep(0.005)
    ranks = ranks_of(launcher)
    if launcher.poll() is None and ranks:
        try:
            os.kill(draw.choice(ranks), signal.SIGKILL)
        except ProcessLookupError:
            pass
    launcher.wait(timeout=120)
    return launcher.returncode != 0


def check_not_accepted(output):
    """After a kill the output is either complete and valid, or refused."""
    check = subprocess.run([pipeline.BIN / "astroclip-check", str(output)], capture_output=True, text=True)
    complete = (output / "manifest.json").exists()
    assert check.returncode == (0 if complete else 66), f"{output}: check says {check.returncode}, complete {complete}"


def finish(line, output, expected, what):
    check_not_accepted(output)
    pipeline.call(line)
    found = pipeline.digest(output)
    assert found == expected, f"{what}: {found} instead of {expected} after the kill"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--stage", action="append")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)

    for stage in arguments.stage or pipeline.STAGES:
        expected = pipeline.digest(arguments.run / pipeline.STAGES[stage][0])
        struck = 0
        with tempfile.TemporaryDirectory() as folder:
            output = pathlib.Path(folder) / "output"
            line = pipeline.command(stage, arguments.run, 2, output)
            begun = time.monotonic()
            pipeline.call(line)
            duration = time.monotonic() - begun
            assert pipeline.digest(output) == expected, f"{stage}: a rerun gives other bits"

            for number in range(arguments.kills):
                shutil.rmtree(output)
                struck += kill_at_random(line, output, duration, number % 3 == 2 or number == 1, draw)
                finish(line, output, expected, f"{stage}, kill {number}")

            reached = []
            faults = STORE_FAULTS + (CHECKPOINT_FAULTS if stage in pipeline.TRAININGS else [])
            for fault in faults if arguments.faults else []:
                for times in (1, 2):
                    shutil.rmtree(output)
                    launcher = start(line, ASTROCLIP_FAULT=f"{fault}:{times}")
                    launcher.wait(timeout=120)
                    if launcher.returncode == 0:
                        break
                    reached.append(f"{fault}:{times}")
                    finish(line, output, expected, f"{stage}, {fault}:{times}")
        print(f"{stage}: {arguments.kills} random kills ({struck} in time), fault points {', '.join(reached) or 'none'}; "
              "all bit-identical after the same command again", flush=True)


if __name__ == "__main__":
    main()
