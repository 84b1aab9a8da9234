"""A virtual Slurm cluster and runs of the pipeline on it, for the experiments beside this file."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "slurm"), str(ROOT / "tests/stages")]
import pipeline  # noqa: E402  pylint: disable=wrong-import-position
from workflow import PEER_LOST, STAGES, Run  # noqa: E402  pylint: disable=wrong-import-position

CLUSTER = ROOT / "tests/slurm/cluster.sh"
USR2_PENDING = 1 << (signal.SIGUSR2 - 1)
# A partition whose jobs push those of the other off their nodes.
PARTITIONS = ("PreemptType=preempt/partition_prio", "PreemptMode=REQUEUE",
              "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1",
              "PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9")


class Failed(AssertionError):
    """An experiment did not show what it should."""


def check(condition, text):
    if not condition:
        raise Failed(text)


def wait_for(what, condition, seconds=120.0, every=0.01):
    """Polls until `condition` returns something true, which is returned. Where it asks slurm/status, `every` leaves the cores
    to what is waited for."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        check(time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s")
        time.sleep(every)
    return found


def call(*command, expect=0, timeout=300, environment=None):
    """Runs a command that must end with `expect` (None: anyhow)."""
    done = subprocess.run([str(word) for word in command], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=timeout, check=False, env=environment)
    check(expect is None or done.returncode == expect,
          f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done


def write_script(path, text):
    path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


class Cluster:
    """Two virtual nodes of four CPUs. What it prints as its environment becomes ours. While the file `broken` is there, no job
    can be started."""

    def __init__(self, folder, dead_after=300):
        """dead_after: s without an answer after which a node is taken to be dead, and its jobs are begun anew."""
        self.folder, self.broken, self.dead_after = folder, folder.with_name("broken"), dead_after

    def __enter__(self):
        prolog = self.folder.with_name("prolog")
        write_script(prolog, f"test ! -e '{self.broken}'")
        settings = [word for setting in (*PARTITIONS, f"Prolog={prolog}") for word in ("--set", setting)]
        try:
            text = call(CLUSTER, "up", 2, self.folder, "--cpus", 4, "--set", f"SlurmdTimeout={self.dead_after}", *settings).stdout
        except Failed:
            self.__exit__()
            raise
        os.environ.update(re.findall(r"(\w+)='?([^' \n]*)'?", text.replace("export ", "")))
        return self

    def __exit__(self, *_):
        call(CLUSTER, "down", self.folder, expect=None)

    def do(self, what, node=None):
        """crash, boot (of a node), stop-controller, start-controller."""
        call(CLUSTER, what, *([] if node is None else [node]), self.folder)

    def controller_answers(self):
        return call("timeout", 5, "squeue", "--noheader", expect=None).returncode == 0

    def resume(self):
        """All nodes up, those that died or were drained too."""
        for node in (1, 2):
            self.do("boot", node)

    def recover(self):
        """All nodes up, no job left."""
        self.broken.unlink(missing_ok=True)
        if not self.controller_answers():
            self.do("start-controller")
        self.resume()
        call("scancel", "--user=root", expect=None)
        wait_for("nodes to be idle", lambda: call("sinfo", "-h", "-N", "-p", "main", "-o", "%T").stdout.split() == ["idle"] * 2)


def job_facts(job):
    """{key: value} of `scontrol show job`."""
    return dict(re.findall(r"(\w+)=(\S*)", call("scontrol", "--oneliner", "show", "job", job, expect=None).stdout))


def processes(stage, run, shard=None):
    """Process ids of the ranks of a stage, or of one of its shards."""
    wanted = {f"{run}/config.cfg".encode(), *([f"{run}/status/{stage}.{shard}.json".encode()] if shard is not None else [])}
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(f"/astroclip-{stage}".encode()) and wanted <= set(words):
                found.append(int(path.parent.name))
    return found


def send(pids, number):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def process_status(pid):
    """What the kernel says of a process; "" of one that is gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return ""


def is_stopped(pid):
    return "\nState:\tT" in process_status(pid)


def has_pending_usr2(pid):
    return any(int(mask, 16) & USR2_PENDING for mask in re.findall(r"(?:ShdPnd|SigPnd):\s*([0-9a-f]+)", process_status(pid)))


class Workflow:
    """A run folder on the virtual cluster. `settings`: SECTION.KEY=VALUE."""

    def __init__(self, work, name, settings=(), config=pipeline.CONFIG):
        self.work, self.path, self.config, self.hurried = work, work / name, config, set()
        # Ranks that an experiment stops for a while have not lost one another; jobs and this machine's cores give the same bits
        # with the same number of threads.
        self.settings = ["run.hang-timeout=600", "run.threads=1", f"ingest-images.input={work}/survey/images",
                         f"ingest-spectra.input={work}/survey/spectra", f"evaluate.labels={work}/survey/truth.fits", *settings]

    def submit(self, *arguments, expect=0, environment=None):
        words = [word for setting in self.settings for word in ("--set", setting)]
        return call(ROOT / "slurm/submit", "--config", self.config, "--run", self.path, *words, *arguments, expect=expect,
                    environment=environment)

    def local(self, *arguments, expect=0):
        return self.submit("--local", *arguments, expect=expect)

    def status(self, environment=None):
        """{stage: its row}"""
        text = call(ROOT / "slurm/status", self.path, "--json", environment=environment).stdout
        return {row["stage"]: row for row in json.loads(text)["stages"]}

    def states(self):
        return {stage: row["state"] for stage, row in self.status().items()}

    def table(self):
        return call(ROOT / "slurm/status", self.path).stdout

    def ledger(self):
        return json.loads((self.path / "workflow.json").read_text(encoding="utf-8"))["stages"]

    def job(self, stage):
        return self.ledger()[stage]["job"]

    def attempts(self, task):
        return Run(self.path).attempts(task)

    def output(self, stage):
        return self.path / STAGES[stage].output

    def digest(self, stage):
        return pipeline.digest(self.output(stage))

    def start_from(self, other, *stages):
        """Takes over complete stages of another run."""
        self.path.mkdir()
        (self.path / "status").mkdir()
        for stage in stages:
            shutil.copytree(other.output(stage), self.output(stage))
            for path in (other.path / "status").glob(f"{stage}.*"):
                shutil.copy(path, self.path / "status")

    def hurry(self, job):
        """A job that was requeued need not wait for its old credential to expire (10 s), but for the next second: of the same one
        slurmd still thinks that it was killed. Steps by srun leave sockets behind for longer."""
        facts = job_facts(job)
        if facts.get("JobState") != "PENDING" or (job, facts["Restarts"]) in self.hurried or "run.launcher=srun" in self.settings:
            return
        if call("scontrol", "update", f"jobid={job}", "StartTime=now+2", expect=None).returncode == 0:
            self.hurried.add((job, facts["Restarts"]))

    def wait(self, stage=None, seconds=300.0, expect="complete"):
        """Until the stage, or every one, is as expected; what is requeued on the way begins at once."""
        def reached():
            rows = self.status()
            for row in rows.values():
                for one in row.get("tasks", [row]):
                    if one["state"] == "queued" and one["attempts"]:
                        self.hurry(one["job"])
            states = {rows[one]["state"] for one in ([stage] if stage else STAGES)}
            return not {"queued", "running", "unknown"} & states and states
        found = wait_for(f"end of {stage or 'all stages'}", reached, seconds, every=0.5)
        check(found == {expect}, f"{stage or 'the stages'}: {found}, not {expect}:\n{self.table()}{self.log_tail(stage or '*')}")

    def log_tail(self, stage):
        logs = sorted((self.path / "logs").glob(f"{stage}-*.log"), key=lambda path: path.stat().st_mtime)
        return f"\n{logs[-1]}:\n{logs[-1].read_text(encoding='utf-8', errors='replace')[-2000:]}" if logs else ""

    def steps_done(self, stage):
        return max(pipeline.losses(self.output(stage)), default=0) if (self.output(stage) / "metrics.jsonl").exists() else 0

    def parts_done(self, stage):
        return len(list(self.output(stage).glob("part-*.json")))

    def freeze(self, stage, ranks, ready=lambda: True, shard=None, seconds=120.0):
        """Stops all ranks of a stage in their tracks when `ready`; their process ids. It looks while they stand, and lets them go on
        if they are not ready, for a stage may be over before a busy machine looks twice."""
        def standing():
            pids = processes(stage, self.path, shard)
            these = len(pids) == ranks  # neither is one still to come, nor one of an earlier attempt about to go
            send(pids, signal.SIGSTOP if these else signal.SIGCONT)
            if not these or not all(map(is_stopped, pids)):
                return False
            if ready():
                return pids
            send(pids, signal.SIGCONT)
            return False
        return wait_for(f"{stage} in the middle", standing, seconds)


@contextlib.contextmanager
def programs_in_path(folder, **scripts):
    """An environment in which shell scripts stand in for programs."""
    folder.mkdir(exist_ok=True)
    for name, text in scripts.items():
        write_script(folder / name, text)
    yield {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}
    shutil.rmtree(folder)
