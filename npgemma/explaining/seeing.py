"""From pixels to soft tokens: the panels of the vision tower.  Letters: N heads, P patches, C width, D text width."""

import math

import numpy as np
from PIL import Image, ImageDraw

from npgemma import ops
from npgemma.base.device import to_host
from npgemma.explaining.code import body
from npgemma.explaining.curves import curves
from npgemma.explaining.heat import heat, photograph
from npgemma.explaining.mathml import written
from npgemma.explaining.panel import Figure, Panel, Sentence, code, formulas, say
from npgemma.explaining.run import Run
from npgemma.files.image import ImageSettings

# Photographs are shown no larger.
SHOWN = 448


def patches(run: Run) -> Panel:
    """The picture becomes a square, and the square becomes patches."""
    pixels, cfg, picture = run["pixels"][0], run.model.config.vision, run.kept.picture
    count = cfg.num_patches
    side = math.isqrt(count)
    size = {} if picture is None else {"wide": picture.width, "tall": picture.height}
    came = "Your picture has {wide:,} × {tall:,} pixels. " if size else "The picture came as an array. "
    return Panel(
        "patches", "The picture becomes patches",
        (
            say(came + "Whatever its shape, the model reads it as a square of {square} × {square} pixels, with three "
                "numbers a pixel (red, green, blue), scaled so that black is minus one and white is one; in this "
                "picture they lie between {low:.2f} and {high:.2f}.",
                square=len(pixels), low=float(pixels.min()), high=float(pixels.max()), **size),
            say("The square is cut into {side} rows of {side} patches. Each patch is a list of {numbers} numbers, and "
                "one learned matrix turns every such list into a vector of {width} numbers. From here on the picture "
                "is a row of {count} vectors, as a sentence is a row of words.",
                side=side, numbers=3 * cfg.patch_size**2, width=cfg.width, count=count),
        ),
        "Dosovitskiy et al. 2021, sec. 3.1",
        formulas(run, "vision.patches"),
        (*code(run, "vision.patches"), body(ops.patchify)),
        (
            *([] if picture is None else [Figure(photograph(small(picture), "the picture"), say("As you gave it."))]),
            Figure(photograph(cut_up(square(run), side), "the square, cut into patches"),
                   say("As the model reads it, cut into {count} patches.", count=count)),
            drawn(run, "vision.patches", say("The vectors: a row a patch, a column a number.")),
        ),
    )


def square(run: Run) -> Image.Image:
    """The pixels that the tower was given, as a picture again."""
    settings = run.model.image_settings or ImageSettings()
    values = run["pixels"][0] * np.array(settings.std) + np.array(settings.mean)
    return Image.fromarray(np.clip(np.rint(values * 255), 0, 255).astype(np.uint8))


def small(picture: Image.Image) -> Image.Image:
    """A picture no larger than is shown."""
    few = enlarged(picture, factor(picture)).copy()
    few.thumbnail((SHOWN, SHOWN))
    return few


def factor(picture: Image.Image) -> int:
    """By how much a picture is enlarged, so that small ones can be seen."""
    return max(1, SHOWN // max(picture.size))


def enlarged(picture: Image.Image, times: int) -> Image.Image:
    """Draw each pixel as a square of several."""
    return picture.convert("RGB").resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def cut_up(picture: Image.Image, side: int) -> Image.Image:
    """Enlarge a square, and draw lines between its patches."""
    room = max(1, SHOWN // side)
    large = picture.resize((room * side, room * side), Image.Resampling.NEAREST)
    canvas = ImageDraw.Draw(large)
    for number in range(1, side):
        canvas.line((room * number, 0, room * number, large.height), (255, 255, 255))
        canvas.line((0, room * number, large.width, room * number), (255, 255, 255))
    return large


def drawn(run: Run, name: str, caption, head: int | None = None) -> Figure:
    """A tensor of the run as a heat map: of its first head, or all of a vector."""
    x = run[name][0]
    if head is not None:
        x = x[:, head] if run.tensor(name).letters.split()[-2] in "NK" else x.reshape(-1, *x.shape[-2:])[head]
    return Figure(heat(x.reshape(len(x), -1), name), caption, run.lines[name])


def positions(run: Run) -> Panel:
    """A vector a place is added, so that a patch knows where it lies."""
    table = to_host(run.model.weights["vision.positions.weight"])
    side = math.isqrt(len(table))
    here = side // 2 * side + side // 2
    unit = table / np.linalg.norm(table, axis=-1, keepdims=True)
    alike = unit @ unit[here]
    order = [place for place in np.argsort(-alike) if place != here]
    nearest, farthest = divmod(int(order[0]), side), divmod(int(order[-1]), side)
    return Panel(
        "positions", "Each patch learns where it lies",
        (
            say("A patch's vector says what is in it, and not where. So a learned vector for each of the {count} "
                "places is added to it, the same for every picture.", count=len(table)),
            say("Nobody told the model which places are neighbours; it found out. How alike two vectors are is told by "
                "their cosine, one for the same direction. The vector of row {row}, column {column} (counted from the "
                "top left, beginning with nought) is most like that of row {near_row}, column {near_column} (cosine "
                "{near:.2f}), and least like that of row {far_row}, column {far_column} (cosine {far:.2f}).",
                row=side // 2, column=side // 2, near_row=nearest[0], near_column=nearest[1],
                near=float(alike[order[0]]), far_row=farthest[0], far_column=farthest[1], far=float(alike[order[-1]])),
        ),
        "Dosovitskiy et al. 2021, eq. 1 and app. D.4",
        formulas(run, "vision.embedded"),
        code(run, "vision.embedded"),
        (
            Figure(heat(alike.reshape(side, side), "likeness of places"),
                   say("How alike each place's vector is to that of row {row}, column {column}: blue is unlike, red is "
                       "alike.", row=side // 2, column=side // 2)),
            drawn(run, "vision.embedded", say("Patches with their positions added: a row a patch.")),
        ),
    )


def vision_block(run: Run) -> Panel:
    """One block of the tower, opened."""
    block = run.opened
    names = [f"{block}.{short}" for short in ("attn_norm", "attn.q", "attn.k", "attn.v", "attn.scores", "attn.probs",
                                              "attn.mixed", "middle", "mlp_norm", "mlp.up", "mlp.hidden", "out")]
    up = run[f"{block}.mlp.up"]
    return Panel(
        "vision-block", "One block of the tower, opened",
        what_a_block_does(run),
        "Dosovitskiy et al. 2021, eq. 2 and 3, app. A; Vaswani et al. 2017, eq. 1; Hendrycks & Gimpel 2016, sec. 2",
        (*formulas(run, *names), written("softmax(x)"), written("gelu(x)")),
        (*code(run, *names), body(ops.softmax), body(ops.gelu)),
        (
            drawn(run, names[0], say("After the norm: a row a patch.")),
            drawn(run, names[1], say("Questions of the first head."), 0),
            drawn(run, names[2], say("Labels of the first head."), 0),
            drawn(run, names[3], say("Contents of the first head."), 0),
            drawn(run, names[4], say("Scores of the first head: a row a patch that asks, a column a patch that is "
                                     "asked."),
                  0),
            drawn(run, names[5], say("After softmax: each row adds up to one."), 0),
            drawn(run, names[9], say("Widened, before GELU.")),
            drawn(run, names[10], say("After GELU.")),
            Figure(gelu_curve(up), say("GELU, over the range that this block uses: from {low:.1f} to {high:.1f}.",
                                       low=float(up.min()), high=float(up.max()))),
        ),
    )


def what_a_block_does(run: Run) -> tuple[Sentence, ...]:
    """Say what follows what in a block of the tower."""
    block, cfg = run.opened, run.model.config.vision
    probs, up, normed = (run[f"{block}.{short}"] for short in ("attn.probs", "mlp.up", "attn_norm"))
    return (
        say("The tower has {depth} such blocks, one behind the other; this is number {number}, counted from "
            "nought. First a norm brings the numbers of every patch's vector to one size, and learned gains weigh "
            "them (their typical size is then {normed:.2f}). Another norm stands before the second half of the "
            "block, and one behind the last "
            "block.", depth=cfg.depth, number=int(block.split(".")[2]), normed=rms(normed)),
        say("Then each of {heads} heads, which look for different things, makes three short vectors of every "
            "patch, of {size} numbers each: a question (the query, `q`), a label (the key, `k`) and a content (the "
            "value, `v`). A question is multiplied with every label, number by number, and the sum is a score: the "
            "better they agree, the higher. Softmax turns the scores of a question into weights that are positive "
            "and add up to one, and the contents are gathered by these weights. The strongest single weight, of "
            "all heads and patches, is {strongest:.2f}.",
            heads=cfg.num_heads, size=cfg.head_dim, strongest=float(probs.max())),
        say("What all heads gathered goes through one more matrix and is added to what the patch was (`middle`). "
            "Then each patch is worked on by itself, by an MLP: its vector is widened to {wide} numbers; GELU "
            "damps those below nought, {negative:.0%} of all here; and the rest is narrowed again and "
            "added.", wide=cfg.mlp_width, negative=float(np.mean(up < 0))),
    )


def gelu_curve(up: np.ndarray) -> str:
    """GELU over the range of some numbers."""
    xs = np.linspace(float(up.min()), float(up.max()), 80)
    return curves({"GELU": list(zip(xs.tolist(), ops.gelu(xs).tolist(), strict=True))}, "what comes in",
                                                                                        "what goes out")


def rms(x: np.ndarray) -> float:
    """The typical size of a number: the root of the mean square."""
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))


def connector(run: Run) -> Panel:
    """From vision width to text width: soft tokens."""
    soft, cfg = run["connector.out"], run.model.config
    embedded = run["text.embedded"][0]
    words = embedded[run["ids"][0] != cfg.image_token_id]
    return Panel(
        "connector", "The connector makes soft tokens",
        (
            say("The decoder reads vectors of {text} numbers, the tower writes {vision}. One matrix and a bias "
                "translate, for each of the {count} patches alike.",
                text=cfg.text.width, vision=cfg.vision.width, count=cfg.vision.num_patches),
            say("The results are called soft tokens: they will stand where the vectors of words stand, but are no "
                "entries of a table of words, and may be any vector at all. A typical number in them has the size "
                "{soft:.2f}; in the vectors of this prompt's words it is {word:.2f}.", soft=rms(soft), word=rms(words)),
        ),
        "Beyer et al. 2024, sec. 3.1 and 5.5",
        formulas(run, "connector.out"),
        code(run, "connector.out"),
        (drawn(run, "connector.out", say("Soft tokens: a row a patch.")),),
    )
