"""Holds npgemma against transformers on a released checkpoint: says the first tensor that differs, or that none does.

    python tools/golden/check_checkpoint.py FOLDER [IMAGE] [PROMPT] [--dtype float32]
    python tools/golden/check_checkpoint.py FOLDER --theirs OTHER        transformers reads another folder

transformers runs first, as it is, but for its weights: each lies in the file until its module is called, and is let
go behind it.  What modules give is written to disk as it comes.  Then npgemma maps the file, and judges one operation
after the other on transformers' own inputs.  So neither model is ever whole in memory: the largest things there are
the embedding table in the numbers of the run, and the logits.  Exit code 0 where nothing differs, 3 where something
does.
"""

import argparse
import contextlib
import gc
import pathlib
import resource
import sys
import tempfile

import export_port
import torch
from safetensors import safe_open
from torch import nn
from transformers import AutoConfig, PaliGemmaForConditionalGeneration

from npgemma import cli
from npgemma.base.elsewhere import keys, layout_of, ours_by_key
from npgemma.checkpoints.hf_config import read_config
from npgemma.judge.raw import RawFolder

KINDS = {torch.bfloat16: "bf16", torch.float32: "f32"}


def main():
    args = parsed()
    words = [word for word in (args.image, args.prompt) if word is not None]
    words += ["--ids", args.ids] if args.ids else []
    # As stored, whatever is computed with: widening a file of 16 bits would take its size twice.
    model = ["--model", str(args.folder), "--dtype", "bfloat16"]
    recipe = "bf16-hf-eager" if args.dtype == "bfloat16" else "float32"
    with tempfile.TemporaryDirectory(dir=args.scratch) as place:
        trace, port = (str(pathlib.Path(place) / name) for name in ("question.safetensors", "port"))
        if code := cli.main(["trace", *words, *model, "--only", "pixels,ids", "--quiet", "-o", trace]):
            return code
        run_transformers(args.theirs or args.folder, export_port.question_of(trace), args.dtype, port)
        tell("transformers")
        code = cli.main(["compare", port, *words, *model, "--recipe", recipe])
        tell("npgemma")
        return code


def parsed():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("image", nargs="?")
    parser.add_argument("prompt", nargs="?")
    parser.add_argument("--ids", help="instead of a prompt, all its ids (no tokenizer)")
    parser.add_argument("--theirs", type=pathlib.Path, help="the folder that transformers reads, if not the same")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--scratch", help="where to write transformers' tensors, 1 to 3 GB")
    return parser.parse_args()


def tell(who):
    """Say how much memory was needed so far, of it what is no mapped file."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{who} is done; memory at its highest {peak:.2f} GB, mapped files included", file=sys.stderr)


def run_transformers(folder, question, dtype, port):
    """Run it with weights that come and go, and write what its modules give into a folder of raw tensors."""
    kind = getattr(torch, dtype)
    config = AutoConfig.from_pretrained(folder)
    config._attn_implementation = "eager"
    torch.set_default_dtype(kind)  # as from_pretrained does while it builds
    try:
        with without_weights():
            model = PaliGemmaForConditionalGeneration(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    found = Written(RawFolder(port, with_npy=False))
    export_port.hook_everything(model, found)
    bring_weights(model, Stored(folder, kind))
    found["lm_head"] = export_port.ask(model, question, kind)
    found.folder.finish()
    del model
    gc.collect()


@contextlib.contextmanager
def without_weights():
    """Modules that are made meanwhile have parameters without numbers; buffers are made as ever."""
    right = nn.Module.register_parameter

    def empty(module, name, parameter):
        bare = None if parameter is None else nn.Parameter(parameter.to("meta"), requires_grad=False)
        right(module, name, bare)

    nn.Module.register_parameter = empty
    try:
        yield
    finally:
        nn.Module.register_parameter = right


class Stored:
    """The parameters of transformers' modules, read from the files of a folder one at a time."""

    def __init__(self, folder, kind):
        cfg, self.kind = read_config(folder), kind
        self.files = [safe_open(path, "pt") for path in sorted(pathlib.Path(folder).glob("*.safetensors"))]
        self.file_of = {key: file for file in self.files for key in file.keys()}
        stored = keys(cfg, layout_of(self.file_of, cfg))
        self.key_of = {module: stored[ours] for module, ours in ours_by_key(cfg).items()}
        self.key_of["lm_head.weight"] = stored["text.embedded.weight"]

    def __getitem__(self, name):
        key = self.key_of[name]
        return self.file_of[key].get_tensor(key).to(self.kind)


def bring_weights(model, stored):
    """Give each module its own parameters when it is called, and take them away behind it."""

    def bring(module, _):
        for name, bare in list(module._parameters.items()):
            if bare is not None:
                module._parameters[name] = nn.Parameter(stored[f"{module.full_name}.{name}"], requires_grad=False)

    def take_away(module, _, __):
        module._parameters.update(module.bare)

    for full_name, module in model.named_modules():
        if any(each is not None for each in module._parameters.values()):
            module.full_name, module.bare = full_name, dict(module._parameters)
            module.register_forward_pre_hook(bring)
            module.register_forward_hook(take_away)


class Written:
    """Takes tensors by name and writes each at once; of one name the first counts."""

    def __init__(self, folder):
        self.folder, self.names = folder, set()

    def setdefault(self, name, tensor):
        if name not in self.names and tensor.is_floating_point():
            self.names.add(name)
            self.folder.put(name, tensor.float().numpy(), KINDS[tensor.dtype])

    __setitem__ = setdefault


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
