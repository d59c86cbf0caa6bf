"""Ask the published judges for scores of made-up answers, and store what they say in golden/scores.

    python tools/golden/export_scores.py --big-vision FOLDER     a checkout of google-research/big_vision

With the packages of tools/requirements.txt, and Java for pycocoevalcap's own tokenizer.  big_vision's functions are
read from its checkout and run as they stand there; its TensorFlow and Flax are not needed for them.
"""

import argparse
import ast
import contextlib
import io
import json
import math
import platform
import random
import re
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pycocotools.mask
from anls import anls_score
from pycocoevalcap.cider.cider_scorer import CiderScorer
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "golden" / "scores"
SEED = 162_000
TRANSFERS = "big_vision/evaluators/proj/paligemma/transfers"
CAPTIONS = (
    "A small red circle and a large blue cross.", "Two dogs playing in the snow!", "a man's hat, on a table",
    "There isn't anything here...", "The well-known U.S. flag - flying over a house", "a black-and-white photo",
    "\"STOP\" is written on the sign (in red)", "people sit; others stand: all wait",
    "a 3.5 inch disk & a 2,000 page book", "two cats don't look at each other", "a rock 'n' roll band",
    "a dog", "A dog .", "it's a bird's nest, they're in it", "a 10-year-old boy's 1st bike",
    "the cat's pajamas [sic] cost $5.50", "I'm here; we're there",
)


def functions_of(folder, name, wanted):
    """Functions and tables of one of big_vision's evaluators, by name, without importing what they do not need."""
    tree = ast.parse((folder / TRANSFERS / name).read_text())
    kept = [node for node in tree.body if getattr(node, "name", None) in wanted
            or isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in wanted]
    space = {"re": re, "np": np, "PIL": PIL, "editdistance": argparse.Namespace(eval=levenshtein)}
    exec(compile(ast.Module(kept, []), name, "exec"), space)
    return [space[one] for one in wanted]


def levenshtein(one, two):
    """The recursion as it is defined, for strings that are short."""
    table = np.zeros((len(one) + 1, len(two) + 1), int)
    table[:, 0], table[0] = np.arange(len(one) + 1), np.arange(len(two) + 1)
    for i in range(1, len(one) + 1):
        for j in range(1, len(two) + 1):
            change = table[i - 1, j - 1] + (one[i - 1] != two[j - 1])
            table[i, j] = min(change, table[i - 1, j] + 1, table[i, j - 1] + 1)
    return int(table[-1, -1])


def vqa_cases(folder, rng):
    """Answers and ten annotations each, judged by the lines of big_vision's loop around its own normalisation."""
    strip, normalise, words = functions_of(
        folder, "vqav2.py", ["stripspace_vqav2", "postprocess_vqav2_text", "REPLACEMENTS", "PUNCT", "ARTICLES"])[:3]
    texts = ["yes", "no", "2", "two", "The red car", "red car", "red, car", "1,000", "1000", "a", "it's", "its", "dont",
             "3.5", "U.S.", "yes.", "black/white", "black / white", "none", "ten", "what's up?", "  spaced\n out ", "",
             "no-one", "5 - 6", "isnt", "Isnt it?", "a\tb", *sorted(words), "somebody'd", "e.g. this", "100%",
             "(x)", "$5"]
    normalised = [{"text": text, "normal": normalise(text)} for text in texts]
    cases = []
    for _ in range(200):
        few = [rng.choice(texts) for _ in range(rng.choice((1, 2, 3, 5)))]
        answers = [rng.choice(few) for _ in range(10)]
        text = rng.choice([*few, *few, rng.choice(texts)])
        ours, theirs = strip(text), [strip(one) for one in answers]
        if len(set(theirs)) > 1:
            ours, theirs = normalise(ours), [normalise(one) for one in theirs]
        matches = ours == np.array(theirs)
        each = [np.clip(np.sum(np.delete(matches, out)) / 3, 0, 1) for out in range(10)]
        cases.append({"text": text, "answers": answers, "score": float(np.mean(each))})
    return {"normalised": normalised, "judged": cases}


def text_cases(folder, rng):
    """ANLS and relaxed accuracy by big_vision's functions; ANLS also by the package anls, which folds letter case."""
    [anls] = functions_of(folder, "vqa.py", ["anls_metric"])
    relaxed = functions_of(folder, "chartqa.py", ["_relaxed_match", "_to_float"])[0]
    words = ["", "invoice", "invoices", "Invoice", "12/04/1999", "12.04.1999", "a", "b", "total amount", "total amont",
             "total", "in voice", "12/04/19", "ö"]
    similar = [{"text": one, "answers": some, "score": float(max(anls(other, one) for other in some)),
                "folded": float(anls_score(one, some))}
               for one in words for some in (*([other] for other in words), rng.sample(words, 3))]
    numbers = ["0", "0.0", "5", "5.2", "5.25", "5.26", "-5", "5%", "0.05", "0.052", "yes", "Yes", "", "%", "1e3",
               "1000", "nan", "inf"]
    near = [{"text": one, "answer": two, "score": float(relaxed(two, one))} for one in numbers for two in numbers]
    return {"anls": similar, "relaxed": near}


def caption_cases(rng):
    """CIDEr on the strings that pycocoevalcap's own tokenizer gave, and its tokens of the raw captions."""
    raw = {number: [{"caption": caption}] for number, caption in enumerate(CAPTIONS)}
    tokens = dict(zip(CAPTIONS, (one[0] for one in PTBTokenizer().tokenize(raw).values()), strict=True))
    words = "a the small large red blue green circle cross star and of on with two dogs cat table".split()
    corpora = []
    for pictures in (1, 2, 7, 30):
        corpus = []
        for _ in range(pictures):
            people = [" ".join(rng.choice(words) for _ in range(rng.randint(0, 12))) for _ in range(rng.randint(1, 5))]
            close = rng.choice(people).split()[: rng.randint(1, 12)] + rng.sample(words, rng.randint(0, 2))
            corpus.append({"text": " ".join(close), "captions": people})
        corpus[-1]["text"] = corpus[-1]["captions"][0]
        scorer = CiderScorer(n=4, sigma=6.0)
        for one in corpus:
            scorer += (one["text"], one["captions"])
        mean, each = scorer.compute_score()
        corpora.append({"pictures": corpus, "mean": float(mean), "scores": [float(score) for score in each]})
    return {"tokens": tokens, "corpora": corpora}


def random_box(rng):
    left, top = rng.uniform(0, 150), rng.uniform(0, 150)
    return [left, top, left + rng.uniform(2, 90), top + rng.uniform(2, 90)]


def detection_case(rng, pictures, crowds):
    """Pictures with wanted and found boxes, some near, some doubled, some of equal confidence."""
    case = []
    for _ in range(pictures):
        wanted = [{"label": rng.choice("abc"), "box": random_box(rng), "crowd": rng.random() < crowds}
                  for _ in range(rng.randint(0, 5))]
        found = [{"label": one["label"] if rng.random() < 0.85 else rng.choice("abcd"),
                  "box": [edge + rng.gauss(0, 4) for edge in one["box"]],
                  "confidence": rng.choice((0.3, 0.5, rng.random()))}
                 for one in wanted for _ in range(rng.choice((0, 1, 1, 1, 2)))]
        found += [{"label": rng.choice("abcd"), "box": random_box(rng), "confidence": rng.random()}
                  for _ in range(rng.randint(0, 2))]
        found = [one for one in found if one["box"][0] < one["box"][2] and one["box"][1] < one["box"][3]]
        case.append({"objects": wanted, "boxes": found})
    return case


def coco_says(case):
    """What COCOeval makes of it: average precision at each IoU, over labels, all areas, 100 boxes."""
    labels = {label: number for number, label in enumerate("abcd", start=1)}

    def as_coco(one, picture, number):
        left, top, right, bottom = one["box"]
        size = [left, top, right - left, bottom - top]
        return {"id": number, "image_id": picture, "category_id": labels[one["label"]], "bbox": size,
                "area": size[2] * size[3], "iscrowd": int(one.get("crowd", False)), "score": one.get("confidence", 0)}

    # Ids begin at 1: COCOeval takes a match with 0 for none.
    truth = [as_coco(one, place, 0) for place, picture in enumerate(case) for one in picture["objects"]]
    found = [as_coco(one, place, 0) for place, picture in enumerate(case) for one in picture["boxes"]]
    for lot in (truth, found):
        for number, one in enumerate(lot, start=1):
            one["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": [{"id": place} for place in range(len(case))], "annotations": truth,
                        "categories": [{"id": number} for number in labels.values()]}
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
        precision = judge.eval["precision"][:, :, :, 0, -1]
    return [float(np.mean(one[one > -1])) for one in precision]


def detection_cases(rng):
    cases = []
    for pictures, crowds in ((1, 0.0), (3, 0.0), (20, 0.0), (20, 0.3), (60, 0.1)):
        case = detection_case(rng, pictures, crowds)
        if any(not one["crowd"] for picture in case for one in picture["objects"]):
            cases.append({"pictures": case, "precisions": coco_says(case)})
    return cases


def segmentation_cases(folder, rng):
    """RefCOCO's scores by the steps of big_vision's loop, on masks that the golden codec paints (golden/codec)."""
    sys.path.insert(0, str(Path(__file__).parent))
    import codec_inputs
    import export_codec

    in_range, area = functions_of(folder, "segmentation.py", ["_inrange", "_area"])
    _, _, widths = codec_inputs.WIDTHS["awkward"]
    weights, cases = codec_inputs.make_weights("awkward"), []
    for number in range(24):
        width, height = rng.randint(8, 90), rng.randint(8, 90)
        edges = [sorted(rng.sample(range(1024), 2)) for _ in range(2)]
        t = np.array([edges[0][0], edges[1][0], edges[0][1], edges[1][1], *(rng.randrange(128) for _ in range(16))])
        if number % 8 == 7:
            t[2] = t[0]  # no height: not valid
        if number % 8 == 6:
            t[3] = t[1] + 1  # less than a pixel
        valid = in_range(t[:4], 0, 1023) and in_range(t[4:], 0, 127) and t[2] > t[0] and t[3] > t[1]
        truth = np.zeros((height, width), bool)
        corners = [edge + rng.gauss(0, 0.05) for edge in t[:4] / 1023]
        y1, x1, y2, x2 = (min(1.0, max(0.0, edge)) for edge in corners)
        truth[int(y1 * height) : math.ceil(y2 * height), int(x1 * width) : math.ceil(x2 * width)] = True
        truth &= np.add.outer(np.arange(height), np.arange(width)) % 5 > 0
        gt_box = np.array([y1, x1, max(y1, y2), max(x1, x2)])
        bb = t[:4] / 1023 if valid else np.zeros(4)
        shared = area(max(bb[0], gt_box[0]), max(bb[1], gt_box[1]), min(bb[2], gt_box[2]), min(bb[3], gt_box[3]))
        covered = area(*bb) + area(*gt_box) - shared
        a, b, c, d = map(int, (bb[0] * height, bb[1] * width, bb[2] * height, bb[3] * width))
        iou, counted = 0.0, bool(valid and d > b and c > a)
        if counted:
            small = export_codec.decode(weights, widths, t[None, 4:], "float32")["decoder.out"][0, ..., 0]
            mask = np.asarray(PIL.Image.fromarray(small).resize([d - b, c - a], PIL.Image.BILINEAR)) > 0.0
            both = (truth[a:c, b:d] & mask).sum()
            iou = float(both / (truth.sum() + mask.sum() - both))
        runs = pycocotools.mask.encode(np.asfortranarray(truth.astype(np.uint8)))
        text = "".join(f"<loc{one:04d}>" for one in t[:4]) + "".join(f"<seg{one:03d}>" for one in t[4:])
        box = [float(gt_box[1] * width), float(gt_box[0] * height), float(gt_box[3] * width), float(gt_box[2] * height)]
        cases.append({"text": text, "size": [width, height], "box": box, "iou": iou, "invalid": not counted,
                      "box_iou": float(shared / covered) if covered else 0.0,
                      "mask": {"size": [height, width], "counts": runs["counts"].decode()}})
    return cases


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--big-vision", type=Path, required=True, metavar="FOLDER")
    folder = parser.parse_args().big_vision
    rng = random.Random(SEED)
    FOLDER.mkdir(parents=True, exist_ok=True)
    whole = {
        "format": "npgemma.golden.scores", "version": [1, 0],
        "command": "python tools/golden/export_scores.py --big-vision FOLDER",
        "made_by": {"python": platform.python_version(), "numpy": np.__version__, "pycocotools": "2.0.11",
                    "pycocoevalcap": "1.2", "anls": "0.0.2", "big_vision": "0127fb6"},
        "vqa": vqa_cases(folder, rng), "text": text_cases(folder, rng), "captions": caption_cases(rng),
        "detection": detection_cases(rng), "segmentation": segmentation_cases(folder, rng),
    }
    path = FOLDER / "cases.json"
    path.write_text(json.dumps(whole, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
