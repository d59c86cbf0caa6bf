"""Write golden/generation/: what transformers generates from two tiny random checkpoints, and how it shapes logits.

    python tools/golden/export_generation.py

Needs the packages of tools/requirements.txt; a CPU is enough and it takes about a minute.  For each checkpoint:
``model.safetensors`` and ``config.json`` as any PaliGemma folder has them, ``inputs.safetensors`` (pictures and the
processed logits of every sampler setting) and ``answers.json`` (prompts, settings, ids, scores, losses).
"""

import hashlib
import json
import pathlib
import platform

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import (
    Gemma2Config,
    GemmaConfig,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    SiglipVisionConfig,
)

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "golden" / "generation"
SEEDS = {"gen-1": 11, "gen-2": 22}
IMAGE, BOS, NEWLINE, PAD, EOS = 140, 2, 108, 0, 1
WORDS = ([31, 7, 55], [90, 12, 64, 23, 77, 5, 41], [17], [101, 33, 33, 8, 120], [])
FORTY = {"max_new_tokens": 40, "min_new_tokens": 40, "suppress_tokens": [IMAGE]}


def gen_1():
    """PaliGemma 1: one key/value head, no caps."""
    text = GemmaConfig(
        vocab_size=149, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, head_dim=10, max_position_embeddings=8192,
    )
    return PaliGemmaConfig(
        vision_config=vision(side=12, patch=4, depth=1), text_config=text, projection_dim=32, hidden_size=32,
        vocab_size=149, image_token_index=IMAGE,
    )


def gen_2():
    """PaliGemma 2: grouped heads, both caps, a window shorter than the prompts."""
    text = Gemma2Config(
        vocab_size=151, hidden_size=36, intermediate_size=40, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, max_position_embeddings=8192, query_pre_attn_scalar=9, sliding_window=6,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"], attn_logit_softcapping=4.0,
        final_logit_softcapping=6.0,
    )
    return PaliGemmaConfig(
        vision_config=vision(side=10, patch=5, depth=2), text_config=text, projection_dim=36, hidden_size=36,
        vocab_size=151, image_token_index=IMAGE,
    )


CONFIGS = {"gen-1": gen_1, "gen-2": gen_2}


def vision(side, patch, depth):
    return SiglipVisionConfig(
        hidden_size=36, num_attention_heads=2, intermediate_size=44, num_hidden_layers=depth, image_size=side,
        patch_size=patch, vision_use_head=False,
    )


def make_model(name):
    """A random checkpoint, saved in bfloat16, whose answers differ from prompt to prompt.

    A wide embedding would make the tied head repeat its input.  The last norm's large gain makes probabilities
    uneven, as a trained model's are.
    """
    torch.manual_seed(SEEDS[name])
    model = PaliGemmaForConditionalGeneration(CONFIGS[name]()).to(torch.bfloat16)
    with torch.no_grad():
        for key, weight in sorted(model.named_parameters()):
            if "embed_tokens" in key:
                weight.normal_(std=0.02)
            elif key.endswith("language_model.norm.weight"):
                weight.fill_(24.0)
            elif "norm" in key:
                weight.normal_(mean=1.0 if "vision" in key and key.endswith("weight") else 0.0, std=0.1)
            else:
                weight.normal_(std=0.35)
    model.save_pretrained(FOLDER / name)
    (FOLDER / name / "generation_config.json").unlink(missing_ok=True)
    return PaliGemmaForConditionalGeneration.from_pretrained(
        FOLDER / name, dtype=torch.float32, attn_implementation="eager"
    ).eval()


def prompts_of(model):
    """Prompts: a list of ids and of picture numbers each."""
    P = model.config.text_config.num_image_tokens
    about = [([IMAGE] * P + [BOS, *words, NEWLINE], [index % 2]) for index, words in enumerate(WORDS)]
    text_only = [([BOS, *words, NEWLINE], []) for words in WORDS[:3]]
    two = [([IMAGE] * 2 * P + [BOS, *WORDS[0], NEWLINE], [2, 0])]
    return about + text_only + two


class Cases:
    """Runs transformers, and collects what it was asked and what it answered."""

    def __init__(self, model):
        self.model = model
        self.side = model.config.vision_config.image_size
        generator = torch.Generator().manual_seed(5)
        self.pictures = torch.rand(3, 3, self.side, self.side, generator=generator) * 2 - 1
        self.prompts = prompts_of(model)
        self.found = []

    def inputs(self, rows):
        """A batch, shorter prompts padded on the left."""
        prompts = [self.prompts[row] for row in rows]
        length = max(len(ids) for ids, _ in prompts)
        ids = torch.tensor([[PAD] * (length - len(ids)) + ids for ids, _ in prompts])
        mask = torch.tensor([[0] * (length - len(ids)) + [1] * len(ids) for ids, _ in prompts])
        pictures = [picture for _, numbers in prompts for picture in numbers]
        pixels = {"pixel_values": self.pictures[pictures]} if pictures else {}
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids), **pixels}

    def run(self, rows, **options):
        """Generate for one batch; returns transformers' output."""
        inputs = self.inputs(rows)
        with torch.no_grad():
            output = self.model.generate(
                **inputs, **options, return_dict_in_generate=True, output_scores=True, output_logits=True
            )
        return output, inputs["input_ids"].shape[1]

    def add(self, name, rows, **options):
        """Generate without drawing, and keep the ids, cut behind each answer's stop."""
        output, start = self.run(rows, do_sample=False, **options)
        function = options.pop("prefix_allowed_tokens_fn", None)
        stops = options.get("eos_token_id", EOS)
        stops = stops if isinstance(stops, list) else [stops]
        case = {
            "name": name,
            "rows": rows,
            "options": options | ({"allowed": function(0, None)} if function else {}),
            "ids": [cut(ids[start:].tolist(), stops) for ids in output.sequences],
        }
        if getattr(output, "sequences_scores", None) is not None:
            case["scores"] = output.sequences_scores.tolist()
        self.found.append(case)
        return case


def only(ids):
    """A restriction in transformers' form: the same ids at every step."""
    return lambda batch, so_far: list(ids)


def cut(ids, stops):
    """Drop what transformers pads an answer with behind its stop."""
    ends = [index for index, token in enumerate(ids) if token in stops]
    return ids[: ends[0] + 1] if ends else ids


def generate_all(cases):
    """Every way of choosing without drawing."""
    few = range(5)
    for row in range(len(cases.prompts)):
        cases.add(f"greedy, prompt {row} alone", [row], **FORTY)
    cases.add("greedy, pictures in a batch", list(few), **FORTY)
    cases.add("greedy, text only in a batch", [5, 6, 7], **FORTY)
    cases.add("greedy, pictures, none and two in a batch", [1, 7, 8, 3, 5], **FORTY)
    # Frequent tokens as stops: answers of a batch end at different steps.
    stops = [EOS, *common(cases, 6)]
    cases.add("greedy, several stops in a batch", list(few), max_new_tokens=40, eos_token_id=stops)
    cases.add(
        "greedy, a stop not before the ninth token", [0, 1], max_new_tokens=40, min_new_tokens=8, eos_token_id=stops
    )
    cases.add("greedy, repetition penalty in a batch", list(few), **FORTY, repetition_penalty=1.7)
    cases.add("greedy, penalty below one", [1], **FORTY, repetition_penalty=0.8)
    cases.add("greedy, even ids only", [0, 3], max_new_tokens=40, prefix_allowed_tokens_fn=only(range(0, 149, 2)))
    cases.add("greedy, no length at all but one", [0], max_new_tokens=1)
    for beams, penalty in ((2, 1.0), (3, 0.0), (4, -1.0), (5, 2.0)):
        name = f"{beams} beams, length penalty {penalty}"
        some = {"num_beams": beams, "length_penalty": penalty, "num_return_sequences": beams}
        cases.add(f"{name}, forty tokens", [0, 4, 6], **FORTY, **some)
        cases.add(f"{name}, stops", list(few), max_new_tokens=40, eos_token_id=stops[:3], **some)
        cases.add(f"{name}, many stops", [1, 5, 8], max_new_tokens=12, eos_token_id=stops, **some)
    cases.add(
        "beams, penalty and restriction",
        [0, 2],
        max_new_tokens=20,
        num_beams=3,
        num_return_sequences=3,
        repetition_penalty=1.5,
        prefix_allowed_tokens_fn=only(range(0, 149, 2)),
        eos_token_id=stops,
        suppress_tokens=[44],
    )


def common(cases, count):
    """The tokens that occur most often in the answers so far."""
    tokens = [token for case in cases.found for ids in case["ids"] for token in ids]
    return sorted(set(tokens), key=lambda token: (-tokens.count(token), token))[:count]


SAMPLERS = (
    {},
    {"temperature": 0.7},
    {"temperature": 2.5},
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 100},
    {"top_p": 0.05},
    {"top_p": 0.5},
    {"top_p": 0.95},
    {"min_p": 0.02},
    {"min_p": 0.4},
    {"min_p": 1.0},
    {"repetition_penalty": 1.9},
    {"temperature": 0.6, "top_k": 12, "top_p": 0.8},
    {"temperature": 1.7, "top_k": 30, "top_p": 0.9, "min_p": 0.05},
    {"temperature": 1.4, "top_p": 0.7, "min_p": 0.1, "repetition_penalty": 1.3},
    {"temperature": 0.9, "top_k": 20, "min_new_tokens": 3, "suppress_tokens": [IMAGE, 7, 90]},
    {"temperature": 0.5, "top_p": 0.9, "repetition_penalty": 0.6, "suppress_tokens": [3, 4], "allowed": True},
)


def sample_all(cases):
    """Processed logits of the first token, one array a sampler setting, and the raw ones."""
    rows = [0, 1, 4, 6]
    arrays, settings = {}, []
    for number, options in enumerate(SAMPLERS):
        # transformers' own defaults (top_k 50) are switched off unless asked for.
        given = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": 5} | options
        if given.pop("allowed", False):
            options = options | {"allowed": list(range(1, 149, 3))}
            given["prefix_allowed_tokens_fn"] = only(options["allowed"])
        output, _ = cases.run(rows, do_sample=True, **given)
        arrays["logits"] = output.logits[0].clone()
        arrays[f"processed.{number}"] = output.scores[0].clone()
        settings.append(options)
    return arrays, {"rows": rows, "settings": settings}


def score_all(cases):
    """Log-probabilities of given answers, and the two losses."""
    prompt, numbers = cases.prompts[1]
    answers = [[9, 60, EOS], [14, 14, 80, 3, 51, 22, EOS], [EOS], [130, 6, EOS]]
    longest = max(map(len, answers))
    pads = [longest - len(answer) for answer in answers]
    ids = torch.tensor([[*prompt, *answer, *[PAD] * pad] for answer, pad in zip(answers, pads, strict=True)])
    real = torch.tensor([[1] * (ids.shape[1] - pad) + [0] * pad for pad in pads])
    types = torch.tensor([[0] * len(prompt) + [1] * longest] * len(answers))
    labels = torch.where((types == 1) & (real == 1), ids, -100)
    batch = {"input_ids": ids, "attention_mask": real, "token_type_ids": types, "labels": labels}
    pixels = cases.pictures[numbers].repeat(len(answers), 1, 1, 1)
    text = cases.model.config.text_config
    cap = getattr(text, "final_logit_softcapping", None)
    with torch.no_grad():
        output = cases.model(**batch, pixel_values=pixels)
        if cap is not None:
            text.final_logit_softcapping = cases.model.config.final_logit_softcapping = None
        uncapped = cases.model(**batch, pixel_values=pixels).logits
        if cap is not None:
            text.final_logit_softcapping = cap
    return {
        "prompt": 1,
        "answers": answers,
        "logprobs": token_logprobs(output.logits, labels),
        "uncapped_logprobs": token_logprobs(uncapped, labels),
        "hf_loss": output.loss.item(),
    }


def token_logprobs(logits, labels):
    """Log-probability of each labelled token, from the logits one place before."""
    logprobs = logits[:, :-1].log_softmax(-1).gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
    return [row[label != -100].tolist() for row, label in zip(logprobs, labels[:, 1:], strict=True)]


def check_worth(cases):
    """Refuse checkpoints on which equal ids would prove nothing."""
    alone = [tuple(case["ids"][0]) for case in cases.found[: len(cases.prompts)]]
    assert len(set(alone)) == len(alone), "two prompts have one answer"
    assert min(len(set(ids)) for ids in alone) >= 12, "an answer repeats itself"
    lengths = [len(ids) for case in cases.found if "stops" in case["name"] for ids in case["ids"]]
    assert len(set(lengths)) >= 8, "answers end together"


def export(name):
    """Write the folder of one checkpoint."""
    model = make_model(name)
    cases = Cases(model)
    generate_all(cases)
    check_worth(cases)
    arrays, samplers = sample_all(cases)
    scores = score_all(cases)
    arrays["pictures"] = cases.pictures.permute(0, 2, 3, 1).contiguous()
    save_file({key: value.contiguous() for key, value in arrays.items()}, FOLDER / name / "inputs.safetensors")
    answers = {
        "prompts": [{"ids": ids, "pictures": numbers} for ids, numbers in cases.prompts],
        "cases": cases.found,
        "samplers": samplers,
        "scores": scores,
    }
    (FOLDER / name / "answers.json").write_text(json.dumps(answers, separators=(",", ":")) + "\n")
    return agreement_in_float64(cases)


def agreement_in_float64(cases):
    """How many of the answers are the same in float64: what does not hang on rounding."""
    cases.model.double()
    cases.pictures = cases.pictures.double()
    kept, cases.found = cases.found, []
    for case in kept:
        options = dict(case["options"])
        if "allowed" in options:
            options["prefix_allowed_tokens_fn"] = only(options.pop("allowed"))
        cases.add(case["name"], case["rows"], **options)
    before, after = ([ids for case in found for ids in case["ids"]] for found in (kept, cases.found))
    return f"{sum(a == b for a, b in zip(before, after, strict=True))} of {len(before)}"


def main():
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    FOLDER.mkdir(parents=True, exist_ok=True)
    agreement = {name: export(name) for name in SEEDS}
    files = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.name != "MANIFEST.json")
    manifest = {
        "format": "npgemma.golden.generation",
        "command": "python tools/golden/export_generation.py",
        "made_by": {
            "python": platform.python_version(), "torch": torch.__version__, "transformers": transformers.__version__,
            "numpy": np.__version__, "machine": platform.machine(), "dtype": "float32", "attention": "eager",
        },
        "seeds": SEEDS,
        "same_ids_in_float64": agreement,
        "files": {
            str(path.relative_to(FOLDER)): {
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in files
        },
    }
    (FOLDER / "MANIFEST.json").write_text(json.dumps(manifest, indent=1) + "\n")
    print(json.dumps(manifest, indent=1))


if __name__ == "__main__":
    main()
