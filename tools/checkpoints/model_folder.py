"""A model as the pipeline publishes it: a folder with model.safetensors and, written last, manifest.json with its hashes."""

import ctypes
import functools
import json
import os
import re
import secrets
import struct
import subprocess
import time
from pathlib import Path

from . import safetensors
from .errors import DataError, MissingInput, OutputConflict, UsageError

STAGE = "convert-checkpoint"  # what the manifest says of who made the model
_FORMAT = {"format": "astroclip", "format_version": 1}
_HOME = Path(__file__).resolve().parents[2]
_HASH_BLOCK_BYTES = 64 << 20
_LEFTOVER = re.compile(r".+\.part\.[A-Za-z0-9_-]+\.[0-9a-f]{16}")


# --- hashes --------------------------------------------------------------------------------------------------------


class _Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


@functools.cache
def _xxh3():
    try:
        function = ctypes.CDLL("libxxhash.so.0").XXH3_128bits
    except OSError as error:
        raise UsageError(f"{error}; the hashes of the manifest need xxHash (Debian: libxxhash0)") from error
    function.argtypes, function.restype = [ctypes.c_char_p, ctypes.c_size_t], _Hash128
    return function


def digest(data):
    found = _xxh3()(data, len(data))
    return f"{found.high:016x}{found.low:016x}"


def _block_hashes(path):
    with open(path, "rb") as file:
        return [digest(block) for block in iter(lambda: file.read(_HASH_BLOCK_BYTES), b"")]


def _content_id(entries):
    words = [word for entry in entries for word in (entry["name"], str(entry["bytes"]), *entry["blocks"])]
    return digest(b"".join(struct.pack("<Q", len(word.encode())) + word.encode() for word in words))


# --- publishing ----------------------------------------------------------------------------------------------------


def publish_file(path, write):
    """`write` fills a temporary file beside `path`; then it is synced and gets its name."""
    temporary = f"{path}.part.local-{os.getpid()}.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o640)
    try:
        with open(descriptor, "w+b") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    folder = os.open(Path(path).parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def _publish_json(path, value):
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n"
    publish_file(path, lambda file: file.write(text.encode()))


def make_request(configuration, inputs):
    """What a folder is asked to hold: two requests that are equal make the same model."""
    return {"stage": STAGE, "configuration": configuration, "inputs": inputs,
            "configuration_digest": digest(json.dumps(configuration, sort_keys=True).encode())}


def begin(folder, request):
    """Makes the folder ready for this request. False if it holds the model already; OutputConflict if something else."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [path.name for path in folder.iterdir()]
    for name in filter(_LEFTOVER.fullmatch, names):
        (folder / name).unlink()
    if "manifest.json" in names:
        if _verified_manifest(folder).get("request") == request:
            return False
        raise OutputConflict(folder, "holds another model; name a new folder")
    if "request.json" in names:
        if _read_json(folder / "request.json") != request:
            raise OutputConflict(folder, "was begun with another request; name a new folder")
    elif foreign := [name for name in names if not _LEFTOVER.fullmatch(name)]:
        raise OutputConflict(folder, f"holds '{foreign[0]}', and no model; name a new folder")
    else:
        _publish_json(folder / "request.json", request)
    return True


def publish(folder, request, tensors, metadata, content):
    """Writes model.safetensors ({name: Weights}, {key: text}) and then the manifest, in a folder made ready by begin."""
    publish_file(folder / "model.safetensors", lambda file: safetensors.write(file, tensors, metadata))
    files = [{"name": "model.safetensors", "bytes": (folder / "model.safetensors").stat().st_size,
              "blocks": _block_hashes(folder / "model.safetensors")}]
    _publish_json(folder / "manifest.json",
                  {**_FORMAT, "kind": "model", "content": {"kind": "model", "metadata": metadata, **content},
                   "content_id": _content_id(files), "files": files, "request": request, "run": _run_facts()})


def _run_facts():
    """What differs from run to run."""
    found = re.search(r"project\(astroclip VERSION ([0-9.]+)", (_HOME / "CMakeLists.txt").read_text(encoding="utf-8"))
    revision = subprocess.run(["git", "-C", _HOME, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=False)
    return {"version": found[1], "revision": revision.stdout.strip() or "unknown", "host": os.uname().nodename, "ranks": 1,
            "job": f"local-{os.getpid()}", "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}


# --- reading -------------------------------------------------------------------------------------------------------


def read(folder):
    """({key: text}, {name: Weights}) of a published model, after its hashes were compared with the manifest."""
    _verified_manifest(folder)
    return safetensors.read(folder / "model.safetensors")


def _verified_manifest(folder):
    manifest = _read_manifest(folder)
    entries = {entry["name"]: entry for entry in manifest["files"]}
    path = folder / "model.safetensors"
    if path.name not in entries or not path.is_file():
        raise DataError(folder, "lists or holds no model.safetensors: it is not a model")
    if path.stat().st_size != entries[path.name]["bytes"] or _block_hashes(path) != entries[path.name]["blocks"]:
        raise DataError(path, "is damaged: it is not the file of the manifest")
    return manifest


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(path, f"is not valid JSON: {error}") from error


def _read_manifest(folder):
    path = folder / "manifest.json"
    if not path.is_file():
        raise MissingInput(folder, "has no manifest.json: it is not complete, or not a published model")
    manifest = _read_json(path)
    try:
        if {key: manifest[key] for key in _FORMAT} == _FORMAT and manifest["content_id"] == _content_id(manifest["files"]):
            return manifest
    except (LookupError, TypeError, AttributeError):
        pass
    raise DataError(path, "is not a valid manifest of this pipeline")
