"""Options by the names that other programs have for them, and the nearest name to one that nobody has."""

import argparse
import difflib
import os
import textwrap
from collections.abc import Iterable, Sequence

# Ours, then what it is called in transformers, llama.cpp, mlx-vlm or peft.  Where a verb uses such a name itself, that
# one counts.
OTHER_NAMES = {
    "--model": ("-m", "--model-path", "--model-name-or-path"),
    "--dtype": ("--torch-dtype",),
    "--adapter": ("--adapter-path",),
    "--max-tokens": ("--max-new-tokens", "--n-predict", "--predict"),
    "--min-tokens": ("--min-new-tokens",),
    "--temperature": ("--temp",),
    "--repetition-penalty": ("--repeat-penalty",),
    "--seed": ("-s",),
    "--beams": ("--num-beams", "--beam-size", "--beam-width"),
    "-n": ("--num-return-sequences",),
    "--stop": ("--stop-strings", "--reverse-prompt"),
    "--stop-id": ("--eos-token-id",),
    "--suppress-id": ("--suppress-tokens",),
    "--output": ("--output-dir", "--output-file"),
    "--force": ("--overwrite",),
    "--lora": ("--lora-rank",),
    "--alpha": ("--lora-alpha",),
    "--on": ("--target-modules",),
    "--steps": ("--max-steps",),
    "--epochs": ("--num-train-epochs",),
    "--batch": ("--batch-size",),
    "--rate": ("--learning-rate", "--lr"),
    "--schedule": ("--lr-scheduler-type",),
    "--warm-up": ("--warmup-steps",),
    "--clip": ("--max-grad-norm",),
    "--decay": ("--weight-decay",),
    "--every": ("--logging-steps",),
    "--save-every": ("--save-steps",),
}  # fmt: skip


def add_other_names(parser: argparse.ArgumentParser) -> None:
    """Let a verb's options be called by other names too, which its help tells once, at its end."""
    # argparse has no public way to keep a name out of the lines of the options themselves.
    known = parser._option_string_actions
    told = []
    for ours, others in OTHER_NAMES.items():
        new = [name for name in others if name not in known]
        if ours in known and new:
            known.update(dict.fromkeys(new, known[ours]))
            told.append(f"{', '.join(new)} = {ours}")
    if told:
        text = f"as elsewhere: {'; '.join(told)}; and _ in the place of - in any of them"
        parser.epilog = textwrap.fill(text, 100, subsequent_indent="  ", break_on_hyphens=False)


def dashed(words: Sequence[str]) -> list[str]:
    """Write ``--max_new_tokens=7`` as ``--max-new-tokens=7``; behind ``--`` all stays as it is."""
    end = words.index("--") if "--" in words else len(words)
    return [with_dashes(word) if word.startswith("--") else word for word in words[:end]] + list(words[end:])


def with_dashes(word: str) -> str:
    """Write the name of one option, and not its value, with dashes."""
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def meant(word: str, known: Iterable[str]) -> str:
    """Ask whether the nearest known name was meant; empty where none is near."""
    near = difflib.get_close_matches(word.partition("=")[0], list(known), n=1)
    return f"; is {near[0]} meant?" if near else ""


def of_verb(word: str, verbs: Sequence[str]) -> str:
    """Say what is wrong with a first word that is no verb."""
    if os.path.isfile(word):
        return f"{word!r} is a file, and the verb comes first: npgemma generate {word}"
    return f"invalid choice: {word!r:.80} is none of the verbs {', '.join(verbs)}{meant(word, verbs)}"
