"""What is known of every stage of a run: its status file, its attempts, the ledger and, if Slurm answers, the queue."""

from __future__ import annotations

import time

import slurm_queue
from workflow import AGAIN, MEANING, STAGES, Config, WorkflowError, duration_text, progress_text

LIVE = ("running", "queued")


def ledger_is_waiting(entry):
    """The ledger's last word is that Slurm has the job, so the queue must be asked."""
    return entry.get("state") in ("submitting", *LIVE)


def ask_queue(ledger):
    """Jobs that Slurm knows, {} if none is expected there, None if it does not answer."""
    if not any(ledger_is_waiting(entry) for entry in ledger["stages"].values()):
        return {}
    try:
        return slurm_queue.jobs()
    except slurm_queue.QueueSilent:
        return None


def find_job(entry, jobs):
    """(id, Slurm's state) of the stage's last job, or (None, None)."""
    for job, (state, _, token) in jobs.items():
        if job == entry.get("job") or (entry.get("token") and token == entry["token"]):
            return job, state
    return None, None


def state_from_attempts(run, stage, submission):
    attempts = run.attempts(stage, submission)
    if not attempts:
        return None
    code = attempts[-1].get("exit_code")
    if code is None:
        return "lost"
    return {0: "complete", AGAIN: "stopped"}.get(code, "failed")


def state_of(run, stage, entry, jobs, driver):
    """One word; `jobs` is None if Slurm did not answer, `driver` the (pid, host) of a local driver at work."""
    if ledger_is_waiting(entry) and not entry.get("local"):
        if jobs is None:
            return "unknown"
        _, slurm = find_job(entry, jobs)
        if slurm and slurm_queue.is_alive(slurm):
            return "running" if slurm in ("RUNNING", "COMPLETING") else "queued"
        ended = state_from_attempts(run, stage, entry.get("submission"))
        return ended or ("blocked" if slurm == "CANCELLED" or entry.get("job") else "not submitted")
    if entry.get("state") == "blocked":
        return "blocked"
    found = state_from_attempts(run, stage, entry.get("submission"))
    if found == "lost" and driver:
        return "running"
    if found in (None, "complete"):
        return "complete" if run.is_complete(stage) else ("-" if found is None else "removed")
    return found


def note_of(run, stage, state, attempts, config):
    """What a person should know besides the state."""
    last = attempts[-1] if attempts else {}
    if state in ("failed", "stopped"):
        code = last.get("exit_code")
        return f"{last.get('message') or MEANING.get(code, '')} (exit code {code})"
    if state == "lost":
        return "ended without a word: killed, time limit or a lost node; submit goes on from its last checkpoint or part"
    if state == "blocked":
        return "its job was cancelled, or a stage before it failed"
    if state == "unknown":
        return "Slurm does not answer"
    if state == "complete" and last.get("fingerprint") and last["fingerprint"] != run.fingerprint(stage, config):
        return "made with an earlier configuration or earlier inputs"
    return ""


def rows(run, ledger=None, jobs=()):
    """A dictionary a stage, in the order of the graph. `jobs`: as of ask_queue; left out, it is asked."""
    ledger = ledger or run.ledger()
    jobs = ask_queue(ledger) if jobs == () else jobs
    try:
        config = Config.read(run.config_file)
    except WorkflowError:
        config = Config({}, str(run.config_file))
    driver = run.driver()
    found = []
    for stage in STAGES:
        entry = ledger["stages"].get(stage, {})
        state = state_of(run, stage, entry, jobs, driver)
        attempts = run.attempts(stage)
        seconds = sum(a.get("seconds", 0) for a in attempts if a.get("submission") == entry.get("submission"))
        if state == "running" and attempts and "exit_code" not in attempts[-1]:
            seconds += time.time() - attempts[-1]["clock"]
        job = entry.get("job") or (attempts[-1]["job"] if attempts else "")
        status = run.status(stage)
        found.append({
            "stage": stage, "state": state, "job": job, "progress": status.get("progress"),
            "progress_text": progress_text(status) if state in ("running", "stopped", "failed", "lost") else "",
            "seconds": round(seconds, 1), "attempts": len(attempts),
            "exit_code": attempts[-1].get("exit_code") if attempts else None,
            "output": str(run.output(stage)), "log": str(run.log(stage, job)) if job else "",
            "message": note_of(run, stage, state, attempts, config),
        })
    return found


def table(found):
    """The rows as text: one line a stage, and the messages below it."""
    header = ("stage", "state", "job", "time", "progress")
    lines = [header] + [
        (row["stage"], row["state"], row["job"], duration_text(row["seconds"]) if row["seconds"] else "",
         row["progress_text"] or (row["output"] if row["state"] == "complete" else ""))
        for row in found
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(4)]
    text = [("  ".join(f"{line[i]:<{widths[i]}}" for i in range(4)) + "  " + line[4]).rstrip() for line in lines]
    for row in found:
        if row["message"] and row["state"] != "blocked":
            text.append(f"{row['stage']}: {row['message']}")
            if row["log"] and row["state"] != "complete":
                text.append(f"  log: {row['log']}")
    return "\n".join(text)
