"""What a comparison found, for eyes in a terminal, for machines, for CI and for a browser."""

import html
import math
from dataclasses import asdict
from xml.sax.saxutils import quoteattr

from npgemma.base.describe import number_of
from npgemma.base.expressions import explained
from npgemma.base.printer import visible
from npgemma.judge import gates
from npgemma.judge.doubts import doubts, of_picture
from npgemma.judge.rerun import GIVEN, kept_as
from npgemma.judge.single import BETWEEN_RUNS
from npgemma.tracing.sources import made_at

# Codes of a terminal: red and bright, faint, yellow, green.
COLOURS = {"bad": "31;1", "follows": "2", "incomparable": "33", "ok": "32"}
ROWS_BEFORE, ROWS_AFTER = 4, 3


def summary(comparison):
    """One line: how many tensors, and the first that differs."""
    counts = {
        status: sum(row.status == status for row in comparison.rows)
        for status in ("ok", "bad", "follows", "incomparable", "missing")
    }
    compared = sum(counts.values()) - counts["missing"] - counts["incomparable"]
    first, words = comparison.first, f"{number_of(compared, 'tensor')} compared"
    words += f", {counts['missing']} not there, {counts['incomparable']} incomparable"
    return f"{words}: " + (f"the first that differs is {first.name}" if first else "none differs")


def is_of_two_runs(comparison):
    """Whether they are held against one other run, without float64 beside it."""
    return any("relative" in row.entire and "ratio" not in row.entire for row in comparison.rows)


def legend(comparison):
    """What the columns say, and which figures pass."""
    bound = BETWEEN_RUNS[kept_as(comparison.recipe)]
    if is_of_two_runs(comparison):
        yield f"error: relative, between the two runs ({comparison.recipe}); up to {bound:g} passes"
    else:
        most = gates.RATIO_ACCEPTABLE
        yield f"error/own: distance from float64, in that of {comparison.recipe} itself; up to {most:g}x passes"
    alone = "alone: of the operation made again on their own inputs, which is what says where the fault lies"
    without = "alone: empty, since the weights are not here (--model FOLDER)"
    yield f"bits: share of equal ones; {alone if comparison.rerun is not None else without}"


def figures(row):
    """The two judgements of a row, in columns."""
    ratio, share = row.entire.get("ratio"), row.entire.get("share")
    apart = f"{row.entire['relative']:.2g}" if "relative" in row.entire else ""
    entire = "" if share is None else f"{apart if ratio is None else f'{ratio:.3g}x':>9} {share:8.2%}"
    alone = "" if "share" not in row.single else f"{row.single['share']:8.2%}"
    return f"{entire:>18} {alone:>9}"


def shown(comparison):
    """The rows that fit a screen, around the first that differs, or the last ones; and how many are behind them."""
    rows = [row for row in comparison.rows if row.status != "missing"]
    index = rows.index(comparison.first) if comparison.first else len(rows) - 1
    end = index + 1 + ROWS_AFTER
    return rows[max(0, index - ROWS_BEFORE) : end], max(0, len(rows) - end)


def widest(comparison):
    """The width of the longest name on the screen."""
    return max((len(row.name) for row in shown(comparison)[0]), default=4)


def table(comparison):
    """(row, text) of the rows that fit a screen."""
    (rows, left), first, width = shown(comparison), comparison.first, widest(comparison)
    for row in rows:
        mark = "FIRST BAD" if row is first else "bad" if row.status == "bad" else row.status
        yield row, f"{row.name:{width}} {figures(row)}  {mark}{' (expected)' if row.expected else ''}"
    if left:
        yield None, f"... {left} more behind it"


def told(comparison):
    """The rows to tell all of: the first that differs, and others that have another cause."""
    seen, found = set(), []
    for row in comparison.rows:
        names = tuple(cause.name for cause in row.causes)
        if row is comparison.first or row.causes and not row.expected and names not in seen:
            found.append(row)
            seen.add(names)
    return found[:3]


def details(comparison, row, cfg, call):
    """All that is known of one wrong tensor, a line each."""
    tensor = comparison.port.table[row.name]
    file, line = made_at(tensor.row.kept_in, row.name)
    yield f"{row.name} = {explained(row.name, tensor, cfg, call)}"
    yield f"  made in npgemma/{file.name}:{line}, {tensor.row.kept_in}; called {row.theirs} there"
    yield f"  {row.message}"
    if row.worst:
        index, worst = row.worst["index"], row.worst
        yield f"  worst element {index}: {worst['theirs']:.9g}, want {worst['want']:.9g}"
        yield (
            f"  a tolerance of {worst['gap']:.3g}, or {row.single.get('share', row.entire.get('share', 0)):.2%} of"
            " equal bits, would pass"
        )
    yield from diagnosis(comparison, row)


def diagnosis(comparison, row):
    """What a wrong tensor looks like, a line each; without weights no fault of an operation was tried."""
    if row.name == "pixels" and of_picture(comparison):
        yield "  cause: another picture, or one that was read otherwise"
    elif not row.causes and comparison.rerun is None and row.name not in GIVEN:
        yield "  cause: not looked for: known faults are tried on the model's weights; name it by --model FOLDER"
    elif not row.causes:
        yield "  cause: unknown; no known fault leads to these numbers"
    for number, cause in enumerate(row.causes[:3]):
        yield f"  {'cause' if number == 0 else '   or'}: {cause.name}: {cause.sentence}"
    if len(row.causes) > 3:
        yield f"   or: {', '.join(cause.name for cause in row.causes[3:])}"


def remarks(comparison):
    """What else is to be said."""
    yield from comparison.port.notes
    noted = {}
    for row in comparison.rows:
        if row.note:
            noted.setdefault(row.note, []).append(row.name)
    for note, names in noted.items():
        yield f"{note}: {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}"
    for row in comparison.rows:
        if row.status == "incomparable":
            yield f"{row.name} cannot be compared: {row.message}"
    for tower, exponent in comparison.growth().items():
        yield f"error over the depth of {tower}: exponent {exponent:.2f} (0.5 random, 1 systematic)"
    if comparison.logits:
        found = comparison.logits
        yield (
            f"logits: KL divergence {found['kl_mean']:.3g} mean, {found['kl_max']:.3g} at most; "
            f"same best token {found['same_top']:.2%}"
        )
    if advice := comparison.advice():
        yield advice


def lines(comparison, cfg, call):
    """One screen: (code of a colour, line) of each."""
    yield from ((COLOURS["incomparable"], f"first of all: {each}") for each in doubts(comparison))
    error = "error" if is_of_two_runs(comparison) else "error/own"
    yield "", f"{'':{widest(comparison)}} {error:>9} {'bits':>8} {'alone':>9}"
    for row, line in table(comparison):
        yield COLOURS.get(row.status, "") if row is not None else "", line
    for row in told(comparison):
        yield "", ""
        yield from (("", line) for line in details(comparison, row, cfg, call))
    if comparison.quantised:
        yield from (("", f"{name}: {decibels:.1f} dB") for name, decibels in comparison.noise_by_layer().items())
    said = [*remarks(comparison)][:8]
    yield from (("", line) for line in ["", *said, *legend(comparison), ""])
    yield COLOURS["bad" if comparison.first else "ok"], summary(comparison)


def text(comparison, cfg, call):
    """One screen, without colours."""
    return "\n".join(visible(line) for _, line in lines(comparison, cfg, call))


def record(comparison):
    """All of it, for machines."""
    first = comparison.first
    return {
        "format": "npgemma.comparison",
        "version": [1, 0],
        "recipe": comparison.recipe,
        "summary": summary(comparison),
        "first": first.name if first else None,
        "causes": [asdict(cause) for cause in first.causes] if first else [],
        "growth": comparison.growth(),
        "logits": comparison.logits,
        "signal_to_noise": comparison.noise_by_layer(),
        "advice": comparison.advice(),
        "doubts": doubts(comparison),
        "notes": list(remarks(comparison)),
        "rows": [asdict(row) for row in comparison.rows],
    }


def junit(comparison):
    """The same as CI reads it: a test case a tensor."""
    cases, failures, skipped = [], 0, 0
    for row in comparison.rows:
        inner = ""
        if row.status == "bad" and not row.expected:
            failures += 1
            words = "; ".join([row.message, *(f"{cause.name}: {cause.sentence}" for cause in row.causes)])
            inner = f"<failure message={quoteattr(visible(words))}/>"
        elif row.status != "ok":
            skipped += 1
            inner = f"<skipped message={quoteattr(visible(row.message or row.status))}/>"
        cases.append(f'  <testcase classname="npgemma.compare" name={quoteattr(row.name)}>{inner}</testcase>')
    head = f'<testsuite name="npgemma compare" tests="{len(cases)}" failures="{failures}" skipped="{skipped}">'
    return "\n".join(['<?xml version="1.0" encoding="utf-8"?>', head, *cases, "</testsuite>", ""])


def page(comparison, cfg, call):
    """The same as a page for a browser, without any script."""
    lines = []
    for row in comparison.rows:
        cells = [row.name, row.theirs, row.status, row.message, "; ".join(cause.sentence for cause in row.causes)]
        numbers = [row.entire.get("ratio"), row.entire.get("share"), row.single.get("share")]
        shown = ["" if each is None or not math.isfinite(each) else f"{each:.6g}" for each in numbers]
        body = "".join(f"<td>{html.escape(visible(each))}</td>" for each in [*cells[:3], *shown, *cells[3:]])
        lines.append(f'<tr class="{row.status}">{body}</tr>')
    head = "".join(
        f"<th>{each}</th>" for each in ("tensor", "there", "", "error / own", "bits", "bits alone", "", "cause")
    )
    style = (
        "td,th{padding:0 .6em;text-align:left;font:13px monospace}.bad{background:#fcc}.follows,.missing{color:#888}"
    )
    screen = html.escape(text(comparison, cfg, call))
    return (
        f'<!doctype html><meta charset="utf-8"><title>npgemma compare</title><style>{style}</style>'
        f"<pre>{screen}</pre><table><tr>{head}</tr>{''.join(lines)}</table>\n"
    )
