"""What is known of every stage of a run: its status files, its attempts, the ledger and, if Slurm answers, the queue."""

from __future__ import annotations

import time

import slurm_queue
from workflow import AGAIN, MEANING, STAGES, Config, WorkflowError, duration_text, parents, shard_of, tasks_of

LIVE = ("running", "queued")
# Of a stage in several tasks: the first of these that one of them is in.
RANKING = ("unknown", "running", "queued", "failed", "lost", "cancelled", "blocked", "stopped", "not submitted", "removed", "-",
           "complete")
ENDED_BY = {"NODE_FAIL": "its node failed", "TIMEOUT": "the time limit was over", "CANCELLED": "it was cancelled",
            "OUT_OF_MEMORY": "out of memory (slurm-mem)", "PREEMPTED": "it was preempted"}


def ledger_is_waiting(entry):
    """The ledger's last word is that Slurm has the job, so the queue must be asked."""
    return entry.get("state") in ("submitting", *LIVE)


def tasks_in(ledger):
    """{task: its entry} of all stages."""
    return {task: one for stage, entry in ledger["stages"].items() for task, one in tasks_of(stage, entry).items()}


def ask_queue(ledger):
    """Jobs that Slurm knows, {} if none is expected there, None if it does not answer."""
    if not any(ledger_is_waiting(entry) for entry in tasks_in(ledger).values()):
        return {}
    try:
        return slurm_queue.jobs()
    except slurm_queue.QueueSilent:
        return None


def find_job(task, entry, jobs):
    """(id, Slurm's state, its reason) of the task's last job, or three times None."""
    token = entry.get("token", "")
    for job, (state, reason, comment) in jobs.items():
        same = token and token == comment and job.partition("_")[2] == shard_of(task)
        if same or (job == entry.get("job") and not slurm_queue.is_of_another(token, comment)):
            return job, state, reason
    return None, None, None


def state_from_attempts(attempts):
    if not attempts:
        return None
    code = attempts[-1].get("exit_code")
    if code is None:
        return "lost"
    return {0: "complete", AGAIN: "stopped"}.get(code, "failed")


def waiting_for(reason):
    if slurm_queue.is_held(reason):
        return "Slurm could not start its job and holds it (a drained node? sinfo -R); submit releases it"
    return "" if reason in (None, "None", "Dependency") else f"waits: {reason}"


class View:
    """A run as it is now. `jobs`: as of ask_queue."""

    def __init__(self, run, ledger, jobs):
        self.run, self.ledger, self.jobs = run, ledger, jobs
        self.driver = run.driver()  # (pid, host) of a local driver at work
        try:
            self.config = Config.read(run.config_file)
        except WorkflowError:
            self.config = Config({}, str(run.config_file))

    def state_in_queue(self, stage, task, entry):
        """Of a task that Slurm has, or had when it was asked last."""
        if self.jobs is None:
            return "unknown"
        job, slurm, _ = find_job(task, entry, self.jobs)
        if slurm and slurm_queue.is_alive(slurm):
            return "running" if slurm in ("RUNNING", "COMPLETING") else "queued"
        ended = state_from_attempts(self.run.attempts(task, entry.get("submission")))
        if slurm == "CANCELLED" and ended in (None, "lost"):
            return "cancelled" if ended or self.run.stop_requested(stage) or self.parents_are_complete(stage) else "blocked"
        if ended:
            return ended
        if not (job or entry.get("job")):
            return "not submitted"
        return "lost" if slurm or self.parents_are_complete(stage) else "blocked"

    def parents_are_complete(self, stage):
        return all(self.run.is_complete(parent) for parent in parents(STAGES[stage], self.config).values())

    def state_of(self, stage, task, entry):
        """One word."""
        if ledger_is_waiting(entry) and not entry.get("local"):
            return self.state_in_queue(stage, task, entry)
        if entry.get("state") in ("blocked", "cancelled"):
            return entry["state"]
        found = state_from_attempts(self.run.attempts(task, entry.get("submission")))
        if found == "lost" and self.driver:
            return "running"
        if found in (None, "complete") and not shard_of(task):
            return "complete" if self.run.is_complete(stage) else ("-" if found is None else "removed")
        return found or "-"

    def note_of(self, task, entry, state, attempts):
        """What a person should know besides the state."""
        last = attempts[-1] if attempts else {}
        _, slurm, reason = find_job(task, entry, self.jobs or {})
        if state in ("failed", "stopped"):
            code = last.get("exit_code")
            return f"{last.get('message') or MEANING.get(code, '')} (exit code {code})"
        if state == "lost":
            how = ENDED_BY.get(slurm, "killed, a hard time limit, or a job that Slurm has lost")
            return f"ended without a word: {how}; submit goes on from its last checkpoint or part"
        return {"cancelled": "its job was cancelled; submit goes on", "unknown": "Slurm does not answer",
                "queued": waiting_for(reason)}.get(state, "")

    def task_row(self, stage, task, entry):
        attempts = self.run.attempts(task)
        state = self.state_of(stage, task, entry)
        own = self.run.attempts(task, entry.get("submission"))
        seconds = sum(a.get("seconds", 0) for a in own)
        if state == "running" and own and "exit_code" not in own[-1]:
            seconds += time.time() - own[-1]["clock"]
        job = entry.get("job") or (attempts[-1]["job"] if attempts else "")
        return {
            "task": task, "state": state, "job": job, "progress": self.run.status(task).get("progress") if own else None,
            "seconds": round(seconds, 1), "attempts": len(attempts),
            "exit_code": attempts[-1].get("exit_code") if attempts else None,
            "log": str(self.run.log(stage, job)) if job else "",
            "message": self.note_of(task, entry, state, attempts),
        }

    def stage_row(self, stage):
        entry = self.ledger["stages"].get(stage, {})
        rows = [self.task_row(stage, task, one) for task, one in tasks_of(stage, entry).items()]
        row = dict(min(rows, key=lambda one: RANKING.index(one["state"])))  # of its tasks, the one to look at
        if len(rows) > 1:
            counts = {state: sum(one["state"] == state for one in rows) for state in RANKING}
            if row["state"] == "complete" and not self.run.is_complete(stage):
                row["state"] = "removed"
            row.update(job=row["job"].partition("_")[0], progress=sum_of_progress(rows), tasks=rows,
                       seconds=max(one["seconds"] for one in rows), attempts=sum(one["attempts"] for one in rows),
                       shards=", ".join(f"{n} {state}" for state, n in counts.items() if n))
        if row["state"] == "complete" and not self.run.is_current(stage, self.config) and self.run.all_attempts(stage):
            row["message"] = "made with an earlier configuration or earlier inputs"
        row.pop("task")
        return {"stage": stage, **row, "output": str(self.run.output(stage))}


def sum_of_progress(rows):
    """Of the shards that are at the same piece of work as most."""
    found = [row["progress"] for row in rows if row["progress"] and row["progress"].get("total")]
    if not found:
        return None
    words = [one.get("what") for one in found]
    same = [one for one in found if one.get("what") == max(words, key=words.count)]
    total = {key: sum(one.get(key, 0) for one in same) for key in ("done", "total", "rate")}
    return {**same[0], **total, "left_s": max(one.get("left_s", 0) for one in same)}


def rows(run, ledger=None, jobs=()):
    """A dictionary a stage, in the order of the graph. `jobs`: as of ask_queue; left out, it is asked."""
    ledger = ledger or run.ledger()
    view = View(run, ledger, ask_queue(ledger) if jobs == () else jobs)
    return [view.stage_row(stage) for stage in STAGES]


def progress_cells(row):
    """How far, how fast, how long yet."""
    found = row["progress"] or {}
    if row["state"] in ("complete", "-", "blocked", "removed") or not found.get("total"):
        return (row["output"] if row["state"] == "complete" else row.get("shards", ""), "", "")
    done, total, unit = found.get("done", 0), found["total"], found.get("unit", "")
    far = f"{found.get('what', '')} {done}/{total} {unit} ({100 * done // total} %)".strip()
    if row["state"] not in ("running", "unknown"):
        return far, "", ""
    rate, left = found.get("rate", 0), found.get("left_s", 0)
    return far, f"{rate:.3g} {unit}/s" if rate else "", duration_text(left) if left else ""


def table(found):
    """The rows as text: one line a stage, and the messages below it."""
    header = ("stage", "state", "job", "time", "progress", "rate", "left")
    lines = [header] + [
        (row["stage"], row["state"], row["job"], duration_text(row["seconds"]) if row["seconds"] else "", *progress_cells(row))
        for row in found
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths)).rstrip() for line in lines]
    for row in found:
        told = [one for one in row.get("tasks", ()) if says_more(one)] or [row] * says_more(row)
        for one in told:
            text.append(f"{one.get('task', row['stage'])}: {one['message'] or one['state']}")
            if one["log"] and one["state"] not in ("complete", "queued"):
                text.append(f"  log: {one['log']}")
    return "\n".join(text)


def says_more(row):
    """Whether a stage, or a task of it, has something to say below the table: a message, or where its log grows."""
    return bool(row["message"]) or row["state"] == "running"
