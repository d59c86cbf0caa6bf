"""Write golden/tiny-box: what transformers says about the model in the box, in float32.

``python tools/tiny/export_golden.py`` writes fifty answers as text, and the blocks and logits of three prompts.
"""

import argparse
import json
import random
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoProcessor, PaliGemmaForConditionalGeneration
from world import HELD_OUT, TASKS, ask, draw, make_scene

ROOT = Path(__file__).resolve().parents[2]
BOX = ROOT / "npgemma" / "tiny"
SEED = 4 * HELD_OUT
ANSWERS = 50
TRACED = ("caption en", "detect", "ocr")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "golden" / "tiny-box")
    out = parser.parse_args().out
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    processor = AutoProcessor.from_pretrained(BOX)
    model = PaliGemmaForConditionalGeneration.from_pretrained(BOX, dtype=torch.float32, attn_implementation="eager")
    answers = fifty_answers(processor, model, out)
    traces = {}
    for task in TRACED:
        one = next(answer for answer in answers if answer["prompt"].startswith(task))
        traces |= {f"{task.split()[0]}/{name}": array for name, array in trace(processor, model, out, one).items()}
    save_file(traces, out / "trace.safetensors")
    made_by = {"torch": torch.__version__, "transformers": transformers.__version__}
    content = {"made_by": made_by, "precision": "float32", "answers": answers}
    (out / "answers.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def fifty_answers(processor, model, out):
    """Every task about one picture after the other; pictures are written on the way."""
    answers, number = [], SEED
    while len(answers) < ANSWERS:
        scene = make_scene(number, words=1.0)
        name = f"{number - SEED:02d}.png"
        draw(scene).save(out / "pictures" / name)
        questions = [ask(task, scene, random.Random(number)) for task in TASKS]
        for prompt, wanted in [question for question in questions if question][: ANSWERS - len(answers)]:
            inputs = processor(images=draw(scene), text="<image>" + prompt, return_tensors="pt")
            ids = model.generate(**inputs, max_new_tokens=64, do_sample=False)[0, inputs["input_ids"].shape[1] :]
            text = processor.decode(ids, skip_special_tokens=True)
            answers.append({"picture": name, "prompt": prompt, "answer": text, "ids": ids.tolist(), "true": wanted})
        number += 1
    return answers


def trace(processor, model, out, answer):
    """Outputs of all blocks, of the connector and of the head, with the answer as causal suffix.

    Logits are kept from the last row of the prompt on: the rows that choose the answer.
    """
    image = transformers.image_utils.load_image(str(out / "pictures" / answer["picture"]))
    inputs = processor(images=image, text="<image>" + answer["prompt"], return_tensors="pt")
    prompt, suffix = inputs["input_ids"], torch.tensor([answer["ids"]])
    ids = torch.cat([prompt, suffix], 1)
    types = torch.cat([torch.zeros_like(prompt), torch.ones_like(suffix)], 1)
    kept = {"pixels": inputs["pixel_values"], "ids": ids, "token_types": types}
    hooks = []
    inner = model.model
    for name, blocks in (("vision", inner.vision_tower.encoder.layers), ("text", inner.language_model.layers)):
        for number, block in enumerate(blocks):
            hooks.append(block.register_forward_hook(keeper(kept, f"{name}.blocks.{number}.out")))
    hooks.append(inner.multi_modal_projector.register_forward_hook(keeper(kept, "connector.out")))
    with torch.no_grad():
        logits = model(
            input_ids=ids,
            pixel_values=inputs["pixel_values"],
            token_type_ids=types,
            attention_mask=torch.ones_like(ids),
            position_ids=1 + torch.arange(ids.shape[1])[None],
        ).logits
    for hook in hooks:
        hook.remove()
    kept["text.logits"] = logits[:, prompt.shape[1] - 1 :]
    return {name: array.contiguous() for name, array in kept.items()}


def keeper(kept, name):
    """A hook that keeps what a module gives."""

    def keep(module, arguments, output):
        kept[name] = (output[0] if isinstance(output, tuple) else output).detach().clone()

    return keep


if __name__ == "__main__":
    main()
