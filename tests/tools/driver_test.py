#!/usr/bin/env python3
"""The workflow driver against stages, mpirun and Slurm that are made up: what it runs, repeats, refuses and remembers."""

import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "slurm"))
from workflow import STAGES, Config  # noqa: E402  pylint: disable=wrong-import-position

# A stage that does as PLAN/STAGE says, a word an attempt, the last one for ever:
#   ok | CODE (ends with it) | silent:CODE (and leaves no word) | stop:N (75, N steps done) | wait (for USR2, then 75)
# Done again with the same configuration it is up to date. A shard does as PLAN/STAGE.SHARD says; the last one completes the output.
FAKE_STAGE = r"""#!/bin/bash
stage=${0##*astroclip-} output='' status='' redo='' shards=1 shard=''
echo "$*" >>"$PLAN/$stage.calls"
while [ $# -gt 0 ]; do
    case $1 in
        --output) output=$2; shift ;;
        --status) status=$2; shift ;;
        --redo) redo=$2; shift ;;
        --shards) shards=$2; shift ;;
        --shard) shard=$2; shift ;;
        --print-config) [ ! -e "$PLAN/$stage.wrong" ] || { echo "unknown key" >&2; exit 64; }; exit 0 ;;
        --dry-run) echo "the stage's own plan"; exit 0 ;;
    esac
    shift
done
say() { echo "{\"state\": \"$1\", \"exit_code\": $2, \"message\": \"$3\", \"progress\": {\"what\": \"w\", \"done\": $4, \"total\": 9, \"unit\": \"steps\"}}" >"$status"; }
mkdir -p "$output"
if [ -n "$redo" ] && [ "$redo" != "$(cat "$output/redo" 2>/dev/null)" ]; then rm -f "$output"/*; echo "$redo" >"$output/redo"
elif [ -e "$output/manifest.json" ]; then say done 0 "up to date" 9; exit 0; fi
touch "$output/request.json"
[ "$shards" = 1 ] || stage=$stage.$shard
read -r word rest <"$PLAN/$stage" 2>/dev/null || word=ok
[ -z "$rest" ] || echo "$rest" >"$PLAN/$stage"
case $word in
    ok) touch "$output/part-$shard"; [ "$(ls "$output"/part-* | wc -l)" = "$shards" ] && date +%N >"$output/manifest.json"; say done 0 "" 9; exit 0 ;;
    silent:*) exit "${word#silent:}" ;;
    stop:*) say stopped 75 "asked to stop" "${word#stop:}"; exit 75 ;;
    wait) say running null "" 1; trap 'say stopped 75 "asked to stop" 2; exit 75' USR2; echo ready >"$PLAN/$stage.ready"
        while true; do sleep 0.05; done ;;
    *) say failed "$word" "made to fail" 1; exit "$word" ;;
esac
"""
FAKE_MPIRUN = """#!/bin/bash
while [[ $1 != */astroclip-* ]]; do shift; done
"$@" & pid=$!
trap 'kill -USR2 $pid' USR2
wait $pid; code=$?; [ $code -le 128 ] || { wait $pid; code=$?; }; exit $code
"""
# Jobs, and the tasks of arrays, are files QUEUE/jobs/ID with "STATE TOKEN DEPENDENCY"; they wait for what QUEUE/reason says.
# Calls that $QUEUE/fail names ("3 4") fail; those that $QUEUE/mute names do what they should, and then fail.
FAKE_SLURM = r"""#!/bin/bash
mkdir -p "$QUEUE/jobs"
call=$(($(cat "$QUEUE/calls" 2>/dev/null || echo 0) + 1)); echo $call >"$QUEUE/calls"
listed() { grep -qw $call "$QUEUE/$1" 2>/dev/null; }
listed fail && { echo "Unable to contact slurm controller" >&2; exit 1; }
case ${0##*/} in
    sbatch)
        env | grep ^SLURM_ >"$QUEUE/handed-on"
        after=- array=''
        for word in "$@"; do
            case $word in --comment=*) token=${word#*=} ;; --dependency=*) after=${word#*=} ;; --array=*) array=${word#*=} ;; esac
        done
        id=$(($(cat "$QUEUE/submitted" 2>/dev/null | wc -l) + 101))
        for task in $(echo "$array" | tr , '\n' | sed -E 's/^([0-9]+)-([0-9]+)$/seq \1 \2/; s/^[0-9]+$/echo &/' | sh); do
            echo "PENDING $token $after" >"$QUEUE/jobs/${id}_$task"
        done
        [ -n "$array" ] || echo "PENDING $token $after" >"$QUEUE/jobs/$id"
        printf '%s\n' "$*" >>"$QUEUE/submitted"
        listed mute && exit 1
        echo "$id" ;;
    squeue)
        for job in "$QUEUE"/jobs/*; do
            [ -e "$job" ] && read -r state token after <"$job" || continue
            echo "${job##*/}|$state|$(cat "$QUEUE/reason" 2>/dev/null || echo None)|$token"
        done
        ! listed mute ;;
    scancel) for job in "$@"; do read -r _ rest <"$QUEUE/jobs/$job"; echo "CANCELLED $rest" >"$QUEUE/jobs/$job"; done
        echo "$*" >>"$QUEUE/cancelled" ;;
    scontrol) [ "$1" != update ] || { job=${2#*=}; read -r state token _ <"$QUEUE/jobs/$job"; echo "$state $token ${3#*=}" >"$QUEUE/jobs/$job"; exit; }
        [ "$1" != release ] || { echo "$2" >>"$QUEUE/released"; exit; }
        echo "$*" >>"$QUEUE/requeued"; exit 1 ;;
esac
"""


class Driver(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # A run starts Python dozens of times: its modules are compiled at the first.
        compiled = tempfile.TemporaryDirectory()  # pylint: disable=consider-using-with
        cls.addClassCleanup(compiled.cleanup)
        cls.outside = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "ASTROCLIP_")) and k != "PYTHONDONTWRITEBYTECODE"}
        cls.outside["PYTHONPYCACHEPREFIX"] = compiled.name

    def setUp(self):
        # pylint: disable=consider-using-with
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        base = Path(self.folder.name)
        self.plan, self.queue, self.run_folder = base / "plan", base / "queue", base / "run"
        bin_folder, path_folder = base / "bin", base / "path"
        for folder in (self.plan, self.queue, bin_folder, path_folder):
            folder.mkdir()
        for stage in STAGES:
            self.write_program(bin_folder / f"astroclip-{stage}", FAKE_STAGE)
        self.write_program(path_folder / "mpirun", FAKE_MPIRUN)
        for name in ("sbatch", "squeue", "scancel", "scontrol"):
            self.write_program(path_folder / name, FAKE_SLURM)
        self.config = base / "a.cfg"
        self.config.write_text("[run]\nranks = 2\nslurm-time = 01:00:00\n[align]\nslurm-gpus-per-node = 4 # each\n")
        self.environment = {**self.outside, "PATH": f"{path_folder}:{os.environ['PATH']}", "PLAN": str(self.plan),
                            "QUEUE": str(self.queue), "ASTROCLIP_BIN": str(bin_folder), "ASTROCLIP_RETRY_S": "0",
                            "ASTROCLIP_PYTHON": sys.executable}

    @staticmethod
    def write_program(path, text):
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def call(self, program, *arguments, expect=0):
        done = subprocess.run([sys.executable, ROOT / "slurm" / program, *arguments], env=self.environment, capture_output=True, text=True,
                              timeout=60, check=False)
        self.assertEqual(done.returncode, expect, f"{program} {arguments}\n{done.stdout}\n{done.stderr}")
        return done

    def submit(self, *arguments, expect=0):
        return self.call("submit", "--config", self.config, "--run", self.run_folder, *arguments, expect=expect)

    def local(self, *arguments, expect=0):
        return self.submit("--local", *arguments, expect=expect)

    def starts(self, stage):
        """The command lines with which the stage was really started."""
        file = self.plan / f"{stage}.calls"
        lines = file.read_text().splitlines() if file.exists() else []
        return [line for line in lines if "--print-config" not in line and "--dry-run" not in line]

    def forget_starts(self):
        for file in self.plan.glob("*.calls"):
            file.unlink()

    def started(self):
        return [stage for stage in STAGES if self.starts(stage)]

    def states(self):
        found = json.loads(self.call("status", self.run_folder, "--json").stdout)
        return {row["stage"]: row["state"] for row in found["stages"]}

    def submitted(self):
        file = self.queue / "submitted"
        return re.findall(r"/([a-z-]+)\.sbatch ", file.read_text()) if file.exists() else []

    def job_state(self, job):
        """Of a job, or of all tasks of an array together."""
        states = {file.read_text().split()[0] for file in (self.queue / "jobs").iterdir() if job in (file.name, file.name.split("_")[0])}
        return "COMPLETED" if states == {"COMPLETED"} else "/".join(sorted(states))

    def run_jobs(self, only=""):
        """What Slurm would do: every pending job whose parents are complete runs; others are cancelled."""
        for file in sorted((self.queue / "jobs").iterdir()):
            state, token, after = file.read_text().split()
            if state != "PENDING" or not file.name.startswith(only):
                continue
            parents = [] if after == "-" else after.split(":")[1:]
            if any(self.job_state(parent) != "COMPLETED" for parent in parents):
                file.write_text(f"CANCELLED {token} {after}\n")
                continue
            submission, stage = token.rsplit("/", 1)
            job, _, task = file.name.partition("_")
            environment = {**self.environment, "SLURM_JOB_ID": job, "SLURM_NTASKS": "4", "ASTROCLIP_HOME": str(ROOT),
                           "ASTROCLIP_SUBMISSION": submission,
                           **({"SLURM_ARRAY_JOB_ID": job, "SLURM_ARRAY_TASK_ID": task} if task else {})}
            done = subprocess.run(["bash", ROOT / "slurm" / f"{stage}.sbatch", self.run_folder], env=environment,
                                  capture_output=True, check=False)
            file.write_text(f"{'FAILED' if done.returncode else 'COMPLETED'} {token} {after}\n")


class Local(Driver):
    def test_runs_every_stage_in_order_with_paths_ranks_and_threads(self):
        self.local()
        self.assertEqual(self.started(), list(STAGES))
        self.assertTrue(all(state == "complete" for state in self.states().values()))
        run = self.run_folder
        self.assertIn(f"--image-encoder {run}/image-encoder --spectrum-encoder {run}/spectrum-encoder "
                      f"--output {run}/aligned", self.starts("align")[0])
        log = next((run / "logs").glob("align-local-*.log")).read_text()
        self.assertRegex(log, r"'-n' '2'")
        self.assertRegex(log, r"'OMP_NUM_THREADS=\d+'")
        self.assertIn("SUCCESS", log)

    def test_second_call_leaves_it_to_the_stages_to_say_that_they_are_done(self):
        self.local()
        manifest = (self.run_folder / "aligned" / "manifest.json").read_text()
        self.local()
        self.assertEqual((self.run_folder / "aligned" / "manifest.json").read_text(), manifest)

    def test_repeats_io_errors_and_lost_ranks_twice_and_no_more(self):
        for word, tries, code in (("74 ok", 2, 0), ("69 69 ok", 3, 0), ("74 69 74 ok", 3, 74), ("silent:137 ok", 2, 0), ("silent:0 ok", 2, 0)):
            with self.subTest(word):
                (self.plan / "match").write_text(word + "\n")
                self.forget_starts()
                self.local("--until", "match", "--force", expect=code)
                self.assertEqual(len(self.starts("match")), tries)

    def test_never_repeats_what_a_person_must_mend(self):
        for code in (64, 65, 66, 70, 73, 76):
            with self.subTest(code):
                (self.plan / "match").write_text(f"{code}\n")
                self.forget_starts()
                done = self.local("--until", "pretrain-image", expect=code)
                self.assertEqual(len(self.starts("match")), 1)
                self.assertEqual(self.starts("pretrain-image"), [])
                self.assertIn("made to fail", done.stderr)
                self.assertEqual(self.states()["match"], "failed")

    def test_goes_on_after_a_stop_while_there_is_progress(self):
        (self.plan / "align").write_text("stop:1 stop:2 stop:3 stop:4 stop:5 ok\n")
        self.local()
        self.assertEqual(len(self.starts("align")), 6)
        (self.plan / "align").write_text("stop:3\n")
        self.forget_starts()
        self.local("--from", "align", expect=75)
        self.assertEqual(len(self.starts("align")), 3)  # the first and two that got no further

    def test_from_makes_a_stage_and_its_followers_anew_once(self):
        self.local()
        self.forget_starts()
        (self.plan / "embed").write_text("65 ok\n")
        self.local("--from", "align", expect=65)
        self.assertEqual(self.started(), ["align", "embed"])
        self.assertIn("--redo", self.starts("align")[0])
        self.forget_starts()
        self.local()  # goes on: align stays, those which were still to be made anew are
        self.assertNotIn("--redo", self.starts("align")[0])
        self.assertIn("--redo", self.starts("search")[0])
        self.forget_starts()
        self.local()
        self.assertFalse(any("--redo" in self.starts(stage)[0] for stage in STAGES))

    def test_repeating_a_stage_that_is_made_anew_asks_by_the_same_word(self):
        self.local("--until", "pretrain-image")
        self.forget_starts()
        (self.plan / "pretrain-image").write_text("stop:1 stop:2 ok\n")
        self.local("--from", "pretrain-image", "--until", "pretrain-image")
        words = [line.split("--redo ")[1] for line in self.starts("pretrain-image")]
        self.assertEqual((len(words), len(set(words))), (3, 1))

    def test_only_and_until(self):
        self.local("--until", "match")
        self.assertEqual(self.started(), ["ingest-images", "ingest-spectra", "match"])
        self.forget_starts()
        self.local("--only", "match")
        self.assertEqual(self.started(), ["match"])
        done = self.local("--only", "embed", expect=66)
        self.assertIn("aligned, which is not complete", done.stderr)

    def test_a_model_from_elsewhere_needs_no_training(self):
        self.local("--set", "embed.model=/data/published")
        self.assertEqual(self.started(), ["ingest-images", "ingest-spectra", "match", "embed", "search", "evaluate"])
        self.assertNotIn("--model", self.starts("embed")[0])
        self.assertIn("model = /data/published", (self.run_folder / "config.cfg").read_text())

    def test_wrong_words_are_refused_by_name_before_anything_runs(self):
        cases = {("--from", "alin"): "did you mean 'align'", ("--set", "alin.k=1"): "did you mean 'align'",
                 ("--set", "run.ranks=0"): "ranks", ("--only", "match", "--until", "match"): "--only"}
        for arguments, words in cases.items():
            self.assertIn(words, self.local(*arguments, expect=64).stderr)
        self.config.write_text("[run]\nslurm-tim = 1\n")
        self.assertIn("did you mean 'slurm-time'", self.local(expect=64).stderr)
        self.config.write_text("[alignn]\n")
        self.assertIn("a.cfg:1: unknown section [alignn]", self.local(expect=64).stderr)
        for name in ("a b", "a$(id)", "a;b", "a'b"):
            self.call("submit", "--config", self.config, "--run", f"{self.run_folder}{name}", "--local", expect=64)
        self.assertFalse(self.run_folder.exists())

    def test_a_wrong_key_of_the_last_stage_shows_at_once(self):
        (self.plan / "evaluate.wrong").touch()
        self.assertIn("evaluate: unknown key", self.local(expect=64).stderr)
        self.assertEqual(self.started(), [])

    def test_a_second_driver_is_kept_out_and_cancel_stops_at_a_safe_point(self):
        (self.plan / "match").write_text("wait ok\n")
        with subprocess.Popen([sys.executable, ROOT / "slurm/submit", "--config", self.config, "--run", self.run_folder, "--local"],
                              env=self.environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as first:
            self.wait_for(self.plan / "match.ready")
            self.assertIn("in use by process", self.local(expect=73).stderr)
            self.assertEqual(self.states()["match"], "running")
            self.call("cancel", self.run_folder)
            first.communicate(timeout=120)
        self.assertEqual(first.returncode, 75)
        self.assertEqual(self.states()["match"], "stopped")
        self.local()
        self.assertEqual(self.states()["evaluate"], "complete")

    def test_a_killed_driver_leaves_the_run_locked_until_its_stage_ends(self):
        (self.plan / "match").write_text("wait ok\n")
        with subprocess.Popen([sys.executable, ROOT / "slurm/submit", "--config", self.config, "--run", self.run_folder, "--local"],
                              env=self.environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:
            self.wait_for(self.plan / "match.ready")
            script = int(Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()[0])
            first.kill()
        self.local(expect=73)
        os.killpg(script, signal.SIGKILL)
        self.wait_until(lambda: self.states()["match"] != "running")
        self.assertEqual(self.states()["match"], "lost")
        self.local()
        self.assertEqual(self.states()["match"], "complete")

    def wait_until(self, met):
        for _ in range(2400):
            if met():
                return
            time.sleep(0.05)
        self.fail("it did not come to this within two minutes")

    def wait_for(self, path):
        self.wait_until(path.exists)

    def test_site_sh_comes_first_and_an_odd_place_of_the_project_does_no_harm(self):
        home = Path(self.folder.name) / "my $(touch pwned) 'home'"
        shutil.copytree(ROOT / "slurm", home / "slurm")
        site = Path(self.folder.name) / "a site.sh"
        site.write_text(f"export ASTROCLIP_PYTHON={sys.executable} FROM_SITE=1\necho from the site\n")
        del self.environment["ASTROCLIP_PYTHON"]
        self.environment["ASTROCLIP_SITE"] = str(site)
        done = subprocess.run([sys.executable, home / "slurm/submit", "--config", self.config, "--run", self.run_folder, "--local", "--until", "match"],
                              env=self.environment, capture_output=True, text=True, check=False, cwd=self.folder.name)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("from the site", done.stderr)
        self.assertEqual(list(Path(self.folder.name).rglob("pwned")), [])
        site.unlink()
        self.assertIn("cannot be read", self.local("--from", "match", "--until", "match", expect=64).stderr)

    def test_output_folders_are_striped_where_there_is_lustre(self):
        self.write_program(Path(self.environment["PATH"].split(":")[0]) / "lfs", '#!/bin/bash\necho "$*" >>"$PLAN/lfs"\n')
        self.local("--until", "match", "--set", "ingest-images.lustre-stripe=8")
        self.assertEqual((self.plan / "lfs").read_text(), f"setstripe -c 8 {self.run_folder}/images\n")

    def test_status_watches_until_nothing_runs(self):
        (self.plan / "match").write_text("wait\n")
        with subprocess.Popen([sys.executable, ROOT / "slurm/submit", "--config", self.config, "--run", self.run_folder, "--local"],
                              env=self.environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as first:
            self.wait_for(self.plan / "match.ready")
            with subprocess.Popen([sys.executable, ROOT / "slurm/status", self.run_folder, "--watch", "0.2"], env=self.environment,
                                  stdout=subprocess.PIPE, text=True) as watch:
                shown = ""
                while not re.search(r"match +running .*w 1/9", shown):
                    line = watch.stdout.readline()
                    self.assertTrue(line, shown)
                    shown += line
                first.terminate()
                shown += watch.stdout.read()
            first.wait(timeout=120)
        self.assertGreater(shown.count("\nmatch "), 1)
        self.assertRegex(shown, r"match +running .*w 1/9 steps \(11 %\)")
        self.assertRegex(shown, rf"\nmatch: running\n  log: {self.run_folder}/logs/match-local-\d+.log\n")
        self.assertRegex(shown.rsplit("ingest-images", 1)[1], r"match +stopped")

    def test_reads_every_configuration_of_the_project(self):
        for config in sorted((ROOT / "configs").glob("*.cfg")):
            Config.read(config)

    def test_folders_with_names_become_absolute(self):
        self.config.write_text("[evaluate]\ncompare = Stein=a/b,Dino=/c\nsupervised = no name\n", encoding="utf-8")
        found = Config.read(self.config)
        found.resolve()
        self.assertEqual(found.section("evaluate"), {"compare": f"Stein={os.getcwd()}/a/b,Dino=/c", "supervised": "no name"})

    def test_dry_run_prints_the_commands_and_writes_nothing(self):
        done = self.submit("--dry-run", "--local")
        self.assertIn(f"--pairs {self.run_folder}/pairs", done.stdout)
        self.assertIn("of memory a rank", done.stdout)
        self.assertFalse(self.run_folder.exists())
        self.local("--until", "match")
        done = self.submit("--dry-run", "--only", "match")
        self.assertIn("the stage's own plan", done.stdout)
        self.assertIn("sbatch --parsable", done.stdout)


class Slurm(Driver):
    def test_submits_the_graph_once_with_its_resources(self):
        self.submit()
        self.assertEqual(self.submitted(), list(STAGES))
        lines = dict(zip(STAGES, (self.queue / "submitted").read_text().splitlines()))
        self.assertIn("--gpus-per-node=4 --time=01:00:00", lines["align"])
        self.assertNotIn("gpus", lines["match"])
        self.assertIn("--dependency=afterok:101:102 --kill-on-invalid-dep=yes", lines["match"])
        self.assertIn("afterok:101:102:103:104:105", lines["align"])
        self.submit()
        self.assertEqual(len(self.submitted()), 9)
        self.assertEqual(set(self.states().values()), {"queued"})
        self.submit("--from", "align", expect=73)
        self.submit("--set", "align.steps=5", expect=73)
        self.local(expect=73)

    def test_a_job_inherits_nothing_of_the_job_in_which_submit_was_called(self):
        self.environment.update(SLURM_JOB_ID="7", SLURM_NTASKS="9", SLURM_MEM_PER_NODE="100", SLURM_CONF="/etc/slurm/slurm.conf")
        self.submit("--only", "ingest-images")
        self.assertEqual((self.queue / "handed-on").read_text(), "SLURM_CONF=/etc/slurm/slurm.conf\n")

    def test_runs_to_the_end_and_then_has_nothing_to_do(self):
        self.submit()
        self.run_jobs()
        self.assertEqual(set(self.states().values()), {"complete"})
        self.submit()
        self.assertEqual(len(self.submitted()), 9)
        self.submit("--set", "align.steps=5")
        self.assertEqual(self.submitted()[9:], ["align", "embed", "search", "evaluate"])

    def test_a_failed_stage_blocks_its_followers_and_submit_goes_on_from_it(self):
        (self.plan / "pretrain-image").write_text("65 ok\n")
        self.submit()
        self.run_jobs()
        states = self.states()
        self.assertEqual((states["pretrain-image"], states["align"], states["pretrain-spectrum"]),
                         ("failed", "blocked", "complete"))
        self.submit()
        self.assertEqual(self.submitted()[9:], ["pretrain-image", "align", "embed", "search", "evaluate"])
        self.run_jobs()
        self.assertEqual(set(self.states().values()), {"complete"})

    def test_a_stage_that_stops_requeues_its_own_job(self):
        (self.plan / "match").write_text("stop:1\n")
        self.submit("--until", "match")
        self.run_jobs()
        self.assertEqual(set((self.queue / "requeued").read_text().splitlines()), {"requeue 103"})

    def test_only_the_jobs_that_still_wait_are_given_as_dependencies(self):
        self.submit("--until", "match")
        self.run_jobs()
        for job in (self.queue / "jobs").iterdir():
            job.unlink()  # Slurm has forgotten them
        (self.queue / "jobs" / "101").write_text("COMPLETED other -\n")
        self.submit("--until", "pretrain-image")
        self.assertEqual(self.submitted()[3:], ["pretrain-image"])
        self.assertNotIn("afterok", (self.queue / "submitted").read_text().splitlines()[3])

    def test_a_number_that_slurm_gave_again_to_a_job_of_another_run_is_not_taken_for_ours(self):
        self.submit("--until", "match")
        token = "2026-01-01T00:00:00Z-0123abcd/align"
        for number in (101, 102, 103):  # the controller lost its state, and counts anew
            (self.queue / f"jobs/{number}").write_text(f"RUNNING {token} -\n")
        self.assertEqual((self.states()["ingest-images"], self.states()["match"]), ("lost", "blocked"))
        self.submit("--until", "match")
        self.assertEqual(len(self.submitted()), 6)

    def test_jobs_that_slurm_holds_since_their_launch_failed_are_released(self):
        self.submit("--until", "match")
        (self.queue / "reason").write_text("JobHeldUser\n")
        self.submit("--until", "match")
        self.assertFalse((self.queue / "released").exists(), "a hold of the user's own")
        (self.queue / "reason").write_text("launch failed requeued held\n")
        self.assertIn("submit releases it", self.call("status", self.run_folder).stdout)
        self.submit("--until", "match")
        self.assertEqual((self.queue / "released").read_text().split(), ["101", "102", "103"])

    def test_no_stage_is_lost_or_submitted_twice_whichever_call_fails(self):
        for way in ("fail", "mute"):
            for first in range(1, 14, 3):
                with self.subTest(way=way, first=first):
                    self.setUp()
                    (self.queue / way).write_text(" ".join(str(first + i) for i in range(3)))
                    done = subprocess.run([sys.executable, ROOT / "slurm/submit", "--config", self.config, "--run", self.run_folder],
                                          env=self.environment, capture_output=True, check=False)
                    self.assertIn(done.returncode, (0, 69))
                    (self.queue / way).unlink()
                    self.submit()
                    self.assertEqual(sorted(self.submitted()), sorted(STAGES))

    def test_a_silent_queue_is_unknown_and_nothing_is_submitted(self):
        self.submit("--until", "match")
        (self.queue / "fail").write_text(" ".join(map(str, range(100))))
        self.assertEqual(self.states()["match"], "unknown")
        self.submit(expect=69)

    def test_a_job_array_fills_one_store_and_a_lost_task_is_run_again_alone(self):
        self.config.write_text("[run]\nranks = 2\n[ingest-images]\nshards = 4\n")
        (self.plan / "ingest-images.2").write_text("65 ok\n")
        self.submit("--until", "match")
        lines = (self.queue / "submitted").read_text().splitlines()
        self.assertRegex(lines[0], r"--output=\S+-%A_%a.log .*--array=0-3 ")
        self.assertIn("--dependency=afterok:101:102 ", lines[2])
        self.run_jobs("101")
        self.assertEqual(self.starts("ingest-images")[1].split("--threads 1 ")[1], "--shards 4 --shard 1")
        row = json.loads(self.call("status", self.run_folder, "--json").stdout)["stages"][0]
        self.assertEqual((row["state"], row["shards"], row["tasks"][2]["state"]), ("failed", "1 failed, 3 complete", "failed"))
        self.submit("--until", "match")  # match waits still, for the array that failed: now for what is submitted in place
        lines = (self.queue / "submitted").read_text().splitlines()
        self.assertEqual(len(lines), 4)
        self.assertIn("--array=2 ", lines[3])
        self.assertEqual((self.queue / "jobs/103").read_text().split()[2], "afterok:104:102")
        self.run_jobs("102")
        self.run_jobs("104")
        self.run_jobs()
        self.assertEqual((self.states()["ingest-images"], self.states()["match"]), ("complete", "complete"))
        self.assertEqual(len(self.starts("ingest-images")), 5)
        self.submit("--until", "match")
        self.assertEqual(len((self.queue / "submitted").read_text().splitlines()), 4)
        self.submit("--until", "match", "--from", "ingest-images")
        self.run_jobs()
        self.assertEqual(len(self.starts("ingest-images")), 9)
        self.assertEqual(set(self.states().values()), {"complete", "-"})
        self.assertEqual(json.loads((self.run_folder / "workflow.json").read_text())["stages"]["ingest-images"]["jobs"], ["101", "104", "105"])

    def test_keys_of_the_driver_become_options_of_sbatch_and_the_launcher(self):
        self.config.write_text("[run]\nslurm-extra = --nice=10 --mail-type='END,FAIL x'\nlauncher = srun\nbinding = core\n")
        self.submit("--only", "ingest-images")
        self.assertIn("--nice=10 --mail-type=END,FAIL x --job-name=ingest-images", (self.queue / "submitted").read_text())
        self.assertIn("srun --mpi=pmix --kill-on-bad-exit=1 --cpu-bind=cores", self.submit("--dry-run").stdout)
        self.assertIn("--map-by slot:PE=1 --bind-to core", self.submit("--dry-run", "--set", "run.launcher=mpirun").stdout)
        for setting, word in (("match.launcher=prun", "mpirun or srun"), ("match.shards=2", "one job alone"),
                              ("embed.shards=0", ">= 1"), ("align.slurm-gpus-per-task=1", "gpus-per-node"), ("run.slurm-extra='", "quotation")):
            self.assertIn(word, self.submit("--set", setting, "--dry-run", expect=64).stderr)

    def test_a_stage_that_is_just_stopping_goes_on_after_submit(self):
        self.submit("--until", "match")
        job = self.queue / "jobs/103"
        job.write_text(f"RUNNING {job.read_text().split()[1]} -\n")
        self.call("cancel", self.run_folder)
        self.assertTrue(list(self.run_folder.rglob("match.stop")))
        job.write_text(f"RUNNING {job.read_text().split()[1]} -\n")  # its checkpoint takes a while
        self.submit("--until", "match")
        self.assertFalse(list(self.run_folder.rglob("match.stop")))

    def test_cancel(self):
        self.submit()
        self.call("cancel", self.run_folder)
        self.assertEqual(len((self.queue / "cancelled").read_text().split()), 9)
        self.assertEqual(self.states()["match"], "cancelled")
        self.submit("--until", "match")
        self.assertEqual(len(self.submitted()), 12)
        self.assertEqual((self.states()["match"], self.states()["align"]), ("queued", "cancelled"))
        self.submit()
        self.assertEqual(len(self.submitted()), 18)


if __name__ == "__main__":
    unittest.main()
