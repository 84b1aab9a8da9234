"""sbatch, squeue and scancel. Each call is tried three times with a time-out; a queue that does not answer is "unknown",
never "failed". Accounting (sacct) is not needed."""

from __future__ import annotations

import os
import re
import subprocess
import time

from workflow import HOME, PEER_LOST, SLURM_KEYS, WorkflowError

TRIES, TIMEOUT_S = 3, 30
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "REVOKED"}


class QueueSilent(WorkflowError):
    """Slurm did not answer: nothing is known of the jobs."""

    def __init__(self, message):
        super().__init__(message, PEER_LOST)


def pause():
    time.sleep(float(os.environ.get("ASTROCLIP_RETRY_S", "2")))


def try_once(command):
    """(stdout, None) or (None, what went wrong)."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S,
                              check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if done.returncode:
        return None, done.stderr.strip() or f"{command[0]} ended with {done.returncode}"
    return done.stdout, None


def call(command):
    for attempt in range(TRIES):
        if attempt:
            pause()
        output, problem = try_once(command)
        if problem is None:
            return output
    raise QueueSilent(f"{command[0]} failed {TRIES} times: {problem}")


def jobs():
    """This user's jobs that Slurm still knows: id -> (state, reason, token)."""
    known = {}
    command = ["squeue", "--noheader", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%r|%k"]
    for line in call(command).splitlines():
        fields = line.strip().split("|", 3)
        if len(fields) == 4:
            known[fields[0]] = tuple(fields[1:])
    return known


def is_alive(state):
    return state not in ENDED


def resource_options(stage, config):
    """The slurm-… keys of the stage's section, else of [run], as options of sbatch."""
    options = []
    for key in sorted(SLURM_KEYS):
        value = config.get(stage.name, key)
        if value is not None:
            name = key[len("slurm-"):]
            options.append(f"--{name}" if (name, value) == ("exclusive", "true") else f"--{name}={value}")
    return options


def sbatch_command(stage, run, config, dependencies, token):
    log = str(run.log(stage.name, "%j")).replace("%", "%%").replace("%%j.log", "%j.log")
    command = ["sbatch", "--parsable", "--export=ALL", f"--job-name={stage.name}", f"--comment={token}",
               f"--output={log}", *resource_options(stage, config)]
    if dependencies:
        command += [f"--dependency=afterok:{':'.join(dependencies)}", "--kill-on-invalid-dep=yes"]
    return command + [str(stage.script), str(run.path)]


def submit(command, token):
    """The id of the one job that `command` makes. When sbatch fails, the job may exist all the same: the queue is asked for
    its token before the next try."""
    for attempt in range(TRIES):
        if attempt:
            pause()
        output, problem = try_once(command)
        found = re.match(r"\d+", output or "")
        if found:
            return found.group()
        for job, (_, _, other) in jobs().items():
            if other == token:
                return job
    raise WorkflowError(f"sbatch failed {TRIES} times: {problem or 'no job id in ' + repr(output)}", PEER_LOST)


def environment(submission):
    return {"ASTROCLIP_HOME": str(HOME), "ASTROCLIP_SUBMISSION": submission}
