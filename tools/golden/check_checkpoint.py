"""Holds npgemma against transformers on a released checkpoint: says the first tensor that differs, or that none does.

    python tools/golden/check_checkpoint.py FOLDER [IMAGE] [PROMPT] [--dtype float32]

transformers runs first and writes what its modules give into a temporary file; its model leaves the memory before that
of npgemma is loaded, which maps the weights and judges each operation on transformers' own inputs.  So the memory is
that of one model in its own dtype, 6 GB for 3B in bfloat16, and of its tensors.  Exit code 0 where nothing differs, 3
where something does.
"""

import argparse
import gc
import pathlib
import sys
import tempfile

import export_port
import torch
from safetensors.torch import save_file

from npgemma import cli


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("image", nargs="?")
    parser.add_argument("prompt", nargs="?")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    args = parser.parse_args()
    words = [word for word in (args.image, args.prompt) if word is not None]
    model = ["--model", str(args.folder), "--dtype", args.dtype]
    with tempfile.TemporaryDirectory() as place:
        trace, port = (str(pathlib.Path(place) / name) for name in ("question.safetensors", "port.safetensors"))
        code = cli.main(["trace", *words, *model, "--only", "pixels,ids", "--quiet", "-o", trace])
        if code:
            return code
        question = export_port.question_of(trace)
        save_file(export_port.run(args.folder, question, getattr(torch, args.dtype), "eager", False), port)
        gc.collect()
        recipe = "bf16-hf-eager" if args.dtype == "bfloat16" else "float32"
        return cli.main(["compare", port, *words, *model, "--recipe", recipe])


if __name__ == "__main__":
    sys.exit(main())
