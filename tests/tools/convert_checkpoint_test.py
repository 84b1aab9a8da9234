#!/usr/bin/python3
"""tools/convert_checkpoint.py on checkpoints that this test writes, with the names and values of small published networks
(tests/data/nn) and of the SpecFormer in its published size.

usage: convert_checkpoint_test.py FOLDER, where the converted SpecFormer stays, for tools/converted_specformer.
"""

import contextlib
import io
import json
import os
import pathlib
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import torch_archive
from published import filled, lightning, published_state, read_safetensors, resnet_state, saved, teacher, uniform
from torch_archive import Parameter, Storage, View, stand_in, tensor

HOME = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(HOME / "tools"))
import convert_checkpoint  # noqa: E402

BIN = pathlib.Path(os.environ.get("ASTROCLIP_BIN", HOME / "build/bin"))
FOLDER = pathlib.Path(sys.argv.pop(1)).resolve()
SPECFORMER = {"input_dim": 22, "embed_dim": 768, "num_layers": 6, "num_heads": 6, "max_len": 800, "mask_num_chunks": 6,
              "mask_chunk_width": 50, "slice_section_length": 20, "slice_overlap": 10, "dropout": 0.0, "norm_first": False}


def same_bits(a, b):
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and a[name].shape == b[name].shape and
                                        a[name].tobytes() == b[name].tobytes() for name in a)


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.checkpoint, self.model = self.folder / "some.ckpt", self.folder / "model"

    def run_tool(self, *words, code=0):
        """What the tool said, which ended with this code. In this process: a new one costs more than a small conversion."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            found = convert_checkpoint.main([str(word) for word in words])
        self.assertEqual(found, code, said.getvalue())
        return said.getvalue()

    def converted(self, content, *options):
        """(metadata, tensors, what was said) of the model that a checkpoint with this content becomes."""
        torch_archive.save(self.checkpoint, content)
        shutil.rmtree(self.model, ignore_errors=True)
        said = self.run_tool(self.checkpoint, self.model, *options)
        subprocess.run([BIN / "astroclip-check", "--quiet", self.model], check=True)
        return *read_safetensors(self.model / "model.safetensors"), said

    def refused(self, content, *words, code=65, options=()):
        """Refused with all these words, and nothing is published."""
        if content is not None:
            torch_archive.save(self.checkpoint, content)
        said = self.run_tool(self.checkpoint, self.model, *options, code=code)
        for word in words:
            self.assertIn(word, said)
        self.assertFalse((self.model / "manifest.json").exists())


class Models(Case):
    """Each of the published checkpoints becomes a model under its own names, with the same values."""

    def test_specformer(self):
        state, config = published_state("specformer")
        metadata, tensors, _ = self.converted(lightning(saved(state), config["model"]))
        self.assertTrue(same_bits(tensors, state))
        for key, value in {"model": "specformer", "variant": "paper", "embed_dim": "24", "num_heads": "3", "num_layers": "2",
                           "max_len": "64", "input_dim": "22", "mask_chunk_width": "4", "dropout": "0.0", "std_ddof": "1",
                           "std_min": "0.2", "slice_section_length": "20", "source_file": "some.ckpt"}.items():
            self.assertEqual(metadata[key], value, key)
        digest = subprocess.run(["sha256sum", self.checkpoint], capture_output=True, text=True, check=True).stdout.split()[0]
        self.assertEqual(metadata["source_sha256"], digest)
        source = json.loads((self.model / "manifest.json").read_text())["content"]["source"]
        self.assertEqual((source["sha256"], source["global_step"], source["hyper_parameters"]["num_heads"]), (digest, 30000, 3))

    def test_hyper_parameters_of_any_kind_leave_a_model_that_is_read(self):
        state, config = published_state("specformer")
        awkward = {"text": "\ud800" * 3000, "number": 10**5000, "nan": float("nan"), "dropout": float("inf"), "\udcff": None}
        metadata, _, _ = self.converted({**lightning(saved(state), {**config["model"], **awkward}), "sha256": "of another", 5: 6})
        self.assertNotIn("dropout", metadata)
        source = json.loads((self.model / "manifest.json").read_text())["content"]["source"]
        self.assertEqual(source["sha256"], metadata["source_sha256"])

    def test_the_teacher_whatever_wraps_its_names(self):
        backbone, head = published_state("vit")[0], published_state("dino_head")[0]
        expected = backbone | {f"dino_head.{name}": values for name, values in head.items()}
        for prefix, inside in (("", ""), ("backbone.", ""), ("module.backbone.", ""), ("module.backbone.", "_fsdp_wrapped_module.")):
            metadata, tensors, _ = self.converted({"teacher": saved(teacher(backbone, head, prefix, inside))}, "--image-heads", 3)
            self.assertTrue(same_bits(tensors, expected), prefix + inside)
        for key, value in {"model": "astrodino", "img_size": "144", "patch_size": "12", "embed_dim": "36", "depth": "8",
                           "num_heads": "3", "block_chunks": "4", "crop": "144", "rgb": "asinh", "image_norm": "none"}.items():
            self.assertEqual(metadata[key], value, key)

    def test_registers_are_kept_aside(self):
        state = published_state("vit")[0]
        registers = np.ones((1, 4, 36), np.float32)
        _, tensors, said = self.converted({"teacher": saved(state | {"backbone.register_tokens": registers})}, "--image-heads", 3)
        self.assertTrue(same_bits(tensors, state | {"extra.register_tokens": registers}))
        self.assertIn("register tokens", said)

    def test_astroclip_with_classes_that_are_not_installed(self):
        state, _ = published_state("astroclip_heads")
        encoder = stand_in("astroclip.models.astroclip", "ImageHead")()
        encoder.weights, encoder.forward = tensor(np.zeros(5, np.float32)), stand_in("functools_of_theirs", "partial")
        encoder.anything = [{1, 2}, frozenset("ab"), {(1, (2, 3)): 4.5}, b"bytes", 10**30, complex(1, 2), None, True]
        options = ("--image-heads", 3, "--spectrum-heads", 3, "--image-norm", "imagenet")
        metadata, tensors, _ = self.converted(lightning(saved(state), {"image_encoder": encoder, "lr": 1e-4}), *options)
        self.assertTrue(same_bits(tensors, state))
        for key, value in {"model": "astroclip", "embed_dim": "24", "n_head": "4", "image_head_residual": "0",
                           "logit_scale": "15.5", "image.embed_dim": "24", "image.img_size": "48", "image.num_heads": "3",
                           "image.image_norm": "imagenet", "image.crop": "48", "spectrum.embed_dim": "36",
                           "spectrum.num_heads": "3", "spectrum.std_ddof": "1"}.items():
            self.assertEqual(metadata[key], value, key)

    def test_astroclip_with_a_learned_scale_and_registers(self):
        state, _ = published_state("astroclip_heads")
        more = {"logit_scale": np.float32(np.log(20)), "image_encoder.backbone.register_tokens": np.ones((1, 4, 24), np.float32)}
        metadata, tensors, said = self.converted(lightning(saved(state | more), {}), "--image-heads", 3, "--image-head-residual")
        self.assertAlmostEqual(float(metadata["logit_scale"]), 20, places=4)
        self.assertEqual(metadata["image_head_residual"], "1")
        self.assertTrue(same_bits(tensors, state | {"extra.register_tokens": np.ones((1, 4, 24), np.float32)}))
        self.assertIn("logit_scale", said)
        shutil.rmtree(self.model)
        self.refused(lightning(saved(state | {"logit_scale": np.ones(2, np.float32)}), {}), "logit_scale",
                     options=("--image-heads", 3, "--spectrum-heads", 3))

    def test_astroclip_of_another_width_has_separate_matrices_on_both_sides(self):
        state, _ = published_state("astroclip_heads")
        state = {name: values for name, values in state.items() if ".backbone." in name}
        for side, tokens in (("image_encoder", 24), ("spectrum_encoder", 36)):
            attention = f"{side}.cross_attention.multihead_attn."
            shapes = {f"{side}.cross_attention.query": (1, 1, 8), f"{attention}q_proj_weight": (8, 8),
                      f"{attention}k_proj_weight": (8, tokens), f"{attention}v_proj_weight": (8, tokens),
                      f"{attention}in_proj_bias": (24,), f"{attention}out_proj.weight": (8, 8), f"{attention}out_proj.bias": (8,),
                      f"{side}.cross_attention.layernorm.weight": (8,), f"{side}.cross_attention.layernorm.bias": (8,),
                      f"{side}.mlp.encoder.weight": (32, 8), f"{side}.mlp.encoder.bias": (32,),
                      f"{side}.mlp.decoder.weight": (8, 32), f"{side}.mlp.decoder.bias": (8,)}
            state |= {name: np.full(shape, n, np.float32) for n, (name, shape) in enumerate(shapes.items())}
        metadata, tensors, _ = self.converted(lightning(saved(state), {}), "--image-heads", 3)
        self.assertTrue(same_bits(tensors, state))
        self.assertEqual(metadata["embed_dim"], "8")

    def test_resnet50(self):
        state = resnet_state()
        self.assertEqual(len(state), 322)
        queue = {"queue": tensor(np.ones((128, 64), np.float32)), "queue_ptr": tensor(np.array([3]))}
        dropped = {"val_queue_ptr": tensor(np.array([1]))}
        metadata, tensors, said = self.converted(lightning(state | queue | dropped, {"tau": 0.2}))
        self.assertEqual(tensors.keys(), state.keys() | queue.keys())
        self.assertEqual({name: tensors[name].shape for name in state}, {name: view.layout[1] for name, view in state.items()})
        learned = [values.size for name, values in tensors.items() if name.endswith((".weight", ".bias"))]
        self.assertEqual(sum(learned), 27_966_656)
        self.assertEqual((tensors["encoder_q.bn1.num_batches_tracked"], tensors["queue_ptr"][0]), (9, 3))
        self.assertEqual([metadata[key] for key in ("model", "variant", "embed_dim", "rgb", "crop")],
                         ["resnet50", "workshop", "128", "stein", "96"])
        self.assertEqual(metadata["stem_width"], "64")
        self.assertIn("val_queue_ptr", said)

    def test_the_workshops_aligned_model(self):
        heads = published_state("astroclip_heads")[0]
        spectrum = {name: values for name, values in heads.items() if name.startswith("spectrum_encoder.")}
        width = heads["spectrum_encoder.cross_attention.query"].size
        image = {f"image_encoder.backbone.{name.removeprefix('encoder_q.')}": view for name, view in resnet_state(width, stem=2).items()}
        olden = {}
        for name, values in spectrum.items():
            for new, old in (("cross_attention.layernorm.", "norm."), ("cross_attention.", ""), ("mlp.encoder.", "linear1."),
                             ("mlp.decoder.", "linear2."), ("backbone.", "model.")):
                if name.startswith(f"spectrum_encoder.{new}"):
                    name = name.replace(new, old, 1)
                    break
            olden[name] = values
        self.assertIn("spectrum_encoder.linear2.bias", olden)
        for state in (olden, spectrum):
            metadata, tensors, _ = self.converted(lightning(image | saved(state), {}), "--spectrum-heads", 3)
            self.assertTrue(same_bits({name: tensors[name] for name in spectrum}, spectrum))
            self.assertEqual(tensors.keys(), image.keys() | spectrum.keys())
        for key, value in {"model": "astroclip", "variant": "workshop", "image.model": "resnet50", "image.rgb": "none",
                           "image.crop": "96", "image.embed_dim": str(width), "embed_dim": str(width), "spectrum.std_ddof": "0",
                           "logit_scale": "15.5"}.items():
            self.assertEqual(metadata[key], value, key)
        shutil.rmtree(self.model)
        self.refused(lightning(image | saved(olden), {}), "--image-heads", code=64, options=("--image-heads", 3))

    def test_the_workshops_transformer(self):
        state, config = published_state("specformer")
        metadata, tensors, _ = self.converted({"config": config["model"], "model": saved(state), "iter_num": 5})
        self.assertTrue(same_bits(tensors, state))
        self.assertEqual([metadata[key] for key in ("variant", "num_heads", "std_ddof", "std_min")], ["workshop", "3", "0", "0"])


class Storages(Case):
    """However the tensors lie in the file, their values are what torch would load."""

    def setUp(self):
        super().setUp()
        self.state, config = published_state("specformer")
        self.told = config["model"]

    def values(self, state):
        return self.converted(lightning(state, self.told))[1]

    def test_parameters_transposed_and_shared(self):
        flat = Storage(np.concatenate([np.zeros(3, np.float32)] + [values.reshape(-1) for values in self.state.values()]))
        shared, offset = {}, 3
        for name, values in self.state.items():
            shared[name] = View(flat, values.shape, [s // 4 for s in values.strides], offset)
            offset += values.size
        transposed = saved(self.state) | {name: View(Storage(values.T.reshape(-1)), values.shape, (1, len(values)))
                                          for name, values in self.state.items() if values.ndim == 2}
        parameters = {name: Parameter(view) for name, view in saved(self.state).items()}
        for layout in (shared, transposed, parameters):
            self.assertTrue(same_bits(self.values(layout), self.state))

    def test_half_precision_is_widened(self):
        half = {name: values.astype("<f2") for name, values in self.state.items()}
        self.assertTrue(same_bits(self.values(saved(half)), {name: values.astype("<f4") for name, values in half.items()}))
        upper = {name: (values.view("<u4") >> 16).astype("<u2") for name, values in self.state.items()}
        found = self.values({name: tensor(values, "BFloat16Storage") for name, values in upper.items()})
        self.assertTrue(same_bits(found, {name: (values.astype("<u4") << 16).view("<f4") for name, values in upper.items()}))

    def test_what_no_network_can_hold_is_refused(self):
        bias = self.state["head.bias"]
        for wrong, words in ((tensor(bias.astype("<f8")), ("head.bias", "F64")),
                             (tensor(bias.astype("<i4")), ("head.bias", "I32")),
                             (tensor(bias, "QInt8Storage"), ("head.bias", "QInt8Storage")),
                             (tensor(np.where(bias == bias[3], np.nan, bias)), ("head.bias", "not finite")),
                             (View(Storage(bias), (22,), (1,), 1), ("head.bias", "beyond")),
                             (View(Storage(bias), (22,), (2,)), ("head.bias", "beyond")),
                             (View(Storage(bias), (22,), (-1,), 21), ("head.bias", "strides")),
                             (View(Storage(bias), (22,), (1, 1)), ("head.bias", "strides")),
                             ([0.0] * 22, ("head.bias", "list"))):
            self.refused(lightning(saved(self.state) | {"head.bias": wrong}, self.told), *words)


class Strictness(Case):
    def setUp(self):
        super().setUp()
        self.state, config = published_state("specformer")
        self.told = config["model"]

    def test_missing_unexpected_and_misshaped_keys_are_named(self):
        state = dict(self.state)
        del state["blocks.1.mlp.encoder.bias"]
        state["blocks.1.mlp.encoder.scale"] = np.ones(3, np.float32)
        state["head.weight"] = state["head.weight"][:, :20]
        self.refused(lightning(saved(state), self.told), "missing (blocks.1.mlp.encoder.bias)",
                     "unexpected (blocks.1.mlp.encoder.scale)", "head.weight [22, 20], expected [22, 24]")

    def test_a_key_that_sizes_are_read_from_is_named_too(self):
        for kind, key, options in (("specformer", "data_embed.weight", ()), ("vit", "pos_embed", ("--image-heads", 3)),
                                   ("astroclip_heads", "image_encoder.cross_attention.query", ("--image-heads", 3))):
            state = published_state(kind)[0]
            del state[key]
            self.refused(saved(state), key, options=options)

    def test_a_missing_block_is_missing(self):
        state = {name: values for name, values in self.state.items() if not name.startswith("blocks.0.")}
        self.refused(lightning(saved(state), self.told), "12 missing", "blocks.0.layernorm1.weight")
        state = {name: values for name, values in self.state.items() if not name.startswith("blocks.1.")}
        self.refused(lightning(saved(state), self.told), "12 missing", "blocks.1.layernorm1.weight")

    def test_hyper_parameters_that_contradict_are_refused(self):
        self.refused(lightning(saved(self.state), {**self.told, "max_len": 63}),
                     "position_embed.weight [64, 24], expected [63, 24]")
        self.refused(lightning(saved(self.state), {**self.told, "num_heads": "3"}), "num_heads")
        self.refused(lightning(saved(self.state), self.told), "num_heads 3", code=64, options=("--spectrum-heads", 4))
        self.refused(lightning(saved(self.state), {}), "--spectrum-heads", code=64, options=("--spectrum-heads", 5))

    def test_a_separate_ibot_head_and_two_names_for_one_tensor_are_refused(self):
        state = published_state("vit")[0]
        self.refused({"teacher": saved(state | {"ibot_head.mlp.0.bias": np.ones(3, np.float32)})}, "ibot_head.mlp.0.bias",
                     options=("--image-heads", 3))
        self.refused({"teacher": saved(state | {"backbone.norm.bias": state["norm.bias"]})}, "norm.bias")

    def test_what_is_no_checkpoint_is_refused(self):
        self.refused({"state_dict": saved({"layer.weight": np.ones(3, np.float32)})}, "layer.weight")
        self.refused([1, 2], "dictionary")
        self.refused({"state_dict": {}}, "state_dict")
        for wrong in (b"", b"not a zip archive", pickle.dumps({"state_dict": {}})):
            self.checkpoint.write_bytes(wrong)
            self.refused(None, "zip archive")
        self.checkpoint.unlink()
        self.refused(None, "some.ckpt", code=66)

    def test_options_that_say_nothing_are_refused(self):
        self.refused(lightning(saved(self.state), self.told), "--rgb", code=64, options=("--rgb", "asinh"))
        self.refused(lightning(saved(self.state), self.told), "layout", code=64, options=("--published-layout",))


class Damage(Case):
    def setUp(self):
        super().setUp()
        state, config = published_state("specformer")
        torch_archive.save(self.checkpoint, lightning(saved(state), config["model"]))
        self.whole = self.checkpoint.read_bytes()

    def test_a_truncated_file_is_refused(self):
        for share in (0.1, 0.5, 0.9, 0.999):
            self.checkpoint.write_bytes(self.whole[:int(share * len(self.whole))])
            self.refused(None, "some.ckpt")

    def test_a_changed_byte_is_refused(self):
        at = self.whole.index(b"archive/data/3") + 100
        self.checkpoint.write_bytes(self.whole[:at] + bytes([self.whole[at] ^ 1]) + self.whole[at + 1:])
        self.refused(None, "damaged")

    def test_a_damaged_pickle_is_refused(self):
        for program in (b"", b"\x80\x02", b"\x80\x02}", b".", b"\x80\x02u.", b"\x80\x02(.", b"\x80\x02h\x05.", b"\x80\x02\x82\x01.",
                        b"\x80\x02]K\x01s.", b"}(K\x01u.", b"\x80\x02X\xff\xff\xff\xffa."):
            torch_archive.save_program(self.checkpoint, program)
            self.refused(None, "data.pkl")

    def test_deep_nesting_is_no_crash(self):
        torch_archive.save_program(self.checkpoint, b"\x80\x02}(" + b")" + b"\x85" * 500_000 + b"K\x01u.")
        self.refused(None, "dictionary of tensors")


class Malice(Case):
    """Nothing that a file asks for is imported or called."""

    def setUp(self):
        super().setUp()
        self.mark = self.folder / "was-executed"
        self.command = f"touch {self.mark}".encode()
        self.state, config = published_state("specformer")
        self.told = config["model"]

    def tearDown(self):
        self.assertFalse(self.mark.exists())

    class Calls:
        def __init__(self, function, *arguments):
            self.reduced = function, arguments

        def __reduce__(self):
            return self.reduced

    def test_a_call_in_the_place_of_a_tensor_is_refused(self):
        call = self.Calls(os.system, self.command.decode())
        self.refused(lightning(saved(self.state) | {"head.bias": call}, self.told), "head.bias", "posix.system")
        self.refused({"state_dict": call}, "state_dict")
        self.refused(call, "dictionary")
        self.refused(lightning(saved(self.state) | {"head.bias": View(call, (22,), (1,))}, self.told), "head.bias", "storage")

    def test_a_call_elsewhere_is_not_executed(self):
        calls = [self.Calls(os.system, self.command.decode()), self.Calls(eval, f"open({str(self.mark)!r}, 'w')"),
                 self.Calls(exec, f"open({str(self.mark)!r}, 'w')"), self.Calls(subprocess.check_call, ["touch", str(self.mark)])]
        _, tensors, _ = self.converted(lightning(saved(self.state), {**self.told, "calls": calls}))
        self.assertTrue(same_bits(tensors, self.state))

    def test_no_opcode_executes(self):
        command, name = b"X" + struct.pack("<I", len(self.command)) + self.command, b"cposix\nsystem\n"
        for program in (b"(" + command + b"iposix\nsystem\n.",  # INST
                        b"(" + name + command + b"o.",  # OBJ
                        name + command + b"\x85R.",  # REDUCE
                        name + command + b"\x85\x81.",  # NEWOBJ
                        name + command + b"\x85}\x92.",  # NEWOBJ_EX
                        b"\x8c\x05posix\x8c\x06system\x93" + command + b"\x85R.",  # STACK_GLOBAL
                        name + b")\x81" + name + command + b"\x85Rb.",  # BUILD
                        b"cbuiltins\n__import__\nX\x04\0\0\0this\x85R."):
            torch_archive.save_program(self.checkpoint, b"\x80\x04" + program)
            self.refused(None, "dictionary")


class Publishing(Case):
    def setUp(self):
        super().setUp()
        self.state, config = published_state("specformer")
        self.content = lightning(saved(self.state), config["model"])

    def test_the_program_ends_with_the_code_and_one_message(self):
        done = subprocess.run([sys.executable, HOME / "tools/convert_checkpoint.py", self.checkpoint, self.model], capture_output=True,
                              text=True, check=False)
        self.assertEqual((done.returncode, done.stdout), (66, ""))
        self.assertRegex(done.stderr, r"^convert_checkpoint: .*some\.ckpt.*\n$")

    def test_the_same_command_again_is_up_to_date_and_another_file_is_73(self):
        self.converted(self.content)
        before = (self.model / "manifest.json").read_bytes()
        self.assertIn("up to date", self.run_tool(self.checkpoint, self.model))
        torch_archive.save(self.checkpoint, {**self.content, "epoch": 5})
        self.run_tool(self.checkpoint, self.model, code=73)
        self.assertEqual((self.model / "manifest.json").read_bytes(), before)

    def test_an_interrupted_conversion_is_done_again(self):
        self.converted(self.content)
        manifest = json.loads((self.model / "manifest.json").read_text())
        (self.model / "manifest.json").unlink()
        (self.model / "model.safetensors").unlink()
        (self.model / "model.safetensors.part.local-1.0123456789abcdef").write_bytes(b"half")
        self.run_tool(self.checkpoint, self.model)
        self.assertEqual(json.loads((self.model / "manifest.json").read_text())["content_id"], manifest["content_id"])
        self.assertEqual(sorted(path.name for path in self.model.iterdir()), ["manifest.json", "model.safetensors", "request.json"])

    def test_a_folder_of_other_things_is_73(self):
        self.model.mkdir()
        (self.model / "thesis.tex").write_text("")
        self.refused(self.content, "thesis.tex", code=73)

    def test_an_existing_file_is_not_overwritten_and_a_damaged_model_is_not_exported(self):
        self.converted(self.content)
        self.run_tool(self.model, self.checkpoint, code=73)
        weights = self.model / "model.safetensors"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        self.assertIn("damaged", self.run_tool(self.checkpoint, self.model, code=65))
        self.assertIn("damaged", self.run_tool(self.model, self.folder / "back.pt", code=65))
        (self.model / "manifest.json").unlink()
        self.run_tool(self.model, self.folder / "back.pt", code=66)


class Back(Case):
    """A model as a file for torch.load, in the same bits."""

    def back(self, *options):
        path = self.folder / "back.pt"
        path.unlink(missing_ok=True)
        self.run_tool(self.model, path, *options)
        return torch_archive.load(path)

    def test_every_kind_comes_back_in_the_same_bits(self):
        vit = published_state("vit")[0] | {f"dino_head.{name}": values for name, values in published_state("dino_head")[0].items()}
        for state, options in ((published_state("specformer")[0], ("--spectrum-heads", 3)),
                               (vit | {"register_tokens": np.ones((1, 4, 36), np.float32)}, ("--image-heads", 3)),
                               (published_state("astroclip_heads")[0], ("--image-heads", 3))):
            self.converted(saved(state), *options)
            self.assertTrue(same_bits(self.back(), state))
            self.run_tool(self.folder / "back.pt", self.folder / "again", *options)
            self.assertTrue(same_bits(read_safetensors(self.folder / "again/model.safetensors")[1],
                                      read_safetensors(self.model / "model.safetensors")[1]))
            shutil.rmtree(self.folder / "again")

    def test_in_the_published_layout(self):
        state, config = published_state("specformer")
        self.converted(lightning(saved(state), config["model"]))
        found = self.back("--published-layout")
        self.assertTrue(same_bits(found["state_dict"], state))
        self.assertEqual(found["hyper_parameters"], config["model"])
        state = published_state("vit")[0]
        self.converted(saved(state), "--image-heads", 3)
        self.assertTrue(same_bits(self.back("--published-layout")["teacher"], {f"backbone.{name}": state[name] for name in state}))

    def test_integers_and_scalars(self):
        tensors = self.converted(resnet_state(stem=2))[1]
        self.assertTrue(same_bits(self.back(), tensors))


def specformer_shapes():
    """The 79 tensors of the published size, in the order of the state_dict."""
    shapes = {"data_embed.weight": (768, 22), "data_embed.bias": (768,), "position_embed.weight": (800, 768)}
    for i in range(6):
        for name, outputs, inputs in (("layernorm1", 768, None), ("attention.attention", 2304, 768),
                                      ("attention.projection", 768, 768), ("layernorm2", 768, None), ("mlp.encoder", 3072, 768),
                                      ("mlp.decoder", 768, 3072)):
            shapes[f"blocks.{i}.{name}.weight"] = (outputs, inputs) if inputs else (outputs,)
            shapes[f"blocks.{i}.{name}.bias"] = (outputs,)
    return shapes | {"final_layernorm.weight": (768,), "final_layernorm.bias": (768,), "head.weight": (22, 768),
                     "head.bias": (22,)}


class PublishedSize(Case):
    def test_specformer_there_and_back(self):
        np.testing.assert_allclose(uniform(5, 2), (0.27213019, 0.90827990), atol=1e-8)
        state = filled(specformer_shapes())
        torch_archive.save(self.checkpoint, lightning(saved(state), SPECFORMER))
        shutil.rmtree(FOLDER, ignore_errors=True)
        self.assertIn("specformer, 79 tensors, 43177750 values", self.run_tool(self.checkpoint, FOLDER))
        self.assertTrue(same_bits(read_safetensors(FOLDER / "model.safetensors")[1], state))
        self.run_tool(FOLDER, self.folder / "back.pt")
        self.assertTrue(same_bits(torch_archive.load(self.folder / "back.pt"), state))


if __name__ == "__main__":
    unittest.main()
