"""big_vision's names of results: modules as flax's ``capture_intermediates`` calls them, and its ``out`` dictionary.

The table knows big_vision's weights; a module that has a weight bears the name of its array without the last word.
"""

import re
from functools import cache

from npgemma.base.elsewhere import elsewhere, rows_of, weights_of

# What a module gives that has no weight of its own, or several; a number behind a name counts blocks.
MODULES = {
    "img/Transformer/encoderblock/MultiHeadDotProductAttention_0": "vision.blocks.{n}.attn.out",
    "img/Transformer/encoderblock/MlpBlock_0": "vision.blocks.{n}.mlp.out",
    "img/Transformer/encoderblock": "vision.blocks.{n}.out",
    "img/Dropout_0": "vision.embedded",
    "img/Transformer/encoderblock/MlpBlock_0/Dropout_0": "vision.blocks.{n}.mlp.hidden",
    "img/Transformer": "vision.norm",
    "img": "connector.out",
    "llm/layers/attn": "text.blocks.{n}.attn.out",
    "llm/layers/mlp": "text.blocks.{n}.mlp.out",
    "llm/layers": "text.blocks.{n}.out",
}
# The dictionary that its models return; a block's number has two digits there.
OUT = {
    "img/stem": "vision.patches",
    "img/with_posemb": "vision.embedded",
    "img/encoder/block/sa": "vision.blocks.{n}.attn.out",
    "img/encoder/block/+sa": "vision.blocks.{n}.middle",
    "img/encoder/block/mlp": "vision.blocks.{n}.mlp.out",
    "img/encoder/block/+mlp": "vision.blocks.{n}.out",
    "img/encoded": "vision.norm",
    "img/zimg": "connector.out",
    "img/logits": "connector.out",
    "attn_mask": "mask.full",
    "llm/pre_logits": "text.norm",
    "llm/logits": "text.logits",
}
ARRAYS = re.compile(r"/(scale|kernel|w)(?=\[|$)")
NUMBERED = re.compile(r"(?<=encoderblock)_(\d+)|(?<=layers)/(\d+)|(?<=encoder/block)(\d+)")
CALL = re.compile(r"/__call__(/\d+)*$")
# One call gives keys and values, one behind the other in the first axis.
STACKED = re.compile(r"/kv_einsum/__call__(/\d+)*$")


@cache
def modules(cfg):
    """Modules with a weight, by name with the block's number in brackets: ``llm/layers/attn/q_einsum[3]``."""
    found = {}
    for ours in rows_of(cfg):
        if ours in weights_of(cfg) and ours != "text.embedded":
            found[ARRAYS.sub("", elsewhere(ours, cfg).big_vision)] = ours
    return found


def ours_of(theirs, cfg):
    """Our name for the result of one of its modules, or of its dictionary; nothing if it is neither."""
    number = "".join("".join(filter(None, found)) for found in NUMBERED.findall(theirs))
    plain = NUMBERED.sub("", theirs)
    named = OUT.get(plain, "")
    if CALL.search(theirs):
        module, _, part = CALL.sub("", plain).partition("[")
        within = ",".join(filter(None, [number.lstrip("0") or number[:1], part.rstrip("]")]))
        named = modules(cfg).get(f"{module}[{within}]" if within else module) or MODULES.get(module, "")
    return named.format(n=int(number or 0)) if named.format(n=int(number or 0)) in rows_of(cfg) else ""


def unstacked(readers):
    """Readers of a port's tensors, with a call that gives keys and values together taken apart: ``kv_einsum[0]``."""
    found = {}
    for name, read in readers.items():
        if not STACKED.search(name):
            found[name] = read
            continue
        for part in range(2):
            found[f"{CALL.sub('', name)}[{part}]/__call__"] = lambda read=read, part=part: read()[part]
    return found
