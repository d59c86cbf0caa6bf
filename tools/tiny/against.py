"""transformers' greedy answers beside npgemma's: which token ids differ, and how near the two best logits were.

Not supported: prompts side by side with padding; batches are of one length, so that padding explains nothing.
"""

from collections import defaultdict
from itertools import zip_longest

import torch
from transformers import AutoProcessor, PaliGemmaForConditionalGeneration

from npgemma.checkpoints.loading import TINY

DTYPES = {"float32": torch.float32, "bf16-hf-eager": torch.bfloat16}
MAX_NEW_TOKENS = 160
BATCH = 50


def load_reference(folder, precision):
    """The processor and the model as transformers loads them."""
    if precision not in DTYPES:
        raise ValueError(f"--precision {precision}: transformers has only {', '.join(DTYPES)}")
    place = folder or TINY
    model = PaliGemmaForConditionalGeneration.from_pretrained(
        place, dtype=DTYPES[precision], attn_implementation="eager"
    )
    return AutoProcessor.from_pretrained(place), model


def compare(reference, questions, answers):
    """Print how many answers have the same ids, and for each other one the gap at the first difference."""
    processor, model = reference
    by_length = defaultdict(list)
    for question, answer in zip(questions, answers, strict=True):
        inputs = processor(images=question.image, text="<image>" + question.prompt, return_tensors="pt")
        by_length[inputs["input_ids"].shape[1]].append((question, answer, inputs))
    different = []
    for lot in by_length.values():
        for start in range(0, len(lot), BATCH):
            different += _compare_lot(model, lot[start : start + BATCH])
    print(f"    same ids as transformers: {len(answers) - len(different)} of {len(answers)}")
    for seed, prompt, place, gap, ours, theirs in different:
        print(f"    seed {seed}: {prompt!r}: token {place} is {ours}, theirs {theirs}; their best two: {gap:.2e} apart")


def _compare_lot(model, lot):
    """Differences among prompts of one length."""
    inputs = {name: torch.cat([one[name] for _, _, one in lot]) for name in lot[0][2] if name != "labels"}
    inputs["pixel_values"] = inputs["pixel_values"].to(model.dtype)
    out = model.generate(
        **inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    length = inputs["input_ids"].shape[1]
    for row, (question, answer, _) in enumerate(lot):
        theirs = _until_end(out.sequences[row, length:].tolist())
        ours = list(answer.ids)
        if ours == theirs:
            continue
        pairs = list(zip_longest(ours, theirs))
        place = next(number for number, (one, other) in enumerate(pairs) if one != other)
        best = out.logits[place][row].float().topk(2).values
        yield question.seed, question.prompt, place, float(best[0] - best[1]), *pairs[place]


def _until_end(ids):
    """Ids up to the first stop, which is kept."""
    return ids[: ids.index(1) + 1] if 1 in ids else ids
