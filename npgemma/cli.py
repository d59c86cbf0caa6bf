"""The command: which verbs there are, what becomes of an error, and the exit codes.

Each verb is a module of :mod:`npgemma.verbs` with two functions: ``add(subparsers)`` describes its arguments,
``run(args)`` does it and returns the exit code.  Only the verb that was asked for is imported.
"""

import argparse
import contextlib
import importlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

from npgemma.base import option_names, printer, progress, threads
from npgemma.base.errors import (
    CheckpointError,
    ConfigError,
    ImageError,
    InputError,
    NonfiniteError,
    NpgemmaError,
    TokenizerError,
)
from npgemma.base.version import version

DONE, WRONG_INPUT, BROKEN_FILE, MISMATCH, INCOMPARABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130

VERBS = (
    "generate", "score", "evaluate", "trace", "step", "explain", "finetune", "names", "plan", "doctor",
    "compare", "pack", "vectors", "feed", "inject", "faults",
)  # fmt: skip

# These say that a file is broken, or not what it is taken for; all other errors are about what the user asked.
FILE_ERRORS = (CheckpointError, ConfigError, ImageError, NonfiniteError, TokenizerError)

# Bytes of address space below which NumPy cannot be imported, and below which each thread of its BLAS takes too much.
LEAST_ROOM, ROOM_FOR_THREADS = 2**28, 2**32

# Errors carry the argument of the Python function; in a terminal it is an option.
OPTIONS = {
    "adapter": "--adapter",
    "codec": "--codec",
    "device": "--device",
    "freeze": "--freeze",
    "held_out": "--held-out",
    "ids": "--ids",
    "length_penalty": "--length-penalty",
    "max_new_tokens": "--max-tokens",
    "min_new_tokens": "--min-tokens",
    "min_confidence": "--min-confidence",
    "min_p": "--min-p",
    "num_beams": "--beams",
    "lora": "--lora",
    "num_return": "-n",
    "on": "--on",
    "precision": "--precision",
    "only": "--only",
    "repetition_penalty": "--repetition-penalty",
    "replace": "--replace",
    "rows": "--rows",
    "scores": "--score",
    "seed": "--seed",
    "stop": "--stop",
    "threads": "--threads",
    "stop_ids": "--stop-id",
    "suppress_ids": "--suppress-id",
    "temperature": "--temperature",
    "top_k": "--top-k",
    "top_p": "--top-p",
}

# Where a message says what to write in Python, ``force=True (--force)``, the command leaves the option.
ASIDE = re.compile(r"[\w='\"]+ \((--[a-z-]+)\)")

DESCRIPTION = """PaliGemma 1 and 2 in pure NumPy: ask about a picture, and look at every tensor on the way.

  npgemma generate                          the model and a picture in the box
  npgemma generate cat.jpg "caption en"     the same model, your picture
  npgemma generate cat.jpg "detect cat" --model google/paligemma2-3b-mix-224

Nothing is ever downloaded: --model takes a folder, or a hub id that lies in the local Hugging Face cache."""

EPILOG = """exit codes: 0 done, 1 wrong usage or input, 2 broken file, 3 mismatch found, 4 nothing to compare,
130 interrupted"""


class Ended(KeyboardInterrupt):
    """The system told this process to end; whoever cleans up after Ctrl-C cleans up after this too."""


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no half of an option's name, and whose mistakes end with code 1, not 2."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message):
        self.exit(WRONG_INPUT, f"{self.prog}: {message}\nTry '{self.prog} --help'.\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    argv : sequence of str, optional
        Without the program's name; those of the process if left out.

    Returns
    -------
    code : int
        0 done, 1 wrong usage or input, 2 broken file, 3 mismatch found, 4 nothing to compare, 130 interrupted.
    """
    if "_ARGCOMPLETE" in os.environ and argv is None:
        complete(os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])])
    words = list(sys.argv[1:] if argv is None else argv)
    threads.take_over()  # the verbs import NumPy
    with printer.terminal(), ended_by_signals():
        if sys.stdout is None:
            return complain("standard output is closed, and what is said there would be lost", WRONG_INPUT)
        try:
            code = run(words)
            sys.stdout.flush()  # a closed pipe shall show itself here, not in the interpreter's last breath
            return code
        except SystemExit as end:  # argparse ends so, after --help and after a mistake
            return int(end.code or 0)
        except BaseException as error:
            return code_of(error)


def code_of(error: BaseException) -> int:
    """Say what became of a command, and give its exit code; a mistake of our own goes on as it is."""
    if isinstance(error, Ended):
        number = signal.Signals(error.args[0])
        return complain(f"ended by {number.name}", 128 + number)
    if isinstance(error, KeyboardInterrupt):
        return complain("interrupted", INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        silence_stdout()
        return INTERRUPTED
    if isinstance(error, NpgemmaError):
        message = ASIDE.sub(r"\1", error.naming(OPTIONS.get(error.argument or "", error.argument)))
        return complain(message, BROKEN_FILE if isinstance(error, FILE_ERRORS) else WRONG_INPUT)
    if isinstance(error, NotImplementedError):
        return complain(error, WRONG_INPUT)
    if isinstance(error, OSError):
        return complain(f"{error.filename or 'output'}: {error.strerror or error}", WRONG_INPUT)
    if type(error).__module__.partition(".")[0].partition("_")[0] == "cupy":
        return complain(of_card(error), WRONG_INPUT)
    if isinstance(error, MemoryError):
        advice = "'npgemma plan' tells what a model needs; --dtype bfloat16 halves it"
        return complain(f"not enough memory ({error or 'an array could not be made'}); {advice}", WRONG_INPUT)
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return complain("no further thread can be started: memory, or the number of processes, is limited", WRONG_INPUT)
    raise error


def of_card(error: BaseException) -> str:
    """Say what a graphics card complains of: an error of CuPy's, which is not imported here."""
    said = " ".join(str(error).split())[:200]
    if isinstance(error, MemoryError):
        return (
            f"the card's memory is full ({said}); --dtype bfloat16 halves the weights, fewer questions at once "
            "(--batch-size), beams or examples (--micro) need less, and so does leaving --device out"
        )
    return f"the card failed ({said}); 'nvidia-smi' shows its state, and without --device the processor computes"


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM, and SIGHUP where nobody ignores it, end a command as Ctrl-C does: half-written files are removed."""

    def end(number, _):
        raise Ended(number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [getattr(signal, name) for name in names if signal.getsignal(getattr(signal, name)) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread may
    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def signals_waiting() -> Iterator[None]:
    """Let signals wait while NumPy is imported: its C code makes an ImportError of one that comes in its midst."""
    came: list[int] = []
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers: dict[int, Callable[..., object]] = {}
    for number in numbers:
        handler = signal.getsignal(number)
        if callable(handler) and threading.current_thread() is threading.main_thread():  # only that one may
            handlers[number] = handler
    for number in handlers:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for number in came:
        handlers[number](number, None)


def run(words: Sequence[str]) -> int:
    """Parse the words of a command and do it."""
    if words[:1] == ["help"]:  # as git has it: npgemma help generate
        words = [*words[1:2], "--help"]
    if not words or words[0] not in VERBS:
        parser, _ = build_parser()
        if words and not words[0].startswith("-"):
            parser.error(option_names.of_verb(words[0], VERBS))
        parser.add_argument("--version", action="version", version=f"npgemma {version()}")
        _, unknown = parser.parse_known_args(words)  # --help, or a mistake
        if unknown:
            near = option_names.meant(unknown[0], ["--version", "--help"])
            parser.error(f"unknown arguments: {' '.join(unknown)}{near}")
        parser.print_help()
        return DONE
    check_room()
    with signals_waiting():
        _, verbs = build_parser(words[:1])
    # The verb's own parser reads its words: only so may options stand between IMAGE and PROMPT.
    parser = verbs[words[0]]
    args, unknown = parser.parse_known_intermixed_args(option_names.dashed(words[1:]))
    if unknown:
        known = parser._option_string_actions
        parser.error(f"unknown arguments: {' '.join(unknown)}{option_names.meant(unknown[0], known)}")
    progress.say_lines(args.progress)
    code: int = args.run(args)
    return code


def check_room() -> None:
    """Refuse too small an address space before NumPy is imported: its BLAS ends the process by a signal there.

    Raises
    ------
    InputError
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    if limit < LEAST_ROOM:
        raise InputError(f"'ulimit -v' leaves {limit >> 10:,} kB of address space; want {LEAST_ROOM >> 10:,} or more")
    if limit < ROOM_FOR_THREADS:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def build_parser(verbs: Iterable[str] = VERBS) -> tuple[Parser, dict[str, Parser]]:
    """Describe the command, with the arguments of ``verbs``; gives its parser, and that of each verb."""
    parser = Parser("npgemma", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawTextHelpFormatter)
    subparsers = parser.add_subparsers(title="verbs", metavar="VERB", parser_class=Parser)
    for verb in verbs:
        importlib.import_module(f"npgemma.verbs.{verb}").add(subparsers)
    for each in subparsers.choices.values():
        each.add_argument("--progress", action="store_true",
                          help="say how far it is even where stderr is no terminal, in lines")
        option_names.add_other_names(each)
    return parser, dict(subparsers.choices)


def complete(line: str) -> None:
    """Answer a shell that asks how a line could go on, and end; without argcomplete nothing is answered."""
    try:
        import argcomplete
    except ImportError:
        return
    verb = (line.split() + [""])[1]
    if verb in VERBS and not line.endswith(verb):
        parser, _ = build_parser([verb])
    else:  # their names are enough, and no verb need be imported
        parser = Parser("npgemma")
        verbs = parser.add_subparsers()
        for each in VERBS:
            verbs.add_parser(each)
    argcomplete.autocomplete(parser)


def complain(message: object, code: int) -> int:
    """Say on stderr, in one line, why the command ends."""
    with contextlib.suppress(OSError):
        printer.tell(message)
    return code


def silence_stdout() -> None:
    """Point standard output at nothing: its reader has gone, and Python flushes it once more at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
