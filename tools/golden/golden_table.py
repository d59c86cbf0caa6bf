"""Print the table of golden/README.md: share of bit-equal elements by operation, npgemma against PyTorch in bfloat16.

    PYTHONPATH=.:tests python tools/golden/golden_table.py

Needs no torch: PyTorch's side is read from golden/.
"""

import collections

import numpy as np
import test_golden

import golden

RECIPES = ("bf16-hf-eager", "bf16-f32-inside")


def main():
    print("| equation | elements | bf16-hf-eager | bf16-f32-inside |")
    print("|---|---|---|---|")
    for name in golden.golden_inputs.EQUATIONS:
        recipes = [recipe for recipe in golden.golden_inputs.recipes_of(name) if recipe.startswith("bf16")]
        shares = [equation_share(name, recipe) for recipe in recipes]
        if len(shares) == 1:
            shares *= 2
        # In bf16-f32-inside the angles stay float32, where equal bits are no promise.
        cells = [f"{share:.3%}" for share, _ in shares]
        print(f"| {name} | {shares[0][1]} | {cells[0]} | {'float32' if 'angles' in name else cells[1]} |")
    print("\n| operation of the traces | elements | bf16-hf-eager | bf16-f32-inside |")
    print("|---|---|---|---|")
    tables = [trace_shares(recipe) for recipe in RECIPES]
    for name, (_, size) in tables[0].items():
        cells = [f"{table[name][0] / table[name][1]:.3%}" if name in table else "float32" for table in tables]
        print(f"| {name} | {size} | {cells[0]} | {cells[1]} |")


def equation_share(name, recipe):
    """Share of equal bits over all outputs of one equation, and how many elements were judged."""
    equal, size = 0, 0
    for key, ours in test_golden.compute(name, recipe).items():
        theirs = golden.read(f"equations/{recipe}")[key]
        real = np.ones(theirs.shape, dtype=bool)
        if name == "gelu":
            real = golden.golden_inputs.inputs_of(name)["x"] >= golden.TANH_GELU_IS_RIGHT_FROM
        equal += int(np.sum((ours == theirs) & real))
        size += int(np.sum(real))
    return equal / size, size


def trace_shares(recipe):
    """By operation, over both models and all blocks: elements with equal bits and elements judged, by inject."""
    totals = collections.defaultdict(lambda: [0, 0])
    for model in golden.MODELS:
        judge = golden.run(golden.trace_case(model, recipe), inject=True)
        for name, share in judge.shares.items():
            parts = [part for part in name.split(".") if not part.isdigit() and part != "blocks"]
            short = ".".join(parts)
            totals[short][0] += round(share * judge.judged[name])
            totals[short][1] += judge.judged[name]
    return totals


if __name__ == "__main__":
    main()
