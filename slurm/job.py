"""The two ends of a stage's job script: `begin` says what to run, `end` what its end means.

    job.py begin STAGE RUN         the command, NUL-separated; notes the attempt
    job.py end STAGE RUN STATUS    "stop CODE" or "again CODE"; STATUS is what the launcher returned

In a job array it is about this task's shard. Whether a task is run again follows from its exit code and from how far it
got. The code is taken from the stage's own status file: mpirun reports neither a stop on request nor a lost rank faithfully.
"""

import os
import shutil
import subprocess
import sys
import time

from workflow import (AGAIN, BUG, IO_ERROR, MEANING, PEER_LOST, Config, Run, WorkflowError, file_hash, host_name,
                      stage_command, stage_named, task_name, utc_now)

MAX_FRUITLESS = 2   # repetitions, one after the other, that got no further than the attempts before them
# mpirun, srun or the stage itself died of a signal (128 + n), was terminated (1), lost a node (205), or could not start the
# ranks, which srun ends with 0.
DIED = {0, 1, 129, 130, 134, 135, 137, 139, 140, 141, 143, 205}
KILLED = 137
LOST = "ended without a word: killed, or its node was lost"


def submission():
    """All attempts since the last `submit`; limits are counted within it."""
    return os.environ["ASTROCLIP_SUBMISSION"]


def shard_here(stage, config):
    """The shard that this task of a job array is for, or None."""
    task = os.environ.get("SLURM_ARRAY_TASK_ID")
    return int(task) if task and config.shards(stage.name) > 1 else None


def job_id():
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    return os.environ.get("SLURM_JOB_ID") or os.environ.get("ASTROCLIP_JOB") or f"local-{os.getppid()}"


def exit_code(status, launcher_code):
    """The stage's own word, where it has left one; else what the launcher's status tells."""
    own = status.get("exit_code")
    if isinstance(own, int):
        return own
    if launcher_code in MEANING and launcher_code != 0:
        return launcher_code
    return PEER_LOST if launcher_code in DIED else BUG


def fruitless(attempts):
    """How many repetitions, up to the last, got no further than any attempt before them."""
    best, count = {}, -1
    for attempt in attempts:
        progress = attempt.get("progress") or {}
        what, done = progress.get("what"), progress.get("done", 0)
        further = bool(what) and done > best.get(what, -1)
        count = 0 if further or count < 0 else count + 1
        best[what] = max(done, best.get(what, -1))
    return count


def verdict(attempts):
    """'again' or 'stop' after the last of these attempts."""
    if attempts[-1]["exit_code"] not in (PEER_LOST, IO_ERROR, AGAIN):
        return "stop"
    return "again" if fruitless(attempts) < MAX_FRUITLESS else "stop"


def close_lost(task, run):
    """The attempt before, if it left no end: with how far it had come. Returns all attempts of this submission."""
    attempts = run.attempts(task, submission())
    if attempts and "exit_code" not in attempts[-1]:
        end_of = {"exit_code": PEER_LOST, "progress": run.status(task).get("progress"), "message": LOST}
        run.note(task, end_of)
        attempts[-1].update(end_of)
    return attempts


def stripe(folder, count):
    """Lustre: files inherit the number of stripes from their folder. -1: over all targets."""
    lfs = shutil.which("lfs")
    if count and lfs and not folder.exists():
        folder.mkdir(parents=True, exist_ok=True)  # tasks of an array begin together
        if subprocess.run([lfs, "setstripe", "-c", str(count), str(folder)], stdout=sys.stderr, check=False).returncode:
            print(f"warning: {folder} could not be striped", file=sys.stderr)


def begin(stage, run):
    task = stage.name
    attempt = {"started": utc_now(), "clock": time.time(), "submission": submission(), "job": job_id(),
               "restart": int(os.environ.get("SLURM_RESTART_COUNT", "0")), "host": host_name()}
    try:
        config = Config.read(run.config_file)
        shard = shard_here(stage, config)
        task = task_name(stage.name, shard)
        earlier = close_lost(task, run)
        if earlier and earlier[-1]["exit_code"] == PEER_LOST and verdict(earlier) == "stop":
            raise WorkflowError(f"lost {fruitless(earlier)} times without getting further; see the logs, then submit again",
                                PEER_LOST)
        if run.stop_requested(stage.name):
            raise WorkflowError("cancelled before it began", AGAIN)
        word = run.redo_word(stage.name)
        attempt.update(redo=word, shards=config.shards(stage.name) if shard is not None else 1,
                       fingerprint=run.fingerprint(stage.name, config))
        command = stage_command(stage, run, config, shard, word, "SLURM_JOB_ID" in os.environ)
    except WorkflowError as error:
        run.note(task, {**attempt, "ended": utc_now(), "exit_code": error.code, "message": str(error)})
        raise
    # What stands in the status file afterwards was written by this attempt.
    run.status_file(task).unlink(missing_ok=True)
    stripe(run.output(stage.name), config.integer(stage.name, "lustre-stripe", 0, -1))
    run.note(task, attempt)
    sys.stdout.write("\0".join(command) + "\0")


def end(stage, run, launcher_code):
    task = task_name(stage.name, shard_here(stage, Config.read(run.config_file)))
    status = run.status(task)
    code = exit_code(status, launcher_code)
    attempts = run.attempts(task, submission())
    attempt = {"ended": utc_now(), "exit_code": code, "launcher_code": launcher_code, "progress": status.get("progress"),
               "message": message(status, code, launcher_code)}
    if attempts:
        attempt["seconds"] = round(time.time() - attempts[-1]["clock"], 1)
        attempts[-1].update(attempt)
    else:
        attempts = [attempt]
    if code == 0 and run.is_complete(stage.name):
        attempt["manifest"] = file_hash(run.output(stage.name) / "manifest.json")
        run.withdraw(stage.name, "redo")
    word = "stop" if run.stop_requested(stage.name) else verdict(attempts)
    attempt["verdict"] = word
    run.note(task, attempt)
    print(word, code)


def message(status, code, launcher_code):
    if status.get("message"):
        return str(status["message"])
    if code == 0:
        return ""
    memory = "; perhaps out of memory (slurm-mem)" if launcher_code == KILLED else ""
    return f"ended with status {launcher_code} and without a message: {MEANING.get(code, '')}{memory}"


def main(arguments):
    if len(arguments) < 3 or arguments[0] not in ("begin", "end") or (arguments[0] == "end") != (len(arguments) == 4):
        raise WorkflowError("usage: job.py begin STAGE RUN | job.py end STAGE RUN STATUS")
    stage, run = stage_named(arguments[1]), Run(arguments[2])
    if arguments[0] == "begin":
        begin(stage, run)
    else:
        end(stage, run, int(arguments[3]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except WorkflowError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
