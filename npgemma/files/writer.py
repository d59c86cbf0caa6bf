"""The one writer: a file appears whole under its name or not at all, and a file of lines loses none.

``with writing(path) as output: output.write(data)`` writes beside the name, brings it to the disk, and renames it.
``with writing_folder(path) as folder`` does so with a folder.  ``with growing(path) as lines: lines.add(data)`` adds
whole lines under a lock.  All name the file in whatever goes wrong.  What a killed process leaves is called
``.NAME.partial``; the next one that writes NAME removes it.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from npgemma.base.describe import size_of
from npgemma.base.errors import OutputError
from npgemma.files.reader import why

try:
    import fcntl
except ImportError:  # Windows: nobody is kept from writing the same file at the same time
    fcntl = None  # type: ignore[assignment]

OPTIONS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
NO_LINK = getattr(os, "O_NOFOLLOW", 0)


class Output:
    """A binary file that is being written; what goes wrong with it names the file that it will be."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.path = path

    def write(self, data) -> None:
        """Write all of some bytes."""
        with naming(self.path):
            left = memoryview(data).cast("B")
            while len(left):
                left = left[self.file.write(left) :]

    def seek(self, place: int) -> None:
        """Go to a byte, counted from the beginning."""
        with naming(self.path):
            self.file.seek(place)


@contextlib.contextmanager
def writing(path: Path | str, force: bool = False, nbytes: int = 0) -> Iterator[Output]:
    """Write a file that either appears whole under its name, or not at all.

    Parameters
    ----------
    path : path
        A new file, unless ``force``.
    force : bool
        Take the place of what is there; it stays until the new file is whole.
    nbytes : int
        How large it will be, if that is known: refused where there is no room.

    Yields
    ------
    output : Output

    Raises
    ------
    OutputError
        If the file exists, cannot be written, or is being written by another process.
    """
    path = Path(path)
    check_target(path, force, nbytes)
    partial = path.with_name(f".{path.name}.partial")
    file = None
    try:
        file = fresh(partial, path)
        yield Output(file, path)
        with naming(path):
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows renames no open file
            check_target(path, force)  # it may have appeared meanwhile
            os.replace(partial, path)
            remember(path.parent)
    except BaseException as problem:
        with contextlib.suppress(OSError, OutputError):  # the error that matters is the one under way
            if file is not None:
                partial.unlink()
            elif isinstance(problem, KeyboardInterrupt):
                # It came between making the file and knowing it: what nobody has locked is ours, or nobody's.
                with locked(partial, path, NO_LINK):
                    partial.unlink()
        raise
    finally:
        if file is not None:
            file.close()


@contextlib.contextmanager
def writing_folder(path: Path | str, nbytes: int = 0) -> Iterator[Path]:
    """Fill a new folder that either appears whole under its name, or not at all.

    Yields
    ------
    partial : Path
        The folder under another name, empty.

    Raises
    ------
    OutputError
        If there is something of that name, it cannot be written, or another process is writing it.
    """
    path = Path(path)
    check_target(path, None, nbytes)
    partial = path.with_name(f".{path.name}.partial")
    descriptor = None
    try:
        with naming(path):
            descriptor = own_folder(partial, path)
        yield partial
        with naming(path):
            check_target(path, None)  # it may have appeared meanwhile
            partial.rename(path)
            remember(path.parent)
    except BaseException as problem:
        with contextlib.suppress(OSError, OutputError):
            if descriptor is None and isinstance(problem, KeyboardInterrupt):
                descriptor = own_folder(partial, path)  # as above
            if descriptor is not None or fcntl is None:
                shutil.rmtree(partial)
        raise
    finally:
        if descriptor is not None:
            os.close(descriptor)


def own_folder(partial: Path, path: Path) -> int | None:
    """Make an empty folder that is locked while the descriptor is open; what a killed process left there is removed."""
    while True:
        partial.mkdir(exist_ok=True)
        if fcntl is None:
            shutil.rmtree(partial)
            partial.mkdir()
            return None
        descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | NO_LINK)
        try:
            lock(descriptor, path)
            if not os.listdir(descriptor) and os.path.samestat(os.fstat(descriptor), os.stat(partial)):
                return descriptor
            shutil.rmtree(partial)
        except FileNotFoundError:
            pass  # another process has renamed or removed it meanwhile
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def write_file(path: Path | str, data: bytes, force: bool = False) -> None:
    """Write a whole file at once, as :func:`writing` does."""
    with writing(path, force, len(data)) as output:
        output.write(data)


def check_target(path: Path | str, force: bool | None = False, nbytes: int = 0) -> None:
    """Refuse, before anything is computed, a target that cannot be written; ``force`` None: nothing can be replaced."""
    path = Path(path)
    with naming(path):
        if os.path.lexists(path):
            if not force:
                more = "" if force is None else ", or force=True (--force) to replace it"
                raise OutputError(f"{path}: exists already; choose another name{more}")
            if not stat.S_ISREG(os.stat(path).st_mode):
                raise OutputError(f"{path}: is no regular file, and would be lost; choose another name")
        if not os.path.isdir(path.parent):
            raise OutputError(f"{path}: there is no folder {path.parent}; make it first")
        free = shutil.disk_usage(path.parent).free
        if free < nbytes:
            raise OutputError(f"{path}: needs {size_of(nbytes)}, {size_of(free)} are free there; write less")


def check_folder_name(path: Path | str) -> None:
    """Refuse a file's suffix where a folder is written."""
    suffix = Path(path).suffix
    if suffix in (".safetensors", ".npz", ".npy", ".json", ".jsonl", ".zip", ".bin", ".gguf", ".html"):
        raise OutputError(f"{path}: a folder is written here, and {suffix} is a file's suffix; leave it out")


class Lines:
    """A file of lines that this process alone adds to; see :func:`growing`."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.file = file
        self.path = path

    def read(self) -> bytes:
        """All that the file holds."""
        with naming(self.path):
            self.file.seek(0)
            return self.file.read()

    def cut(self, size: int) -> None:
        """Keep the first ``size`` bytes only."""
        with naming(self.path):
            self.file.truncate(size)

    def add(self, line: bytes) -> None:
        """Add one line, its end included: it is on the disk, or nothing of it is left and an error says why."""
        size = os.fstat(self.file.fileno()).st_size
        try:
            with naming(self.path):
                self.file.seek(size)
                Output(self.file, self.path).write(line)
                os.fsync(self.file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                self.file.truncate(size)
            raise

    def replace(self, lines: Iterable[bytes]) -> None:
        """Put other lines in the place of all; the old ones stay until the new ones are on the disk."""
        with writing(self.path, force=True) as output:
            for line in lines:
                output.write(line)
            # A second descriptor of one open file holds its lock too, so that there is no moment without.
            successor = open(os.dup(output.file.fileno()), "r+b", buffering=0)
        self.file.close()
        self.file = successor


@contextlib.contextmanager
def growing(path: Path | str) -> Iterator[Lines]:
    """Open a file of lines to add to, new or not, so that no other process writes it meanwhile.

    Yields
    ------
    lines : Lines

    Raises
    ------
    OutputError
        If it is no regular file, cannot be written, or another process has it open here.
    """
    # A link stays a link: what it leads to grows.
    path = Path(os.path.realpath(path))
    with naming(path):
        if os.path.lexists(path) and not stat.S_ISREG(os.stat(path).st_mode):
            raise OutputError(f"{path}: is no regular file; leave the option out, and redirect standard output")
    new = not os.path.lexists(path)
    lines = None
    try:
        lines = Lines(locked(path, path), path)
        yield lines
    finally:
        if lines is not None:
            # A run that came to nothing leaves nothing.
            if new and os.fstat(lines.file.fileno()).st_size == 0:
                with contextlib.suppress(OSError):
                    path.unlink()
            lines.file.close()


def fresh(partial: Path, path: Path) -> BinaryIO:
    """Open an empty file of our own, locked; what a killed process left under its name is removed."""
    while True:
        file = locked(partial, path, NO_LINK)
        if os.fstat(file.fileno()).st_size == 0:
            return file
        with naming(path), file:
            partial.unlink()


def locked(place: Path, path: Path, more: int = 0) -> BinaryIO:
    """Open a file for reading and writing, made if it is missing, and lock it; errors speak of ``path``."""
    while True:
        with naming(path):
            file = open(os.open(place, OPTIONS | more, 0o666), "r+b", buffering=0)
        try:
            lock(file, path)
            # It may have been renamed or removed between opening and locking; then the lock is on another file.
            if os.path.samestat(os.fstat(file.fileno()), os.stat(place)):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()


def lock(file: BinaryIO | int, path: Path) -> None:
    """Lock an open file as long as it is open, or refuse it if another process has done so."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"{path}: another process is writing it; let it end, or choose another name") from None
    except OSError:  # a file system without locks
        return


def remember(folder: Path) -> None:
    """Bring a folder's list of names to the disk, where the system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn whatever the system refuses into an error that names the file."""
    try:
        yield
    except OutputError:
        raise
    except (OSError, ValueError) as problem:  # ValueError: a path that no file can have
        raise OutputError(f"{path}: cannot be written: {why(problem)}") from None
