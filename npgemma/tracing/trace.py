"""A trace: every tensor of a run, or some of them, by name, in order of execution.

``npgemma.trace(model, image, prompt)`` gives ``{name: array}``; with ``out`` the arrays go to a file one at a time and
are mapped from there.  Generated tokens come as ``step.0.…``, ``step.1.…``; the prompt's tensors have no such prefix.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from npgemma.base.describe import describe, number_of, size_of
from npgemma.base.device import to_host
from npgemma.base.errors import InputError, InputTypeError, NonfiniteError, TensorError
from npgemma.base.named import Named
from npgemma.base.version import version
from npgemma.files.arrays_writer import format_of, writing_arrays
from npgemma.files.safetensors_file import open_safetensors
from npgemma.generation.generate import generate
from npgemma.generation.requests import Request
from npgemma.generation.settings import check_callable
from npgemma.paligemma import Model, forward
from npgemma.tracing import trace_file
from npgemma.tracing.plan import Plan, ask, check_size, given, plan
from npgemma.tracing.precisions import in_precision
from npgemma.tracing.selection import nearest


@dataclass(frozen=True, repr=False)
class Trace(Named):
    """Read-only arrays by name, in order of execution.

    Parameters
    ----------
    arrays : dict of str to array
    manifest : dict
        What was run and how: ``model precision convention prompt ids positions axes run changed …``.
    """

    arrays: dict[str, np.ndarray]
    manifest: dict[str, Any]

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.arrays:
            near = ", ".join(nearest(str(name), self.arrays)) or "none"
            raise TensorError(f"no tensor {name!r} among the {len(self)} of this trace; nearest: {near}")
        return self.arrays[name]

    def __repr__(self) -> str:
        nbytes = sum(array.nbytes for array in self.arrays.values())
        count = number_of(len(self), "tensor")
        head = f"Trace of {count}, {size_of(nbytes)}, {self.manifest['precision']}, {self.manifest['run']}"
        axes = self.manifest["axes"]
        return "\n".join([head, *(describe(array, name, axes[name]) for name, array in self.items())])

    def _repr_html_(self) -> str:
        from npgemma.base.markup import table_of_arrays  # nothing else of a trace writes HTML

        about = " ".join(str(self.manifest[key]) for key in ("model", "precision", "image", "prompt", "run"))
        return table_of_arrays(f"Trace of {number_of(len(self), 'tensor')}: {about}", self, self.manifest["axes"])


def trace(
    model: Model,
    image: Any = None,
    prompt: str = "",
    *,
    ids: Any = None,
    pixels: Any = None,
    only: str | Iterable[str] | None = None,
    rows: Any = None,
    stop_after: str | Iterable[str] | None = None,
    max_new_tokens: int = 0,
    precision: str | None = None,
    observe: Callable[[str, Any], Any] | None = None,
    out: str | Path | None = None,
    force: bool = False,
) -> Trace:
    """Run the model on a picture and a prompt, and keep what it computes.

    Parameters
    ----------
    model : Model
    image, prompt, ids, pixels
        As in :func:`npgemma.generate`.
    only : str or iterable of str, optional
        Patterns such as ``text.blocks.*.attn.probs``, also several between commas; all tensors if left out.
    rows : int, slice, iterable of int or str, optional
        Which positions of the prompt to keep: ``-1``, ``"0:4,-1"``.
    stop_after : str or iterable of str, optional
        The first tensor that fits is the last one computed.
    max_new_tokens : int
        How many tokens to generate, greedily; 0 reads the prompt only and scores all its positions.
    precision : str, optional
        ``float64``, ``float32``, ``bf16-hf-eager``, ``bf16-f32-inside``; the model's own if left out.
    observe : callable, optional
        ``observe(name, array)`` sees each tensor; what it returns goes on in its place (see :mod:`npgemma.check`).
    out : path, optional
        A new ``.safetensors`` file to write to, one tensor at a time; the arrays are then mapped from it.
    force : bool
        Allow a trace above :data:`npgemma.tracing.plan.LIMIT`, and let ``out`` replace a file that is there.

    Returns
    -------
    trace : Trace

    Raises
    ------
    InputError
        If a pattern fits no tensor, a row is outside the prompt, the trace would be too large, or a replacement has
        another shape or dtype.
    OutputError
        If ``out`` exists or cannot be written; nothing half-written stays.
    """
    check_callable("observe", observe)
    check_target_name(out)
    question = ask(model, Request(image, prompt, ids, pixels))
    planned = plan(in_precision(model, precision), question, only, rows, stop_after, max_new_tokens, observe)
    return run(planned, out, force)


def trace_forward(
    model: Model,
    ids,
    pixels=None,
    token_types=None,
    attention_mask=None,
    positions=None,
    *,
    precision: str | None = None,
    out: str | Path | None = None,
    force: bool = False,
    **chosen,
) -> Trace:
    """Keep what one :func:`npgemma.forward` computes: batches, suffixes, padding and all.

    Parameters
    ----------
    model, ids, pixels, token_types, attention_mask, positions
        As in :func:`npgemma.forward`.
    precision, out, force
        As in :func:`trace`.
    **chosen
        ``only``, ``rows``, ``stop_after``, ``observe``, as in :func:`trace`.

    Returns
    -------
    trace : Trace
    """
    check_target_name(out)
    question = given(model.config, ids, pixels, token_types, attention_mask, positions)
    return run(plan(in_precision(model, precision), question, **chosen), out, force)


def check_target_name(out: Any) -> None:
    """Refuse what is no name of a file, before anything is computed."""
    if out is not None and not isinstance(out, str | os.PathLike):
        raise InputTypeError(f"came as {out!r:.80}; want the path of a new .safetensors file", argument="out")
    if out is not None and Path(out).suffix != ".safetensors":
        raise InputError(f"came as {str(out)!r:.80}; want a name that ends in .safetensors", argument="out")


def run(planned: Plan, out: str | Path | None = None, force: bool = False) -> Trace:
    """Carry a plan out, into memory or into a file."""
    if out is not None:
        run_to_file(planned, out, force)
        return read(out)
    check_size(planned, force)
    arrays: dict[str, np.ndarray] = {}
    watch = Watch(planned, arrays.__setitem__)
    answer = carry_out(planned, watch)
    return Trace(arrays, manifest(planned, watch.changed, watch.first_nonfinite, answer))


def run_to_file(planned: Plan, out: str | Path, force: bool = False, tell=None) -> "Watch":
    """Carry a plan out into a file, one tensor at a time.

    Parameters
    ----------
    planned : Plan
    out : path
        ``.safetensors``, ``.npz``, or a folder for ``.npy`` files.
    force : bool
        Allow a trace above the limit, and take the place of a file that is there.
    tell : callable, optional
        ``tell(name, array)`` is called with each kept array once it is written.

    Returns
    -------
    watch : Watch
        Which knows what was changed, and what was not finite.
    """
    check_size(planned, force)
    with opened(planned, Path(out), force) as (write, finish):

        def put(name, array):
            write(name, array)
            if tell is not None:
                tell(name, array)

        watch = Watch(planned, put)
        finish(watch, carry_out(planned, watch))
    return watch


@contextlib.contextmanager
def opened(planned: Plan, out: Path, force: bool):
    """Open the file that a name's suffix asks for; gives what takes a tensor, and what takes the record of the run."""
    if format_of(out) != ".safetensors":  # NumPy's formats hold arrays alone
        with writing_arrays(out, force, planned.nbytes) as put:
            yield put, lambda watch, answer: None
        return
    with trace_file.writing(out, planned.shapes, largest_manifest(planned), planned.nbytes, force) as file:
        yield file.put, lambda watch, answer: file.finish(
            manifest(planned, watch.changed, watch.first_nonfinite, answer)
        )


def file_size(planned: Plan) -> int:
    """Bytes of the ``.safetensors`` file that a plan becomes; a generation that ends early makes a smaller one."""
    return 8 + trace_file.header_room(planned.shapes, largest_manifest(planned), planned.nbytes) + planned.nbytes


def read(path: str | Path) -> Trace:
    """Read a trace that was written to a file; its arrays are mapped, not loaded.

    Raises
    ------
    CheckpointError
        If the file is damaged, or no trace.
    """
    mapped = open_safetensors(Path(path))
    return Trace(trace_file.read_tensors(mapped), trace_file.read_manifest(mapped))


class Stopped(Exception):
    """All that was wanted has been seen; the rest of the model need not run."""


class Watch:
    """The observer of a trace: numbers the steps, keeps what is planned, and stops where nothing more is wanted.

    Parameters
    ----------
    planned : Plan
    put : callable
        ``put(name, array)`` takes each kept array, read-only.
    """

    def __init__(self, planned: Plan, put: Callable[[str, np.ndarray], Any]) -> None:
        self.planned = planned
        self.put = put
        self.name_of = Numbering()
        self.last = planned.last
        self.changed: list[str] = []
        self.first_nonfinite = ""

    def __call__(self, short: str, x):
        name = self.name_of(short)
        replacement = None if self.planned.observe is None else self.planned.observe(name, x)
        if replacement is not None:
            self.changed.append(name)
            if not fits(replacement, x):
                return replacement  # Weights.show refuses it, and says why.
        current = x if replacement is None else replacement
        if not self.first_nonfinite and not all_finite(current):
            self.first_nonfinite = name
        tensor = self.planned.tensors.get(name)
        if tensor is not None:
            self.put(name, frozen(current, self.planned.rows_of(name), tensor.letters))
        if name == self.last:
            raise Stopped
        return replacement


class Numbering:
    """Full names of a generation's tensors: the prompt's as they are, then ``step.0.…``, ``step.1.…``.

    Each call of the model shows its ids once, so that they tell one call from the next.
    """

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, short: str) -> str:
        self.calls += short == "ids"
        return short if self.calls < 2 else f"step.{self.calls - 2}.{short}"


def fits(replacement, x) -> bool:
    """Tell whether a tensor can stand in another's place."""
    return getattr(replacement, "shape", None) == x.shape and replacement.dtype == x.dtype


def all_finite(x) -> bool:
    """Tell whether an array holds neither NaN nor infinity."""
    if x.dtype.kind != "f":
        return True
    # One sum is cheaper than a look at each value, and finite sums have finite terms.
    with np.errstate(over="ignore", invalid="ignore"):
        return math.isfinite(float(np.sum(x))) or bool(np.all(np.isfinite(x)))


def frozen(x, rows: tuple[int, ...] | None, letters: str) -> np.ndarray:
    """Give a read-only array of the chosen positions, on the host; the layer's own array stays as it is."""
    host = to_host(x)
    axes = letters.split()
    kept = host.view() if rows is None or "T" not in axes else np.take(host, rows, axes.index("T"))
    kept.flags.writeable = False
    return kept


def carry_out(planned: Plan, watch: Watch) -> list[int] | None:
    """Run the model under a watch, to its end or to the last tensor that is wanted.

    Returns
    -------
    answer : list of int or None
        The ids that were generated; None if nothing was, or if the run was stopped before its end.
    """
    question = planned.question
    try:
        if not planned.max_new_tokens:
            forward(
                planned.model, question.ids, question.pixels, question.token_types, question.attention_mask,
                question.positions, observe=watch,
            )
            return None
        [ids] = question.ids.tolist()
        pixels = None if question.pixels is None else question.pixels[0]
        length = planned.max_new_tokens
        return list(generate(planned.model, ids=ids, pixels=pixels, max_new_tokens=length, observe=watch).ids)
    except (Stopped, NonfiniteError):  # what is not finite is in the trace, and its manifest names the first
        return None


def manifest(planned: Plan, changed: list[str], first_nonfinite: str = "", answer: list[int] | None = None) -> dict:
    """Say what a trace is of.

    Parameters
    ----------
    planned : Plan
    changed : list of str
        Tensors that an observer put others in the place of.
    first_nonfinite : str
        The first tensor with NaN or infinity, if there was one.
    answer : list of int, optional
        The ids that were generated.
    """
    model, question = planned.model, planned.question
    return {
        "format": trace_file.FORMAT,
        "version": trace_file.VERSION,
        "npgemma": version(),
        "numpy": np.__version__,
        "run": "changed: some tensors were put in place of computed ones" if changed else "plain",
        "changed": changed,
        "model": model.name,
        "precision": model.weights.precision.name,
        "convention": model.config.conventions.name,
        "config": asdict(model.config),
        "image": question.image,
        "prompt": question.prompt,
        "notes": question.notes,
        "ids": question.ids.tolist(),
        "token_types": question.token_types.tolist(),
        "attention_mask": question.attention_mask.tolist(),
        "positions": question.positions.tolist(),
        "answer": answer,
        "only": planned.only,
        "rows": planned.rows,
        "stop_after": planned.stop_after,
        "axes": {name: tensor.letters for name, tensor in planned.tensors.items()},
        "first_nonfinite": first_nonfinite,
    }


def largest_manifest(planned: Plan) -> dict:
    """A manifest as long as it can become: every tensor changed, every token generated."""
    changed = [] if planned.observe is None else list(planned.everything)
    longest = max(planned.everything, key=len)
    return manifest(planned, changed, longest, [planned.model.config.text.vocab_size] * planned.max_new_tokens)
