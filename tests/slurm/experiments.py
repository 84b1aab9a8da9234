"""What the workflow promises, tried on a real Slurm. Each experiment returns its figures as text; `short` ones are part of
every check."""

import concurrent.futures
import contextlib
import itertools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

from virtual_cluster import (PEER_LOST, ROOT, STAGES, Workflow, call, check, has_pending_usr2, job_facts, pipeline, processes,
                             programs_in_path, send, wait_for)

TRAININGS = pipeline.TRAININGS
EXPERIMENTS = {}  # name: (function, short)
TWO_RANKS = ("run.slurm-nodes=2", "run.slurm-ntasks-per-node=1")
DEMO = ROOT / "configs/demo.cfg"


def experiment(short=False):
    def add(function):
        EXPERIMENTS[function.__name__] = (function, short)
        return function
    return add


class Lab:
    """The cluster, a folder for all runs, and runs made here by mpirun to compare with."""

    def __init__(self, cluster, work):
        self.cluster, self.work = cluster, work
        self.numbers = itertools.count(1)

    def fresh(self, *settings, **options):
        return Workflow(self.work, f"run-{next(self.numbers)}", settings, **options)

    def survey(self, name, *options, config=pipeline.CONFIG):
        folder = self.work / name
        if not folder.exists():
            call(pipeline.BIN / "astroclip-simulate", "--config", config, "--output", folder, *options)
        return folder

    def reference(self, ranks):
        """The tiny run by `submit --local`, all stages."""
        run = Workflow(self.work, f"reference-{ranks}", [f"run.ranks={ranks}"])
        if not run.path.exists():
            self.survey("survey")
            run.local()
        return run


def middle_of(run, stage):
    """Whether a training has done some steps, or a store has a part; other stages publish at their end alone."""
    if stage in TRAININGS:
        return run.steps_done(stage) >= 5
    return run.parts_done(stage) >= 1 or not STAGES[stage].sharded


def check_same(run, other, stages=tuple(STAGES)):
    for stage in stages:
        check(run.digest(stage) == other.digest(stage), f"{stage}: {run.path} differs from {other.path}")


def spoken(attempts):
    """Those of a stage that said a word. A start that was lost before is repeated, which a busy machine may need; what counts here is
    what a stage that ran was made to do."""
    return [a for a in attempts if a.get("exit_code") != PEER_LOST or a.get("progress")]


def before(stage):
    """The stages before this one in the order of the graph."""
    return list(STAGES)[:list(STAGES).index(stage)]


# --- the whole workflow --------------------------------------------------------------------------------------------------


def overhead(run):
    """(s from the first submission to the last end, {stage: s of its job beyond its own}) of a run that is over."""
    start_end = {}
    for stage in STAGES:
        facts = job_facts(run.job(stage))
        check(facts["JobState"] == "COMPLETED", f"{stage} is {facts['JobState']}")
        start_end[stage] = [time.mktime(time.strptime(facts[key], "%Y-%m-%dT%H:%M:%S")) for key in ("SubmitTime", "StartTime", "EndTime")]
    own = {stage: sum(a.get("seconds", 0) for a in run.attempts(stage)) for stage in STAGES}
    whole = max(end for _, _, end in start_end.values()) - min(submitted for submitted, _, _ in start_end.values())
    return whole, own, {stage: end - start - own[stage] for stage, (_, start, end) in start_end.items()}, start_end


def in_jobs(lab, run, reference):
    """All stages by sbatch: complete, with the reference's bits, each after reading site.sh, independent ones side by side: there
    each waits for the other, for a short stage may end within the second that Slurm's times are given in."""
    site, seen = lab.work / "site.sh", run.path.with_suffix(".site")
    site.write_text(f"""
export ASTROCLIP_PYTHON=/usr/bin/python3
echo "$SLURM_JOB_NAME" >>{seen}
case $SLURM_JOB_NAME in
    ingest-images) other=ingest-spectra ;;
    ingest-spectra) other=ingest-images ;;
    pretrain-image) other=pretrain-spectrum ;;
    pretrain-spectrum) other=pretrain-image ;;
    *) other=$SLURM_JOB_NAME ;;
esac
waited=0
until grep -qx "$other" {seen}; do
    if ((++waited > 600)); then
        echo "$SLURM_JOB_NAME did not run beside $other" >>{seen}
        break
    fi
    sleep 0.1
done
""", encoding="utf-8")
    run.submit(environment={**os.environ, "ASTROCLIP_SITE": str(site)})
    run.wait(seconds=1200)
    check_same(run, reference)
    said = sorted(seen.read_text(encoding="utf-8").splitlines())
    starts = sorted(stage for stage in STAGES for _ in run.attempts(stage))
    check(said == starts, f"not each start read site.sh once, beside the stage that can run with it: {said}")
    whole, own, extra, _ = overhead(run)
    return (f"9 of 9 stages COMPLETED, catalogue {run.digest('embed')[:12]} and all else bit-identical to --local; {whole:.0f} s in "
            f"all, stages' own {sum(own.values()):.1f} s, a job's beyond its stage's {sum(extra.values()) / 9:.1f} s in the mean")


@experiment(short=True)
def workflow(lab):
    """All stages by sbatch on 2 nodes of 1 rank: complete, and the bits of `--local` with 2 ranks."""
    reference = lab.reference(2)
    return in_jobs(lab, lab.fresh(*TWO_RANKS), reference)


@experiment()
def demo(lab):
    """The same with configs/demo.cfg, a fifth of its galaxies and steps, on 2 nodes of 2 ranks and by `--local` with 4 ranks,
    among which its groups of 32 images must be shared out as 16."""
    survey = lab.survey("demo-survey", "--galaxies", "400", config=DEMO)
    fifth = [f"{stage}.{key}={steps}" for stage, steps in (("pretrain-image", 30), ("pretrain-spectrum", 60), ("align", 90))
             for key in ("steps", "schedule-steps")]
    settings = [f"ingest-images.input={survey}/images", f"ingest-spectra.input={survey}/spectra", f"evaluate.labels={survey}/truth.fits",
                "pretrain-image.group-size=16", *fifth]
    reference = Workflow(lab.work, "demo-reference", [*settings, "run.ranks=4"], config=DEMO)
    reference.local()
    return in_jobs(lab, lab.fresh(*settings, "run.slurm-nodes=2", "run.slurm-ntasks-per-node=2", config=DEMO), reference)


@experiment()
def one_after_another(lab):
    """The cost of a job: the same stages, none beside another, in jobs and by the sum of their own times."""
    lab.reference(2)
    run = lab.fresh(*TWO_RANKS, "run.slurm-exclusive=true", "run.binding=core")
    run.submit()
    run.wait(seconds=600)
    whole, own, extra, times = overhead(run)
    # From the end of the job before it to the start of its stage, and from its end to the end of its job.
    begun = sorted((start, stage) for stage, (_, start, _) in times.items())
    waited = {stage: start - end for (start, stage), end in zip(begun, [times[begun[0][1]][0], *(times[stage][2] for _, stage in begun)])}
    each = ", ".join(f"{stage} {own[stage]:.1f} + {waited[stage]:.0f} + {extra[stage]:.1f}" for stage in STAGES)
    return (f"{whole:.0f} s for {sum(own.values()):.1f} s of stages: {(whole - sum(own.values())) / 9:.2f} s a stage beyond its own (its "
            f"own + waiting for its turn, whole seconds + the job's script: {each})")


@experiment()
def srun(lab):
    """The same with srun as the launcher, ranks bound to cores; a training is stopped by USR2 and goes on."""
    reference, stage = lab.reference(2), "pretrain-spectrum"
    run = lab.fresh(*TWO_RANKS, "run.launcher=srun", "run.binding=core")
    run.submit()
    run.wait()
    check_same(run, reference)
    run = on_stage(lab, stage, "run.launcher=srun")
    ended = requeues(run, stage, (7,))
    check_same(run, reference, [stage])
    program = pipeline.BIN / "astroclip-match"
    environment = {**os.environ, "SLURM_PMIX_FENCE": "ring"}
    failed = sum(subprocess.run(["srun", "-N2", "-n4", "--mpi=pmix", program, "--version"], env=environment, check=False,
                                stdin=subprocess.DEVNULL, capture_output=True).returncode != 0 for _ in range(100))
    check(failed == 0, f"{failed} of 100 starts failed")
    return f"9 of 9 stages bit-identical to mpirun, a requeue ({ended}) too; 0 of 100 further starts of 4 ranks failed"


@experiment(short=True)
def odd_names(lab):
    """A survey in a folder with blanks, quotes and a command in its name goes through; such a run folder is refused."""
    lab.reference(2)
    odd = lab.work / "odd 'name' $(touch pwned) \"x\" ; y"
    odd.symlink_to(lab.work / "survey")
    run = lab.fresh(*TWO_RANKS, f"ingest-images.input={odd}/images", f"ingest-spectra.input={odd}/spectra")
    run.submit("--until", "match")
    run.wait("match")
    check_same(run, lab.reference(2), before("pretrain-image"))
    refused = ["a b", "a'b", "a\"b", "a$(touch pwned)", "a;b", "a\nb", "a*b", "a&b"]
    for name in refused:
        call(ROOT / "slurm/submit", "--config", pipeline.CONFIG, "--run", lab.work / name, expect=64)
        check(not (lab.work / name).exists(), f"{name} was made")
    check(not list(lab.work.rglob("pwned")), "a name was run as a command")
    return f"ingested from {odd.name!r}; {len(refused)} odd run folders refused"


# --- limits, preemption, requeues -------------------------------------------------------------------------------------------


def on_stage(lab, stage, *settings):
    """A run whose stages before this one are complete, with this one submitted."""
    run = lab.fresh(*TWO_RANKS, *settings)
    run.start_from(lab.reference(2), *before(stage))
    run.submit("--only", stage)
    return run


def through_time_limit(lab, stage):
    """Frozen in the middle until the signal before the limit has arrived; (s from start to signal, attempts)."""
    run = on_stage(lab, stage, "run.slurm-time=1", "run.slurm-signal=B:USR2@30")
    pids = run.freeze(stage, 2, lambda: middle_of(run, stage))
    begun = run.attempts(stage)[-1]["clock"]
    log = run.path / "logs" / f"{stage}-{run.job(stage)}.log"
    wait_for("USR2", lambda: all(map(has_pending_usr2, pids)) or "Forwarding signal 12" in log.read_text(encoding="utf-8"), 90)
    waited = time.time() - begun
    send(pids, signal.SIGCONT)
    run.wait(stage)
    attempts = run.attempts(stage)
    check(attempts[0]["exit_code"] == 75 and attempts[1]["restart"] == 1, f"{stage}: {attempts}")
    check(len({a["job"] for a in attempts}) == 1, "the job changed its id")
    check_same(run, lab.reference(2), [stage])
    return f"{stage} USR2 after {waited:.0f} s at step {attempts[0]['progress']['done']} of 20, {len(attempts)} attempts"


def past_time_limit(lab, stage):
    """Frozen until Slurm ends the job by force: the next submit goes on."""
    run = on_stage(lab, stage, "run.slurm-time=1")
    pids = run.freeze(stage, 2, lambda: middle_of(run, stage))
    wait_for("end by the time limit", lambda: job_facts(run.job(stage))["JobState"] == "TIMEOUT", 150)
    row = run.status()[stage]
    send(pids, signal.SIGKILL)
    run.submit("--only", stage)
    run.wait(stage)
    check_same(run, lab.reference(2), [stage])
    return f"{stage} without a reaction: TIMEOUT, status '{row['state']}: {row['message'].split(';')[0]}', resumed by submit"


@experiment()
def time_limit(lab):
    """The limit in the middle of each training: requeued, and the weights of an undisturbed run."""
    lab.reference(2)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = [pool.submit(through_time_limit, lab, stage) for stage in TRAININGS]
        found.append(pool.submit(past_time_limit, lab, "pretrain-spectrum"))
        return "; ".join(one.result() for one in found)


def begins_again(run, job, restarts):
    """Waits until the job has been requeued once more and runs."""
    def runs():
        run.hurry(job)
        facts = job_facts(job)
        return int(facts["Restarts"]) > restarts and facts["JobState"] != "PENDING"
    wait_for(f"restart {restarts + 1} of job {job}", runs, 120)


def requeue(run, stage, ranks, step, how):
    """Stops the training once it has passed `step`: by USR2, or at once by Slurm. Returns when it runs again."""
    job = run.job(stage)
    restarts = int(job_facts(job)["Restarts"])
    pids = run.freeze(stage, ranks, lambda: run.steps_done(stage) >= step)
    if how == "USR2":
        call("scancel", "--batch", "--signal=USR2", job)
        wait_for("USR2", lambda: all(map(has_pending_usr2, pids)))
    else:
        call("scontrol", "requeue", job)
    send(pids, signal.SIGCONT)
    begins_again(run, job, restarts)


def requeues(run, stage, steps):
    """Stops the training after each of these steps, every third time without warning; the exit codes of its attempts."""
    for number, step in enumerate(steps):
        requeue(run, stage, 2, step, "scontrol" if number % 3 == 2 else "USR2")
    run.wait(stage)
    attempts = run.attempts(stage)
    check([a["restart"] for a in attempts] == list(range(len(attempts))) and len(spoken(attempts)) == len(steps) + 1, f"{attempts}")
    return [a["exit_code"] for a in spoken(attempts)]


@experiment(short=True)
def one_requeue(lab):
    """A training is stopped by USR2 and goes on in its own job."""
    stage = "pretrain-spectrum"
    lab.reference(2)
    run = on_stage(lab, stage)
    ended = requeues(run, stage, (7,))
    check_same(run, lab.reference(2), [stage])
    return f"attempts ended with {ended}, the same bits"


@experiment()
def ten_requeues(lab):
    """Ten times, a third of them killed by Slurm without warning."""
    stage = "pretrain-spectrum"
    long = ["pretrain-spectrum.steps=60", "pretrain-spectrum.schedule-steps=60"]
    reference = Workflow(lab.work, "long-reference", ["run.ranks=2", *long])
    reference.start_from(lab.reference(2), *before(stage))
    reference.local("--only", stage)
    run = on_stage(lab, stage, *long)
    ended = requeues(run, stage, range(5, 55, 5))
    check_same(run, reference, [stage])
    return f"10 requeues in a row, {ended.count(75)} by USR2 and {ended.count(69)} by Slurm, then complete with the same bits"


@experiment()
def fruitless_requeues(lab):
    """A stage that is ended again and again without getting further is given up after two repetitions."""
    stage = "pretrain-spectrum"
    lab.reference(2)
    run = on_stage(lab, stage, "pretrain-spectrum.checkpoint-steps=1000")
    job = run.job(stage)
    for number in range(3):
        run.freeze(stage, 2)  # before it has begun
        call("scontrol", "requeue", job)
        begins_again(run, job, number)
    run.wait(stage, expect="failed")
    row = run.status()[stage]
    check("without getting further" in row["message"], row["message"])
    run.submit("--only", stage)  # a new submission counts anew
    run.wait(stage)
    return f"given up after {len(run.attempts(stage)) - 2} attempts: {row['message']!r}; submit goes on"


@experiment()
def preemption(lab):
    """A more urgent job takes the nodes: the training is put back, and goes on from its checkpoint."""
    stage = "pretrain-image"
    lab.reference(2)
    run = on_stage(lab, stage, "run.slurm-partition=main", "run.slurm-exclusive=true")
    run.freeze(stage, 2, lambda: run.steps_done(stage) >= 12)
    urgent = call("sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null",
                  "--wrap=sleep 1").stdout.strip()
    wait_for("the urgent job", lambda: job_facts(urgent)["JobState"] == "COMPLETED")
    run.wait(stage)
    check_same(run, lab.reference(2), [stage])
    attempts = run.attempts(stage)
    check(attempts[1]["restart"] == 1, f"{attempts}")
    return f"put back by Slurm, went on as restart 1 ({len(attempts)} attempts), weights bit-identical"


# --- faults -----------------------------------------------------------------------------------------------------------------


def accepted_only_if_whole(run, stage):
    """What a crash left is either complete and valid, or refused."""
    code = call(pipeline.BIN / "astroclip-check", run.output(stage), expect=None).returncode
    whole = (run.output(stage) / "manifest.json").exists()
    check(code == (0 if whole else 66), f"{stage}: check says {code}, complete {whole}")
    return whole


def crash_in(lab, stages, node):
    """The node dies while all of these stages are in their middle."""
    runs, pids = {}, []
    for stage in stages:
        run = runs[stage] = on_stage(lab, stage)
        pids += run.freeze(stage, 2, lambda s=stage, r=run: middle_of(r, s))
    lab.cluster.do("crash", node)
    left = [accepted_only_if_whole(run, stage) for stage, run in runs.items()]
    send(pids, signal.SIGCONT)  # mpirun's TERM must reach those that live on
    lab.cluster.do("boot", node)
    for stage, run in runs.items():
        run.wait(stage)
        attempts = spoken(run.attempts(stage))
        check(len(attempts) == 2 or attempts[0]["exit_code"] == 0, f"{stage}: {attempts}")
        check_same(run, lab.reference(2), [stage])
    return sum(left)


@experiment()
def node_crash(lab):
    """A node dies in the middle of each stage: the one that holds the job's script, and the other one."""
    lab.reference(2)
    stages, crashes, whole = list(STAGES), 0, 0
    for node in (2, 1):
        for group in (stages[0:3], stages[3:6], stages[6:9]):
            whole += crash_in(lab, group, node)
            crashes += len(group)
    return f"{crashes} crashes in 9 stages, all rerun to the same bits; {whole} had been complete, 0 incomplete ones accepted"


@experiment(short=True)
def cancelled(lab):
    """scancel: status says so, nothing follows, submit resumes."""
    stage = "pretrain-spectrum"
    run = on_stage(lab, stage)
    pids = run.freeze(stage, 2, lambda: middle_of(run, stage))
    run.submit("--until", "align")
    call("scancel", run.job(stage))
    send(pids, signal.SIGCONT)
    wait_for("scancel", lambda: run.states()[stage] == "cancelled")
    wait_for("the end of what follows", lambda: run.states()["align"] == "blocked")
    table = run.table()
    run.submit("--until", "align")
    run.wait("align")
    check_same(run, lab.reference(2), before("embed"))
    check(len(spoken(run.attempts(stage))) == 2, f"{run.attempts(stage)}")
    return re.search(rf"{stage}: (.*)", table).group(0)


@experiment(short=True)
def failing_stage(lab):
    """A stage that fails: what depends on it never starts, status names the cause, what it refused is not repeated."""
    lab.survey("survey")
    damaged = lab.survey("damaged", "--truncated-files", "0.5")
    run = lab.fresh(*TWO_RANKS, f"ingest-spectra.input={damaged}/spectra", "ingest-spectra.max-reject-fraction=0")
    run.submit()
    wait_for("an end", lambda: not {"queued", "running"} & set(run.states().values()), every=0.5)
    rows = run.status()
    states = {stage: row["state"] for stage, row in rows.items()}
    check(states["ingest-spectra"] == "failed" and states["ingest-images"] == "complete", str(states))
    check(all(states[stage] == "blocked" for stage in STAGES if not stage.startswith("ingest")), str(states))
    check(not any(run.attempts(stage) for stage in STAGES if not stage.startswith("ingest")), "a child was started")
    codes = [attempt["exit_code"] for attempt in spoken(run.attempts("ingest-spectra"))]
    check(codes == [65], str(run.attempts("ingest-spectra")))
    check("coadd" in rows["ingest-spectra"]["message"] and rows["ingest-spectra"]["log"] in run.table(), rows["ingest-spectra"]["message"])
    return f"7 of 7 children blocked; status: {rows['ingest-spectra']['message'][:110]!r}..."


@experiment()
def held(lab):
    """Slurm cannot start jobs on its nodes and holds them: status says so, and once that is mended submit goes on."""
    reference = lab.reference(2)
    run = lab.fresh(*TWO_RANKS)
    lab.cluster.broken.touch()
    run.submit("--until", "match")
    wait_for("jobs on hold", lambda: "submit releases it" in run.table(), every=0.5)
    told = re.search(r"ingest-[a-z]+: (Slurm could.*)", run.table()).group(0)
    lab.cluster.broken.unlink()
    lab.cluster.resume()
    run.submit("--until", "match")
    run.wait("match")
    check_same(run, reference, before("pretrain-image"))
    return f"{told!r}; released by submit, bit-identical"


def settled(run, seconds=300):
    """Waits until nothing runs and nothing waits but for `submit`; what evaluate is then, or "held"."""
    def found():
        rows = run.status()
        states = {row["state"] for row in rows.values()}
        if not {"running", "unknown"} & states and any("submit releases it" in row["message"] for row in rows.values()):
            return "held"
        return not {"queued", "running", "unknown"} & states and rows["evaluate"]["state"]
    return wait_for("an end", found, seconds, every=0.5)


@experiment()
def controller_restart(lab):
    """slurmctld dies right after the submission, and again while a training runs: the next submit fills in what it forgot."""
    reference = lab.reference(2)
    run = lab.fresh(*TWO_RANKS)
    run.submit()
    lab.cluster.do("stop-controller")
    silent = {**os.environ, "ASTROCLIP_SLURM_TIMEOUT_S": "2", "ASTROCLIP_RETRY_S": "0"}
    rows = run.status(silent)
    check("unknown" in {row["state"] for row in rows.values()}, "status should not know")
    run.submit(expect=69, environment=silent)
    lab.cluster.do("start-controller")
    wait_for("the controller", lab.cluster.controller_answers)
    jobs = call("squeue", "--noheader", "--states=all", "--format=%k").stdout
    forgotten = sum(f"{run.ledger()[stage]['token']}" not in jobs.split() for stage in STAGES)
    run.submit()
    calls = 2
    pids = run.freeze("pretrain-spectrum", 2, lambda: middle_of(run, "pretrain-spectrum"))
    lab.cluster.do("stop-controller")
    send(pids, signal.SIGCONT)  # it goes on, and ends, while there is no controller
    wait_for("end of pretrain-spectrum", lambda: not processes("pretrain-spectrum", run.path))
    lab.cluster.do("start-controller")
    wait_for("the controller", lab.cluster.controller_answers)
    held_jobs = 0
    while (state := settled(run)) != "complete":
        held_jobs += state == "held"
        lab.cluster.resume()  # nodes that were drained since Slurm wanted to start a job that still ran there
        run.submit()
        calls += 1
        check(calls < 6, run.table())
    check_same(run, reference)
    ended = {stage: [a.get("exit_code") for a in run.attempts(stage)].count(0) for stage in STAGES}
    check(min(ended.values()) >= 1, str(ended))
    again = [stage for stage, times in ended.items() if times > 1]  # Slurm started them anew; they were up to date
    return (f"{forgotten} of 9 jobs forgotten, later {'some' if held_jobs else 'none'} held; complete after {calls} calls of submit "
            f"and a second restart during a training; started once more by Slurm though done: {', '.join(again) or 'none'}")


def submit_both(run):
    """Two calls at once; their exit codes."""
    words = [word for setting in run.settings for word in ("--set", setting)]
    command = [ROOT / "slurm/submit", "--config", run.config, "--run", run.path, *words]
    both = [subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
    return sorted(one.wait(timeout=120) for one in both)


@experiment(short=True)
def two_submits(lab, times=1):
    """Two submits at once: one of them does it, or both find the same; never a stage twice."""
    lab.reference(2)
    seen = []
    for _ in range(times):
        run = lab.fresh(*TWO_RANKS, "run.slurm-extra=--hold --comment='of mine'")
        codes = submit_both(run)
        check(set(codes) <= {0, 73} and 0 in codes, str(codes))
        run.submit()
        names = call("squeue", "--noheader", "--format=%j %K").stdout
        found = call("squeue", "--noheader", f"--jobs={','.join(run.job(stage) for stage in STAGES)}", "--format=%j").stdout.split()
        check(sorted(found) == sorted(STAGES), names)
        check(len(call("squeue", "--noheader", "--format=%i").stdout.split()) == 9, names)
        call(ROOT / "slurm/cancel", run.path)
        wait_for("an empty queue", lambda: not call("squeue", "--noheader").stdout)
        seen.append(codes)
    return f"{len(seen)} times 9 jobs; exit codes {seen}"


@experiment()
def two_submits_often(lab):
    """The same ten times."""
    return two_submits(lab, 10)


@experiment()
def silent_queue(lab):
    """squeue hangs, then fails: status says unknown in bounded time, submit submits nothing."""
    lab.reference(2)
    run = lab.fresh(*TWO_RANKS, "run.slurm-extra=--hold")
    run.submit("--until", "match")
    times = {}
    for word, script in (("hangs", "sleep 60"), ("fails", "exit 1")):
        with programs_in_path(lab.work / "stand-ins", squeue=script) as environment:
            environment.update(ASTROCLIP_SLURM_TIMEOUT_S="1", ASTROCLIP_RETRY_S="0")
            begun = time.monotonic()
            states = {stage: row["state"] for stage, row in run.status(environment).items()}
            times[word] = time.monotonic() - begun
            check(states["match"] == "unknown", str(states))
            run.submit(expect=69, environment=environment)
    check(len(call("squeue", "--noheader", "--format=%i").stdout.split()) == 3, "a stage was submitted twice")
    call(ROOT / "slurm/cancel", run.path)
    return ", ".join(f"{word}: unknown after {seconds:.1f} s (3 tries of 1 s)" for word, seconds in times.items())


# --- job arrays -------------------------------------------------------------------------------------------------------------


def row_ids(store):
    """All identifiers in a store, read by h5py."""
    script = "import h5py, sys; print(*h5py.File(sys.argv[1])['object_id'][()])"
    return call("/usr/bin/python3", "-c", script, store / "index.h5").stdout.split()


def array_run(lab, *settings):
    survey = lab.survey("many-files", "--galaxies", "84", "--per-file", "2")
    files = len(list((survey / "images").iterdir()))
    check(files >= 40, f"{files} input files")
    common = [f"ingest-images.input={survey}/images", f"ingest-spectra.input={survey}/spectra", "ingest-images.part-rows=8",
              "ingest-spectra.part-rows=8", "embed.part-rows=16"]
    whole = Workflow(lab.work, "many-files-reference", [*common, "run.ranks=2"])
    if not whole.path.exists():
        whole.local("--until", "match")
    run = lab.fresh("run.slurm-ntasks=1", *common, "ingest-images.shards=4", "ingest-spectra.shards=4", "embed.shards=3", *settings)
    return files, whole, run


@experiment(short=True)
def array(lab):
    """Four jobs fill one store from more than 40 files, one of them is killed: it alone is run again."""
    files, whole, run = array_run(lab)
    site = lab.work / "lose.sh"  # the rank of one task dies when its first part is published, at its first start
    site.write_text("[ \"$SLURM_JOB_NAME:${SLURM_ARRAY_TASK_ID:-}:${SLURM_RESTART_COUNT:-0}\" != ingest-images:2:0 ] ||\n"
                    "    export ASTROCLIP_FAULT=publish.after-manifest:1\n", encoding="utf-8")
    run.submit("--until", "match", environment={**os.environ, "ASTROCLIP_SITE": str(site)})
    run.wait("match")
    check_same(run, whole, before("pretrain-image"))
    attempts = [len(spoken(run.attempts(f"ingest-images.{shard}"))) for shard in range(4)]
    check(attempts == [1, 1, 2, 1], f"attempts {attempts}")
    ids = row_ids(run.output("ingest-images"))
    check(len(ids) == len(set(ids)), "a row is there twice")
    return f"{files} files, 4 tasks, attempts {attempts}, {len(ids)} rows, each once; bit-identical to one job"


@experiment()
def array_task_cancelled(lab):
    """A task that was cancelled while others run: submit runs it alone, and what follows waits for all of them."""
    reference = lab.reference(2)
    _, whole, run = array_run(lab)
    run.submit("--until", "match")
    with contextlib.ExitStack() as thaw:
        others = [pid for shard in (0, 1) for pid in run.freeze("ingest-images", 1, shard=shard)]
        thaw.callback(send, others, signal.SIGCONT)
        pids = run.freeze("ingest-images", 1, lambda: (run.output("ingest-images") / "part-00003.json").exists(), shard=3)
        call("scancel", f"{run.ledger()['ingest-images']['shards']['3']['job']}")
        send(pids, signal.SIGCONT)
        wait_for("scancel", lambda: run.status()["ingest-images"]["tasks"][3]["state"] == "cancelled")
        row = run.status()["ingest-images"]
        run.submit("--until", "match")
    run.wait("match")
    check_same(run, whole, before("pretrain-image"))
    jobs = run.ledger()["ingest-images"]
    check(len(jobs["jobs"]) == 2 and jobs["shards"]["3"]["job"].startswith(jobs["jobs"][1]), str(jobs))
    begun = [len(run.attempts(f"ingest-images.{shard}")) for shard in range(4)]
    run.submit("--from", "ingest-images", "--until", "match")  # all four begin anew, once
    run.wait("match")
    check_same(run, whole, before("pretrain-image"))
    anew = [len(run.attempts(f"ingest-images.{shard}")) - count for shard, count in enumerate(begun)]
    check(anew == [1, 1, 1, 1], f"made anew by {anew}")
    catalogue = lab.fresh("run.slurm-ntasks=1", "embed.shards=3")
    catalogue.start_from(reference, *before("embed"))
    catalogue.submit("--only", "embed")
    catalogue.wait("embed")
    check_same(catalogue, reference, ["embed"])
    return (f"status: {row['shards']}; submit ran task 3 alone (job {jobs['shards']['3']['job']}); --from made all "
            f"four anew; embed in 3 tasks bit-identical too")


# --- the documentation --------------------------------------------------------------------------------------------------------


def commands_of(readme, chapter):
    body = (ROOT / readme).read_text(encoding="utf-8").split(f"## {chapter}\n", 1)[1].split("\n## ", 1)[0]
    return [line for block in re.findall(r"```bash\n(.*?)```", body, re.S) for line in map(str.strip, block.splitlines()) if line]


def users_folder(lab):
    """What a user has who has built the project: with a my.cfg for a small survey and this cluster."""
    here = lab.work / "user"
    here.mkdir()
    for name in ("slurm", "build", "configs", "tools"):
        (here / name).symlink_to(ROOT / name)
    text = pipeline.CONFIG.read_text(encoding="utf-8")
    for stage, folder in (("ingest-images", "images"), ("ingest-spectra", "spectra")):
        text = text.replace(f"[{stage}]", f"[{stage}]\ninput = {lab.work}/survey/{folder}\nslurm-ntasks = 1\nshards = 2")
    text = text.replace("[run]", "[run]\nslurm-nodes = 2\nslurm-ntasks-per-node = 1\nslurm-time = 10")
    (here / "my.cfg").write_text(text, encoding="utf-8")
    return here


@experiment()
def readme(lab):
    """The commands of the two READMEs' chapters on clusters, as they are written, on a survey and a configuration of our own."""
    reference = lab.reference(2)
    here, told = users_folder(lab), []
    for file, chapter in (("README.md", "On a cluster"), ("slurm/README.md", "A cluster's first run")):
        shutil.rmtree("/scratch/run7", ignore_errors=True)
        lines = commands_of(file, chapter)
        for line in lines:
            done = subprocess.run(["bash", "-c", line], cwd=here, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                                  timeout=600)
            check(done.returncode == 0, f"{line!r} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        run = Workflow(pathlib.Path("/scratch"), "run7")
        check(set(run.states().values()) == {"complete"}, run.table())
        check_same(run, reference, before("search"))
        told.append(f"{file}: {len(lines)} commands")
    return f"{', '.join(told)}, all with exit code 0; 9 stages complete, the catalogue bit-identical to --local"
