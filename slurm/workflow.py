"""The stages, their graph, the configuration and the run folder: what submit, status, cancel and the job scripts share.

A run folder holds

    config.cfg                    the configuration as resolved
    workflow.json                 the ledger: what was asked of each stage, and every job that was submitted for it
    status/TASK.json              written by the stage itself: state, exit code, progress, message
    status/TASK.attempts.jsonl    written by its job script: one line when an attempt begins, one when it ends
    status/STAGE.redo, .stop      requests: make the output anew; do not go on after this attempt
    logs/STAGE-JOB.log
    images/ spectra/ ...          one folder an output; it exists once it has a manifest.json

TASK is the name of a stage or, where several jobs share one (a job array), STAGE.SHARD.
"""

from __future__ import annotations

import collections
import difflib
import errno
import fcntl
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent

# Exit codes, the same as those of the stages.
USAGE, BAD_DATA, MISSING, PEER_LOST, BUG, CONFLICT, IO_ERROR, AGAIN, NUMERICS = 64, 65, 66, 69, 70, 73, 74, 75, 76
MEANING = {
    0: "done",
    USAGE: "usage or configuration",
    BAD_DATA: "bad input data",
    MISSING: "input missing or incomplete",
    PEER_LOST: "a rank was lost or stopped answering",
    BUG: "a bug of ours",
    CONFLICT: "output locked by another job, or complete with another configuration",
    IO_ERROR: "I/O error or no space",
    AGAIN: "stopped on request, can go on",
    NUMERICS: "numerics failed",
}


class WorkflowError(Exception):
    """An error whose message is for the user; `code` becomes the exit code."""

    def __init__(self, message, code=USAGE):
        super().__init__(message)
        self.code = code


def absolute(path):
    return os.path.abspath(os.path.expanduser(path))


def nearest(word, known):
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""


def host_name():
    return os.uname().nodename


def utc_now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


# --- the graph ---------------------------------------------------------------------------------------------------


class Stage(collections.namedtuple("Stage", "name output inputs sharded", defaults=(False,))):
    """One arrow of the pipeline. `inputs`: option of the executable -> the stage whose output it takes. `sharded`: several
    jobs can fill its store together."""

    __slots__ = ()

    @property
    def executable(self):
        return f"astroclip-{self.name}"

    @property
    def script(self):
        return HOME / "slurm" / f"{self.name}.sbatch"


STORES = {"images": "ingest-images", "spectra": "ingest-spectra", "pairs": "match"}
ENCODERS = {"image-encoder": "pretrain-image", "spectrum-encoder": "pretrain-spectrum"}


def _only(options):
    return {option: STORES[option] for option in options}


STAGES = {
    stage.name: stage
    for stage in (
        Stage("ingest-images", "images", {}, sharded=True),
        Stage("ingest-spectra", "spectra", {}, sharded=True),
        Stage("match", "pairs", _only(("images", "spectra"))),
        Stage("pretrain-image", "image-encoder", _only(("images", "pairs"))),
        Stage("pretrain-spectrum", "spectrum-encoder", _only(("spectra", "pairs"))),
        Stage("align", "aligned", {**STORES, **ENCODERS}),
        Stage("embed", "embeddings", {**STORES, "model": "align"}, sharded=True),
        Stage("search", "search", {"embeddings": "embed", **_only(("pairs",))}),
        Stage("evaluate", "evaluation", {"embeddings": "embed", **STORES, "model": "align"}),
    )
}
PRODUCTS = ("search", "evaluate")  # what a run is for; stages that lead to none of them are left out


def stage_named(name):
    if name not in STAGES:
        raise WorkflowError(f"no stage '{name}'{nearest(name, STAGES)} (stages: {' '.join(STAGES)})")
    return STAGES[name]


def parents(stage, config):
    """The stages whose output this one reads, unless the configuration names another input in its place."""
    own = config.section(stage.name)
    return {option: parent for option, parent in stage.inputs.items() if option not in own}


def ancestors(name, config):
    found = set()
    for parent in parents(STAGES[name], config).values():
        found |= {parent} | ancestors(parent, config)
    return found


def selected(config, begin=None, only=None, until=None):
    """Names of the stages to run, in the order in which they may run."""
    if only:
        return [stage_named(only).name]
    goals = (stage_named(until).name,) if until else PRODUCTS
    wanted = set(goals).union(*(ancestors(goal, config) for goal in goals))
    if begin:
        stage_named(begin)
        wanted = {name for name in wanted if name == begin or begin in ancestors(name, config)}
        if not wanted:
            raise WorkflowError(f"--from {begin}: nothing that is asked for follows from it")
    return [name for name in STAGES if name in wanted]


# --- the configuration -------------------------------------------------------------------------------------------

BESIDE = ("train-supervised",)  # commands that are no stages of a run; their settings stand in its configuration
SECTIONS = ("run", "simulate", *STAGES, *BESIDE)
PATH_KEYS = {"input", "cutouts", "query-file", "positions", "index", "labels", "morphology", "output",
             *(option for stage in STAGES.values() for option in stage.inputs)}
NAMED_FOLDERS_KEYS = {"compare", "supervised"}  # NAME=FOLDER,...
SLURM_KEYS = {
    f"slurm-{key}"
    for key in (
        "nodes ntasks ntasks-per-node cpus-per-task gpus-per-node gpus-per-task time partition account qos mem "
        "mem-per-cpu constraint reservation exclusive licenses signal extra"
    ).split()
}
CHOICES = {"launcher": ("mpirun", "srun"), "binding": ("none", "core")}  # the first is the default
DRIVER_KEYS = {"ranks", "lustre-stripe", *CHOICES}


def is_driver_key(key):
    """Keys that the stages leave to the driver: how a stage is run, not what it makes."""
    return key in DRIVER_KEYS or key.startswith(("slurm-", "expected-"))


class Config:
    """The INI file of a run: sections of `key = value`; '#' begins a comment anywhere on a line."""

    def __init__(self, sections, name):
        self.sections, self.name = sections, name

    @classmethod
    def read(cls, path):
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise WorkflowError(f"{path}: {error.strerror}", MISSING) from error
        sections, current = {}, None
        for number, line in enumerate(text.splitlines(), 1):
            line = line.split("#", 1)[0].strip()
            if not line:
                continue
            where = f"{path}:{number}"
            if line.startswith("[") and line.endswith("]"):
                current = line[1:-1].strip()
                if current not in SECTIONS:
                    raise WorkflowError(f"{where}: unknown section [{current}]{nearest(current, SECTIONS)}")
                sections.setdefault(current, {})
                continue
            key, equals, value = (part.strip() for part in line.partition("="))
            if not equals or current is None:
                raise WorkflowError(f"{where}: 'key = value' expected after a [section], found '{line}'")
            if key in sections[current]:
                raise WorkflowError(f"{where}: '{key}' is given twice in [{current}]")
            sections[current][key] = value
        config = cls(sections, str(path))
        config.check()
        return config

    def check(self):
        for name, section in self.sections.items():
            for key in section:
                if key.startswith("slurm-") and key not in SLURM_KEYS:
                    raise WorkflowError(f"{self.name}: unknown key '{key}' in [{name}]{nearest(key, SLURM_KEYS)}")
                if key in CHOICES and section[key] not in CHOICES[key]:
                    raise WorkflowError(f"{self.name}: {key} = {' or '.join(CHOICES[key])}, found '{section[key]}' in [{name}]")
        for name in STAGES:
            self.integer(name, "lustre-stripe", 0, -1)
            self.shards(name)
            if self.choice(name, "launcher") == "srun" and self.get(name, "slurm-gpus-per-task"):
                raise WorkflowError(f"{self.name}: slurm-gpus-per-task with launcher = srun in [{name}]: ranks choose among "
                                    f"the GPUs of their node, so they must see all of them; use slurm-gpus-per-node")
        self.integer("run", "ranks", 2, 1)
        self.integer("run", "threads", 1, 1)

    def set(self, assignment):
        """'SECTION.KEY=VALUE' of the command line, which wins over the file."""
        match = re.fullmatch(r"([a-z-]+)\.([a-z0-9-]+)=([^#\n]*)", assignment)
        if not match:
            raise WorkflowError(f"--set {assignment}: SECTION.KEY=VALUE expected (without '#')")
        section, key, value = match.groups()
        if section not in SECTIONS:
            raise WorkflowError(f"--set {assignment}: unknown section{nearest(section, SECTIONS)}")
        self.sections.setdefault(section, {})[key] = value
        self.check()

    def section(self, name):
        return self.sections.get(name, {})

    def get(self, stage, key, default=None):
        """The stage's own value, else that of [run]."""
        return self.section(stage).get(key, self.section("run").get(key, default))

    def integer(self, stage, key, default, minimum):
        value = self.get(stage, key, default)
        try:
            number = int(value)
        except ValueError:
            number = None
        if number is None or number < minimum:
            raise WorkflowError(f"{self.name}: {key} = {value} in [{stage}]: a whole number >= {minimum} expected")
        return number

    def choice(self, stage, key):
        return self.get(stage, key, CHOICES[key][0])

    def shards(self, stage):
        """The number of jobs that fill the stage's store together."""
        count = self.integer(stage, "shards", 1, 1) if "shards" in self.section(stage) else 1
        if count > 1 and not STAGES[stage].sharded:
            raise WorkflowError(f"{self.name}: shards in [{stage}]: one job alone can do this stage; "
                                f"{', '.join(s.name for s in STAGES.values() if s.sharded)} may be shared out")
        return count

    def resolve(self):
        """Paths become absolute, since jobs may start in another folder; what is evaluated is the model that embedded."""
        if "model" in self.section("embed"):
            self.sections.setdefault("evaluate", {}).setdefault("model", self.section("embed")["model"])
        for name in (*STAGES, *BESIDE):
            section = self.section(name)
            for key in PATH_KEYS & set(section):
                section[key] = absolute(section[key])
            for key in NAMED_FOLDERS_KEYS & set(section):
                words = section[key].split(",")
                section[key] = ",".join(re.sub("(?<==).+", lambda folder: absolute(folder[0]), word) for word in words)

    def text(self):
        blocks = []
        for name in SECTIONS:
            if name in self.sections:
                lines = [f"{key} = {value}" for key, value in self.sections[name].items()]
                blocks.append("\n".join([f"[{name}]", *lines]))
        return "\n\n".join(blocks) + "\n"


# --- files ---------------------------------------------------------------------------------------------------------


def write_atomically(path, text):
    temporary = path.with_name(f"{path.name}.part.{os.getpid()}")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_json(path):
    """The object in a JSON file, or {} where there is none (yet)."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def read_lines(path):
    """The objects of a JSON-lines file; a line cut by a kill is left out."""
    objects = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return objects
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict):
            objects.append(found)
    return objects


def file_hash(path):
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


# --- the run folder ------------------------------------------------------------------------------------------------


def task_name(stage, shard=None):
    return stage if shard is None else f"{stage}.{shard}"


def shard_of(task):
    """The shard in the name of a task, as text; "" of a whole stage."""
    return task.partition(".")[2]


def tasks_of(stage, entry):
    """{task: its entry} of a stage's entry in the ledger."""
    shards = entry.get("shards")
    return {task_name(stage, shard): one for shard, one in shards.items()} if shards else {stage: entry}


def attempts_files(status_folder, stage):
    """Of the stage and of each of its shards that was ever run."""
    return sorted(path for pattern in ("", ".[0-9]*") for path in status_folder.glob(f"{stage}{pattern}.attempts.jsonl"))


def attempts_in(path):
    """One dictionary an attempt; 'exit_code' is missing while it runs, or if it ended without a word."""
    attempts = []
    for line in read_lines(path):
        if "started" in line:
            attempts.append(line)
        elif attempts:
            attempts[-1].update(line)
    return attempts


class Run:
    def __init__(self, path):
        self.path = Path(os.path.abspath(path))
        if not re.fullmatch(r"[A-Za-z0-9._/+=@%:,-]+", str(self.path)):
            raise WorkflowError(f"run folder '{self.path}': only letters, digits and ._/+=@%:,- are allowed in its path")
        self.config_file = self.path / "config.cfg"
        self.status_folder = self.path / "status"
        self._lock = None

    def exists(self):
        return (self.path / "workflow.json").is_file()

    def create(self):
        for folder in (self.path, self.status_folder, self.path / "logs"):
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise WorkflowError(f"{folder}: cannot make this folder: {error.strerror}", IO_ERROR) from error

    def output(self, stage):
        return self.path / STAGES[stage].output

    def is_complete(self, stage):
        return (self.output(stage) / "manifest.json").is_file()

    def log(self, stage, job):
        return self.path / "logs" / f"{stage}-{job}.log"

    def status_file(self, task):
        return self.status_folder / f"{task}.json"

    def status(self, task):
        return read_json(self.status_file(task))

    # The ledger is written by the holder of the lock alone.
    def ledger(self):
        found = read_json(self.path / "workflow.json")
        return found if found else {"format": 1, "stages": {}}

    def save(self, ledger):
        ledger["updated"] = utc_now()
        write_atomically(self.path / "workflow.json", json.dumps(ledger, indent=2) + "\n")

    def lock(self):
        """Keeps a second driver out until this one, and the stage it runs, have ended. Returns the descriptor."""
        descriptor = os.open(self.path / "workflow.lock", os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip() or "another process"
                raise WorkflowError(f"{self.path} is in use by {holder}", CONFLICT) from error
            print(f"warning: this file system has no locks ({error.strerror}): start one driver only", file=sys.stderr)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {host_name()}\n".encode(), 0)
        self._lock = descriptor
        return descriptor

    def driver(self):
        """(pid, host) of another driver that holds the lock, or None."""
        try:
            with open(self.path / "workflow.lock", "rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return None
                except OSError:
                    words = file.read(200).decode(errors="replace").split()
        except OSError:
            return None
        if len(words) < 4 or words[1:4:2] == [str(os.getpid()), host_name()]:
            return None
        return int(words[1]), words[3]

    # Attempts: what a task's job script noted about itself.
    def attempts(self, task, submission=None):
        found = attempts_in(self.status_folder / f"{task}.attempts.jsonl")
        return [a for a in found if submission is None or a.get("submission") == submission]

    def all_attempts(self, stage):
        return [a for path in attempts_files(self.status_folder, stage) for a in attempts_in(path)]

    def note(self, task, line):
        with open(self.status_folder / f"{task}.attempts.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    # Requests to a stage.
    def _request(self, stage, what):
        return self.status_folder / f"{stage}.{what}"

    def request_redo(self, stage):
        """Asks for the output to be made anew, once: the stage does so for a word that it has not met."""
        write_atomically(self._request(stage, "redo"), json.dumps({"word": os.urandom(8).hex(), "asked": utc_now()}) + "\n")

    def redo_word(self, stage):
        return read_json(self._request(stage, "redo")).get("word", "")

    def request_stop(self, stage):
        self._request(stage, "stop").touch()

    def stop_requested(self, stage):
        return self._request(stage, "stop").exists()

    def withdraw(self, stage, what):
        self._request(stage, what).unlink(missing_ok=True)

    def fingerprint(self, stage, config):
        """Changes when the stage's configuration or the outputs that it reads change."""
        inputs = {option: file_hash(self.output(parent) / "manifest.json")
                  for option, parent in parents(STAGES[stage], config).items()}
        seen = {key: {k: v for k, v in config.section(key).items() if k != "shards" and not is_driver_key(k)}
                for key in ("run", stage)}
        return hashlib.sha256(json.dumps([seen, inputs], sort_keys=True).encode()).hexdigest()

    def is_current(self, stage, config):
        """Its output is complete, and made by an attempt that saw this configuration and these inputs."""
        manifest = file_hash(self.output(stage) / "manifest.json")
        seen = {a.get("fingerprint") for a in self.all_attempts(stage) if a.get("manifest") == manifest}
        return bool(manifest) and self.fingerprint(stage, config) in seen and not self.redo_word(stage)

    def shard_is_done(self, stage, shard, config):
        """Its last attempt ended well, and what it was asked for is what is asked for now."""
        last = (self.attempts(task_name(stage, shard)) or [{}])[-1]
        word = self.redo_word(stage)
        return (last.get("exit_code") == 0 and last.get("shards") == config.shards(stage)
                and last.get("fingerprint") == self.fingerprint(stage, config) and (not word or last.get("redo") == word)
                and (self.output(stage) / "request.json").is_file())


# --- commands ------------------------------------------------------------------------------------------------------


def binaries():
    return Path(os.environ.get("ASTROCLIP_BIN") or HOME / "build" / "bin")


def path_options(stage, run, config):
    """What the driver adds to the configuration: where things are."""
    options = []
    for option, parent in parents(stage, config).items():
        options += [f"--{option}", str(run.output(parent))]
    if "output" not in config.section(stage.name):
        options += ["--output", str(run.output(stage.name))]
    return options


def threads_per_rank(config, in_job):
    """The [run] section's, else those of the job, else an equal share of this machine's cores."""
    if "threads" in config.section("run"):
        return config.integer("run", "threads", 1, 1)
    if in_job:
        return int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))
    return max(1, len(os.sched_getaffinity(0)) // config.integer("run", "ranks", 2, 1))


def launcher(stage, config, in_job):
    """The command in front of the executable: in a Slurm job, or on this machine."""
    bound = config.choice(stage, "binding") == "core"
    if in_job and config.choice(stage, "launcher") == "srun":
        return ["srun", "--mpi=pmix", "--kill-on-bad-exit=1", f"--cpu-bind={'cores' if bound else 'none'}"]
    binding = ["--bind-to", "none"]
    if in_job and bound:
        binding = ["--map-by", f"slot:PE={os.environ.get('SLURM_CPUS_PER_TASK', '1')}", "--bind-to", "core"]
    ranks = os.environ.get("SLURM_NTASKS", "NTASKS") if in_job else str(config.integer("run", "ranks", 2, 1))
    return ["mpirun", *([] if in_job else ["--oversubscribe"]), *binding, "-x", "OMP_NUM_THREADS", "-n", ranks]


def stage_command(stage, run, config, shard=None, redo="", in_job=False):
    """`shard`: the one that is run; None: the whole stage in one job. `redo`: a word, see Run.request_redo."""
    threads = threads_per_rank(config, in_job)
    command = ["env", f"OMP_NUM_THREADS={threads}", *launcher(stage.name, config, in_job), str(binaries() / stage.executable),
               "--config", str(run.config_file), "--status", str(run.status_file(task_name(stage.name, shard))),
               *path_options(stage, run, config), "--threads", str(threads)]
    if config.shards(stage.name) > 1:
        command += ["--shards", "1"] if shard is None else ["--shards", str(config.shards(stage.name)), "--shard", str(shard)]
    return command + (["--redo", redo] if redo else [])


def duration_text(seconds):
    seconds = int(round(seconds))
    if seconds >= 3600:
        return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
    return f"{seconds // 60} min {seconds % 60:02d} s" if seconds >= 60 else f"{seconds} s"
