"""What a comparison of the op tier found."""

from dataclasses import asdict


def first_bad(rows):
    """The first case that is wrong."""
    return next((row for row in rows if row.status == "bad" and not row.expected), None)


def summary(rows):
    """One line."""
    counts = {status: sum(row.status == status for row in rows) for status in ("ok", "bad", "incomparable", "missing")}
    first = first_bad(rows)
    found = f"the first that differs is {first.name}" if first else "none differs"
    return (
        f"{counts['ok'] + counts['bad']} results compared, {counts['missing']} not there, {counts['incomparable']}"
        f" incomparable: {found}"
    )


def text(rows):
    """One screen: what is wrong, then the summary."""
    lines = []
    for row in [row for row in rows if row.status in ("bad", "incomparable")][:20]:
        lines.append(f"{row.name}: {row.message}")
        if row.worst:
            lines.append(
                f"  worst element {row.worst['index']}: {row.worst['theirs']:.9g}, want {row.worst['want']:.9g}"
            )
    return "\n".join([*lines, summary(rows)])


def record(rows, recipe):
    """All of it, for machines."""
    first = first_bad(rows)
    return {
        "format": "npgemma.comparison",
        "version": [1, 0],
        "recipe": recipe,
        "summary": summary(rows),
        "first": first.name if first else None,
        "rows": [asdict(row) for row in rows],
    }
