"""The stages on a tiny simulated survey, for tests that run them as a user would."""
import json
import os
import pathlib
import subprocess

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ASTROCLIP_BIN", SOURCE / "build/bin"))
CONFIG = SOURCE / "tests/stages/tiny.cfg"

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


def command(stage, run, ranks=2, output=None, more=()):
    """The command line of a stage whose inputs lie in the folder `run`."""
    folder, inputs = STAGES[stage]
    line = ["mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks), BIN / f"astroclip-{stage}", "--config", CONFIG,
            "--output", output or run / folder]
    for option, name in inputs.items():
        line += [f"--{option}", run / name]
    return [str(word) for word in [*line, *more]]


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
