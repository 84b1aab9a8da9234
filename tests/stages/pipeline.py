"""The stages on a tiny simulated survey, for tests that run them as a user would."""
import filecmp
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ASTROCLIP_BIN", SOURCE / "build/bin"))
CONFIG = SOURCE / "tests/stages/tiny.cfg"
SURVEY_DATA = SOURCE / "tests/data/survey"

# stage: (output folder, {option: folder it reads})
STAGES = {
    "ingest-images": ("images", {"input": "survey/images"}),
    "ingest-spectra": ("spectra", {"input": "survey/spectra"}),
    "match": ("pairs", {"images": "images", "spectra": "spectra"}),
    "pretrain-image": ("image-encoder", {"images": "images", "pairs": "pairs"}),
    "pretrain-spectrum": ("spectrum-encoder", {"spectra": "spectra", "pairs": "pairs"}),
    "align": ("aligned", {"images": "images", "spectra": "spectra", "pairs": "pairs", "image-encoder": "image-encoder",
                          "spectrum-encoder": "spectrum-encoder"}),
    "embed": ("embeddings", {"images": "images", "spectra": "spectra", "pairs": "pairs", "model": "aligned"}),
    "search": ("search", {"embeddings": "embeddings", "pairs": "pairs"}),
    "evaluate": ("evaluation", {"embeddings": "embeddings", "images": "images", "spectra": "spectra", "pairs": "pairs",
                                "model": "aligned"}),
}
TRAININGS = ("pretrain-image", "pretrain-spectrum", "align")


def environment(**more):
    # Ranks that share cores must yield them while they wait, or they starve the one that they wait for.
    return {**os.environ, "OMP_NUM_THREADS": "1", "OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", **more}


def launcher(ranks):
    """One rank runs alone, without mpirun, which is slow to end after one that failed."""
    return ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks)] if ranks > 1 else []


def command(stage, run, ranks=2, output=None, more=()):
    """The command line of a stage whose inputs lie in the folder `run`, unless `more` names others."""
    folder, inputs = STAGES[stage]
    more = [str(word) for word in more]
    line = [*launcher(ranks), BIN / f"astroclip-{stage}", "--config", CONFIG, "--output", output or run / folder]
    for option, name in inputs.items():
        if f"--{option}" not in more:
            line += [f"--{option}", run / name]
    return [*map(str, line), *more]


def call(line, code=0, **options):
    """Runs a command that must end with `code`; its standard output."""
    done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
                          env=environment(), **options)
    assert done.returncode == code, f"{' '.join(line)} ended with {done.returncode}, expected {code}:\n{done.stderr}"
    return done.stdout


def simulate(run):
    call([str(BIN / "astroclip-simulate"), "--config", str(CONFIG), "--output", str(run / "survey")])


def run_until(run, last="evaluate", ranks=2):
    """Simulates and runs the stages up to `last`; what is complete stays."""
    simulate(run)
    for stage in STAGES:
        call(command(stage, run, ranks))
        if stage == last:
            return


def digest(folder):
    """One hash of the contents of a published folder."""
    return call([str(BIN / "astroclip-check"), "--digest", str(folder)]).strip()


def losses(folder):
    """Loss by step, from metrics.jsonl."""
    curve = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "loss" in row and "step" in row:
            curve[row["step"]] = row["loss"]
    return curve


class StoreTest(unittest.TestCase):
    """Runs stages that make a store of survey files, in a folder of its own."""

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def line(self, stage, ranks, output, more):
        return [*launcher(ranks), str(BIN / f"astroclip-{stage}"), "--output", str(output), *map(str, more)]

    def ingest(self, stage, *more, name="store", ranks=1):
        """Rows and rejects by reason of what the stage published."""
        output = self.folder / name
        call(self.line(stage, ranks, output, more))
        manifest = json.loads((output / "manifest.json").read_text())["content"]
        reasons = manifest["rejects"]["reasons"]
        return manifest["rows"], {reason: kinds["selection"] + kinds["damage"] for reason, kinds in reasons.items()}

    def refused(self, code, words, stage, *more, ranks=(1, 3)):
        for number in ranks:
            done = subprocess.run(self.line(stage, number, self.folder / f"refused-{number}", more), capture_output=True, text=True,
                                  stdin=subprocess.DEVNULL, env=environment(), timeout=300)
            messages = [text for text in done.stderr.splitlines() if f"astroclip-{stage} failed" in text]
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertEqual(len(messages), 1, done.stderr)
            for word in words:
                self.assertIn(word, messages[0])

    def same_parts(self, first, second):
        names = sorted(path.name for path in (self.folder / first).glob("part-*.h5"))
        self.assertTrue(names)
        self.assertEqual(names, sorted(path.name for path in (self.folder / second).glob("part-*.h5")))
        for name in names:
            self.assertTrue(filecmp.cmp(self.folder / first / name, self.folder / second / name, shallow=False), name)
