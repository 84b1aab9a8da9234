"""The two ends of a stage's job script: `begin` says what to run, `end` what its end means.

    job.py begin STAGE RUN         the command, NUL-separated; notes the attempt
    job.py end STAGE RUN STATUS    "stop CODE" or "again CODE"; STATUS is what the launcher returned

Whether a stage is run again follows from its exit code alone, which is taken from the stage's own status file: mpirun
reports neither a stop on request nor a lost rank faithfully.
"""

import os
import socket
import sys
import time

from workflow import (AGAIN, BUG, IO_ERROR, MEANING, PEER_LOST, Config, Run, WorkflowError, file_hash, stage_command,
                      stage_named, utc_now)

MAX_LOSSES = 2      # attempts that may be repeated after a lost rank or an I/O error
MAX_FRUITLESS = 2   # attempts that may stop on request, one after the other, without having got further
# mpirun, srun or the stage itself died of a signal (128 + n), was terminated (1), or lost a node (205).
DIED = {1, 129, 130, 134, 135, 137, 139, 140, 141, 143, 205}


def submission():
    """All attempts since the last `submit`; limits are counted within it."""
    return os.environ["ASTROCLIP_SUBMISSION"]


def job_id():
    return os.environ.get("SLURM_JOB_ID") or os.environ.get("ASTROCLIP_JOB") or f"local-{os.getppid()}"


def losses(attempts):
    return sum(1 for a in attempts if a.get("exit_code", PEER_LOST) in (PEER_LOST, IO_ERROR))


def exit_code(status, launcher_code):
    """The stage's own word, where it has left one; else what the launcher's status tells."""
    own = status.get("exit_code")
    if isinstance(own, int):
        return own
    if launcher_code in MEANING and launcher_code != 0:
        return launcher_code
    return PEER_LOST if launcher_code in DIED else BUG


def got_further(attempt, before):
    """Whether an attempt ended beyond the one before it: at another piece of work, or with more of the same done."""
    here, there = attempt.get("progress") or {}, before.get("progress") or {}
    return here.get("what") != there.get("what") or here.get("done", 0) > there.get("done", 0)


def verdict(attempts):
    """'again' or 'stop' after the last of these attempts."""
    code = attempts[-1]["exit_code"]
    if code in (PEER_LOST, IO_ERROR):
        return "again" if losses(attempts) <= MAX_LOSSES else "stop"
    if code != AGAIN:
        return "stop"
    fruitless = 0
    for attempt, before in zip(reversed(attempts), reversed(attempts[:-1])):
        if got_further(attempt, before):
            break
        fruitless += 1
    return "again" if fruitless <= MAX_FRUITLESS else "stop"


def begin(stage, run, config):
    earlier = run.attempts(stage.name, submission())
    if losses(earlier) > MAX_LOSSES:
        raise WorkflowError(f"{stage.name}: lost {losses(earlier)} times since it was submitted; see the logs, then "
                            f"submit again", PEER_LOST)
    if run.stop_requested(stage.name):
        raise WorkflowError(f"{stage.name}: cancelled before it began", AGAIN)
    force = run.must_redo(stage.name)
    # What stands in the status file afterwards was written by this attempt.
    (run.status_folder / f"{stage.name}.json").unlink(missing_ok=True)
    run.note(stage.name, {"started": utc_now(), "clock": time.time(), "submission": submission(), "job": job_id(),
                          "host": socket.gethostname(), "forced": force,
                          "fingerprint": run.fingerprint(stage.name, config)})
    sys.stdout.write("\0".join(stage_command(stage, run, config, force, "SLURM_JOB_ID" in os.environ)) + "\0")


def end(stage, run, launcher_code):
    status = run.status(stage.name)
    code = exit_code(status, launcher_code)
    attempts = run.attempts(stage.name, submission())
    attempt = {"ended": utc_now(), "exit_code": code, "launcher_code": launcher_code, "progress": status.get("progress"),
               "message": message(status, code, launcher_code)}
    if attempts:
        attempt["seconds"] = round(time.time() - attempts[-1]["clock"], 1)
        attempts[-1].update(attempt)
    else:
        attempts = [attempt]
    if code == 0:
        attempt["manifest"] = file_hash(run.output(stage.name) / "manifest.json")
        run.withdraw(stage.name, "redo")
    word = "stop" if run.stop_requested(stage.name) else verdict(attempts)
    attempt["verdict"] = word
    run.note(stage.name, attempt)
    print(word, code)


def message(status, code, launcher_code):
    if status.get("message"):
        return str(status["message"])
    return "" if code == 0 else f"ended with status {launcher_code} and without a message: {MEANING.get(code, '')}"


def main(arguments):
    if len(arguments) < 3 or arguments[0] not in ("begin", "end") or (arguments[0] == "end") != (len(arguments) == 4):
        raise WorkflowError("usage: job.py begin STAGE RUN | job.py end STAGE RUN STATUS")
    stage, run = stage_named(arguments[1]), Run(arguments[2])
    if arguments[0] == "begin":
        begin(stage, run, Config.read(run.config_file))
    else:
        end(stage, run, int(arguments[3]))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except WorkflowError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
