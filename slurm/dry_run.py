"""What submit would do: the exact commands, each stage's own check where its inputs are there, and an estimate of
memory and disk from the configuration. Writes nothing."""

from __future__ import annotations

import concurrent.futures
import os
import shlex
import shutil
import subprocess

import estimate
import slurm_queue
from workflow import (CONFLICT, STAGES, USAGE, WorkflowError, binaries, is_driver_key, parents, path_options,
                      stage_command)

CHECK_TIMEOUT_S = 120


def overrides(name, arguments):
    """The --set values that concern this stage, as options of its executable; of a key that is set twice the last."""
    found = {}
    for assignment in arguments.overrides:
        place, _, value = assignment.partition("=")
        section, _, key = place.partition(".")
        if section in ("run", name) and not is_driver_key(key):
            found[key] = value
    return [f"--{key}={value}" for key, value in found.items()]


def ask_stage(name, run, config, arguments, question):
    """Runs the stage alone, as one rank, with --print-config or --dry-run. None if it is not built."""
    executable = binaries() / STAGES[name].executable
    if not os.access(executable, os.X_OK):
        return None
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "OMPI_", "PMIX_"))}
    command = [str(executable), "--config", str(arguments.config or run.config_file), *overrides(name, arguments),
               *path_options(STAGES[name], run, config), question]
    try:
        return subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=CHECK_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return None


def check_options(stages, run, config, arguments):
    """Lets every stage read its own options now, so that a misspelt key of the last stage does not show after days.
    Returns {stage: {key: value}} of the stages that are built."""
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        answers = list(pool.map(lambda name: ask_stage(name, run, config, arguments, "--print-config"), stages))
    values = {}
    for name, answer in zip(stages, answers):
        if answer is None:
            continue
        if answer.returncode == USAGE:
            raise WorkflowError(f"{name}: {answer.stderr.strip() or 'wrong configuration'}", USAGE)
        values[name] = printed_values(answer.stdout)
    return values


def printed_values(text):
    """'key = value   # where from' -> {key: value}."""
    values = {}
    for line in text.splitlines():
        key, equals, value = line.split("#", 1)[0].partition("=")
        if equals:
            values[key.strip()] = value.strip()
    return values


def inputs_are_there(name, run, config):
    if not all(run.is_complete(parent) for parent in parents(STAGES[name], config).values()):
        return False
    source = config.section(name).get("input")
    return name not in ("ingest-images", "ingest-spectra") or bool(source and os.path.exists(source))


def show_stage(name, run, config, arguments, need):
    """Prints the stage's part of the plan; returns the exit code of its own check."""
    stage = STAGES[name]
    force = bool(arguments.begin or arguments.force)
    print(f"== {name}{' (anew)' if force else ''}")
    shards = range(config.shards(name)) if config.shards(name) > 1 and not arguments.local else ()
    if not arguments.local:
        before = [f"<job of {parent}>" for parent in parents(stage, config).values() if parent in arguments.stages]
        print("  " + shlex.join(slurm_queue.sbatch_command(stage, run, config, before, "<token>", shards)))
    print("  " + shlex.join(stage_command(stage, run, config, "<task>" if shards else None, "<word>" if force else "",
                                          not arguments.local)))
    print(f"  estimated: {need.text()}")
    if not inputs_are_there(name, run, config):
        print("  its inputs are not there yet: estimated from the configuration")
        return 0
    answer = ask_stage(name, run, config, arguments, "--dry-run")
    if answer is None:
        print("  not built yet: its own check is left out")
        return 0
    for line in answer.stdout.splitlines():
        print(f"  {line}")
    if answer.returncode == CONFLICT and force:
        return 0
    if answer.returncode:
        print(f"  {answer.stderr.strip()}")
    return answer.returncode


def existing_parent(path):
    while not path.exists():
        path = path.parent
    return path


def show(stages, run, config, arguments):
    arguments.stages = stages
    values = check_options(stages, run, config, arguments)
    needs = {name: estimate.need(name, config, values) for name in stages}
    codes = [show_stage(name, run, config, arguments, needs[name]) for name in stages]
    total = sum(need.disk for need in needs.values())
    free = shutil.disk_usage(existing_parent(run.path)).free
    print(f"== disk of all outputs: about {estimate.size(total)}; {estimate.size(free)} free at {run.path}"
          + ("  (warning: not enough)" if total > free else ""))
    return next((code for code in codes if code), 0)
