#!/usr/bin/python3
"""Kills the ranks of each stage at random moments and at each step of publishing; the same command again must end with
the bits of an undisturbed run, and nothing incomplete may ever pass for complete.

usage: kill_test.py RUN [--kills N] [--faults] [--stage S …]
  RUN       a folder that tiny_run.py made on 2 ranks
  --kills   random moments a stage (2); of stages with parts or checkpoints every other one after the first of these
  --faults  also at each named fault point, where the stage reaches it
"""
import argparse
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time

import pipeline

WHOLE = ("search", "evaluate")  # publish a few small files at their end and nothing before
STORE_PASSES = (1, 2, 4)  # with three parts: the request, the first part or its commit, the manifest
TRAINING_PASSES = (1, 3)  # the request, a file of the first checkpoint (or part of the cache), the third checkpoint itself
# A cache's files come before those of checkpoints; without one, the faults of publishing meet checkpoints.
MORE_FAULTS = {"align": ("--token-cache", "off")}
KILLED = 128 + signal.SIGKILL


def fault_points(stage):
    """All names in the sources, without those of training for the other stages."""
    names = set()
    for room in ("common", "stages"):
        for path in (pipeline.SOURCE / room).glob("**/*.cpp"):
            names.update(re.findall(r'fault_point\("([^"]+)"\)', path.read_text()))
    return sorted(name for name in names if stage in pipeline.TRAININGS or name.startswith("publish."))


def ranks_of(launcher):
    """Process ids of the ranks that mpirun started."""
    found = ""
    for children in pathlib.Path("/proc").glob(f"{launcher.pid}/task/*/children"):
        found += children.read_text() + " "
    return [int(pid) for pid in found.split()]


def progressed(output):
    """Has a part or a checkpoint been published?"""
    return any(any(output.glob(pattern)) for pattern in
               ("part-*.json", "token-cache/part-*.json", "checkpoints/step-*/state.json"))


def digests(output):
    """Of the output, of the token cache that was made for it, and of the next best models."""
    within = [output / "token-cache", *sorted(output.glob("best-*"))]
    return [pipeline.digest(folder) for folder in (output, *within) if folder.exists()]


def start(line, **environment):
    # mpirun gives the ranks that are left 2 s to end by themselves; here they need not.
    environment = pipeline.environment(OMPI_MCA_odls_base_sigkill_timeout="0", **environment)
    return subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                            env=environment)


def ended(launcher, output):
    """The exit code of mpirun, when the ranks are gone too: it does not wait for those that it kills."""
    code = launcher.wait(timeout=120)
    deadline = time.monotonic() + 30  # the job must be gone within seconds; the machine may be busy
    while subprocess.run(["pgrep", "-f", str(output)], stdout=subprocess.DEVNULL).returncode == 0:
        assert time.monotonic() < deadline, f"{output}: a rank still runs 30 s after mpirun ended"
        time.sleep(0.01)
    return code


def kill_at_random(line, output, duration, late, draw):
    """Starts the command and kills one of its ranks; late: after the first part or checkpoint. False if it ended before."""
    shutil.rmtree(output, ignore_errors=True)
    launcher = start(line)
    begun = time.monotonic()
    moment = draw.uniform(0.1, 1.0) * duration
    while launcher.poll() is None:
        waited = time.monotonic() - begun
        if late and progressed(output):
            time.sleep(draw.uniform(0, 0.8) * max(duration - waited, 0))
            break
        if not late and waited > moment:
            break
        time.sleep(0.002)
    try:
        os.kill(draw.choice(ranks_of(launcher)), signal.SIGKILL)
    except (IndexError, OSError):  # ended meanwhile
        pass
    return ended(launcher, output) == KILLED


def check_not_accepted(output):
    """After a kill the output is either complete and valid, or refused."""
    check = subprocess.run([pipeline.BIN / "astroclip-check", str(output)], capture_output=True, text=True)
    complete = (output / "manifest.json").exists()
    assert check.returncode == (0 if complete else 66), f"{output}: check says {check.returncode}, complete {complete}"


def finish(line, output, expected, what):
    check_not_accepted(output)
    pipeline.call(line)
    found = digests(output)
    assert found == expected, f"{what}: {found} instead of {expected} after the kill"
    leftovers = [str(path) for path in output.glob("**/*.part.*")]
    assert not leftovers, f"{what}: left behind {leftovers}"


def random_kills(stage, line, output, expected, duration, kills, draw):
    """Numbers of kills, and of those after the first part or checkpoint."""
    after = 0
    for number in range(kills):
        late = number % 2 == 1 and stage not in WHOLE
        for _ in range(10):  # a moment too late for a run that was quicker than the first is drawn anew
            begun = time.monotonic()
            if kill_at_random(line, output, duration, late, draw):
                break
            duration = min(duration, time.monotonic() - begun)
        else:
            raise AssertionError(f"{stage}: no kill in time")
        after += progressed(output)
        finish(line, output, expected, f"{stage}, kill {number}")
    assert stage in WHOLE or after >= kills * 3 // 10, f"{stage}: {after} of {kills} kills after a part or checkpoint"
    return after


def faults(stage, line, output, expected):
    """Kills at each fault point; the names of those that were reached."""
    reached = set()
    for name in fault_points(stage):
        for passes in TRAINING_PASSES if stage in pipeline.TRAININGS else STORE_PASSES:
            shutil.rmtree(output)
            code = ended(start(line, ASTROCLIP_FAULT=f"{name}:{passes}"), output)
            if code == 0:
                break
            assert code == KILLED, f"{stage}, {name}:{passes}: ended with {code}"
            reached.add(name)
            finish(line, output, expected, f"{stage}, {name}:{passes}")
    return reached


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=lambda text: pathlib.Path(text).resolve())
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--stage", action="append")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)

    reached = set()
    for stage in arguments.stage or pipeline.STAGES:
        expected = digests(arguments.run / pipeline.STAGES[stage][0])
        with tempfile.TemporaryDirectory() as folder:
            output = pathlib.Path(folder) / "output"
            line = pipeline.command(stage, arguments.run, 2, output)
            begun = time.monotonic()
            pipeline.call(line)
            duration = time.monotonic() - begun
            assert digests(output) == expected, f"{stage}: a rerun gives other bits"
            after = random_kills(stage, line, output, expected, duration, arguments.kills, draw)
            found = faults(stage, line, output, expected) if arguments.faults else set()
            if arguments.faults and stage in MORE_FAULTS:
                shutil.rmtree(output)
                other = [*line, *MORE_FAULTS[stage]]
                pipeline.call(other)
                found |= faults(stage, other, output, digests(output))
        reached |= found
        print(f"{stage}: {duration:.1f} s; killed at {arguments.kills} random moments, {after} after a part or checkpoint"
              f"{', and at ' + ', '.join(sorted(found)) if found else ''}; the same bits each time "
              f"({time.monotonic() - begun:.0f} s)", flush=True)
    if arguments.faults and not arguments.stage:
        missed = set(fault_points("align")) - reached
        assert not missed, f"no stage reaches {missed}"


if __name__ == "__main__":
    main()
