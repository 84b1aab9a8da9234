"""sbatch, squeue and scancel. Each call is tried three times with a time-out; a queue that does not answer is "unknown",
never "failed". Accounting (sacct) is not needed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time

from workflow import HOME, PEER_LOST, SLURM_KEYS, WorkflowError

TRIES = 3
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "PREEMPTED",
         "REVOKED"}
TOKEN = re.compile(r"[0-9T:Z-]+-[0-9a-f]{8}/[a-z-]+")  # of submit's jobs, in their comment
# Slurm holds a job that it could not start on a node; a hold that a person has put on has other reasons.
FAILED_LAUNCH = re.compile("launch.failed.requeued.held")


class QueueSilent(WorkflowError):
    """Slurm did not answer: nothing is known of the jobs."""

    def __init__(self, message):
        super().__init__(message, PEER_LOST)


def seconds(name, default):
    return float(os.environ.get(name, default))


def outside():
    """Our environment without what Slurm says of a job that we are called in: sbatch would hand it on to the new job."""
    if "SLURM_JOB_ID" not in os.environ:
        return dict(os.environ)
    return {key: value for key, value in os.environ.items() if not key.startswith("SLURM_") or key == "SLURM_CONF"}


def try_once(command):
    """(stdout, None) or (None, what went wrong)."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=outside(),
                              timeout=seconds("ASTROCLIP_SLURM_TIMEOUT_S", 30))
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    if done.returncode:
        return None, done.stderr.strip() or f"{command[0]} ended with {done.returncode}"
    return done.stdout, None


def pause(problem):
    print(f"slurm: {problem}; trying again", file=sys.stderr)
    time.sleep(seconds("ASTROCLIP_RETRY_S", 2))


def call(command):
    for attempt in range(1, TRIES + 1):
        output, problem = try_once(command)
        if problem is None:
            return output
        if attempt < TRIES:
            pause(problem)
    raise QueueSilent(f"{command[0]} failed {TRIES} times: {problem}")


def jobs():
    """This user's jobs that Slurm still knows, the tasks of an array one by one: id -> (state, reason, token)."""
    known = {}
    command = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i|%T|%r|%k"]
    for line in call(command).splitlines():
        fields = line.strip().split("|", 3)
        if len(fields) == 4:
            known[fields[0]] = tuple(fields[1:])
    return known


def is_alive(state):
    return state not in ENDED


def is_held(reason):
    """Whether Slurm holds a job because its launch failed."""
    return bool(FAILED_LAUNCH.match(reason or ""))


def resource_options(stage, config):
    """The slurm-… keys of the stage's section, else of [run], as options of sbatch."""
    options = []
    for key in sorted(SLURM_KEYS - {"slurm-extra"}):
        value = config.get(stage.name, key)
        if value is not None:
            name = key[len("slurm-"):]
            options.append(f"--{name}" if (name, value) == ("exclusive", "true") else f"--{name}={value}")
    return options + extra_options(stage, config)


def extra_options(stage, config):
    """`slurm-extra`: options for sbatch as they are, quoted as in a shell."""
    try:
        return shlex.split(config.get(stage.name, "slurm-extra", ""))
    except ValueError as error:
        raise WorkflowError(f"slurm-extra in [{stage.name}]: {error}") from error


def ranges(numbers):
    """[0, 1, 2, 5] -> "0-2,5"."""
    found = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def sbatch_command(stage, run, config, dependencies, token, shards=()):
    """`shards`: the tasks of a job array; none: one job for the whole stage."""
    number = "%A_%a" if shards else "%j"
    log = str(run.log(stage.name, "\0")).replace("%", "%%").replace("\0", number)
    command = ["sbatch", "--parsable", "--export=ALL", *resource_options(stage, config), f"--job-name={stage.name}",
               f"--comment={token}", f"--output={log}"]
    if shards:
        command.append(f"--array={ranges(shards)}")
    if dependencies:
        command += [f"--dependency=afterok:{':'.join(dependencies)}", "--kill-on-invalid-dep=yes"]
    return command + [str(stage.script), str(run.path)]


def submit(command, token):
    """The id of the one job that `command` makes. When sbatch fails, the job may exist all the same: the queue is asked for
    its token before the next try."""
    for attempt in range(1, TRIES + 1):
        output, problem = try_once(command)
        found = re.match(r"\d+", output or "")
        if found:
            return found.group()
        for job, (_, _, other) in jobs().items():
            if other == token:
                return job.partition("_")[0]
        if attempt < TRIES:
            pause(problem or f"no job id in {output!r}")
    raise WorkflowError(f"sbatch failed {TRIES} times: {problem or 'no job id in ' + repr(output)}", PEER_LOST)


def release(job):
    """Lets a job that Slurm holds try again; what went wrong, or None."""
    return try_once(["scontrol", "release", job])[1]


def is_of_another(token, comment):
    """Whether a job's comment is the token of another submission: Slurm gives a number again when it has lost its state."""
    return comment != token and bool(TOKEN.fullmatch(comment))


def environment(submission):
    return {"ASTROCLIP_HOME": str(HOME), "ASTROCLIP_SUBMISSION": submission}
