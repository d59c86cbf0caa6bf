"""The page: all panels in the order of the computation, in one HTML file that asks nobody for anything."""

import base64
import hashlib
from collections.abc import Callable, Iterable
from typing import Any

from npgemma.base.errors import PackageError
from npgemma.explaining import attending, choosing, comparing, placing, reading, seeing
from npgemma.explaining.heat import ONE_SIGN, TWO_SIGNS, scale
from npgemma.explaining.panel import Panel
from npgemma.explaining.run import Run

SEEING: tuple[Callable[[Run], Panel], ...] = (
    seeing.patches, seeing.positions, seeing.vision_block, attending.tower_looks, seeing.connector,
)
READING: tuple[Callable[[Run], Panel], ...] = (
    reading.token_table, reading.splice, reading.decoder_block, reading.rotation, attending.who_may_look,
    attending.shared_heads, attending.decoder_looks, reading.norms, reading.soft_cap, reading.gated_mlp,
    reading.residual, choosing.lens, choosing.choice, choosing.memory,
)


def panels(run: Run, other: Run | None = None) -> list[Panel]:
    """All panels of a run, and those that compare it with another; without a picture, none about seeing and places."""
    chosen = (*SEEING, *READING, placing.places) if run.sees else READING
    compared = [] if other is None else [comparing.answers(run, other), comparing.tensors(run, other)]
    return [panel(run) for panel in chosen] + compared


def engine() -> Any:
    """The templates, with automatic escaping.

    Raises
    ------
    PackageError
        Without jinja2.
    """
    try:
        import jinja2
    except ImportError:
        raise PackageError("the page needs jinja2, which is not installed: pip install 'npgemma[explain]'") from None
    return jinja2.Environment(
        loader=jinja2.PackageLoader("npgemma.explaining"), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )


def page(run: Run, panels: Iterable[Panel], engine: Any) -> str:
    """Write the page.

    Parameters
    ----------
    run : Run
    panels : iterable of Panel
        From :func:`panels`.
    engine : jinja2.Environment
        From :func:`engine`.
    """
    script = engine.get_template("page.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    written: str = engine.get_template("page.html").render(
        run=run, panels=list(panels), script=script, digest=digest,
        one_sign=scale(ONE_SIGN), two_signs=scale(TWO_SIGNS),
    )
    return written
