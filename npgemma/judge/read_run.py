"""A file of ``npgemma trace`` in the place of a pack: one run, without a float64 run beside it."""

from dataclasses import dataclass
from pathlib import Path

from npgemma.base.errors import CheckpointError
from npgemma.config import Config
from npgemma.files.safetensors_file import MappedFile, open_safetensors
from npgemma.judge.read_config import config_in
from npgemma.judge.read_pack import question_in
from npgemma.tracing import trace_file


@dataclass(frozen=True)
class Run:
    """A file of ``npgemma trace``, taken for right: its tensors, and what it was asked.

    Parameters
    ----------
    file : MappedFile
    manifest : dict
    cfg : Config
    given : dict of str to array
        ``ids token_types attention_mask positions``, and the pictures if the trace holds them.
    """

    file: MappedFile
    manifest: dict
    cfg: Config
    given: dict


def open_run(path):
    """Read what a trace says of itself.

    Raises
    ------
    CheckpointError
        If it is no trace, is damaged, or was changed on purpose.
    """
    file = open_safetensors(Path(path))
    said = trace_file.read_manifest(file)
    cfg = config_in(said, path)
    if said["run"] != "plain" or said.get("rows") is not None:
        raise CheckpointError(f"{path}: holds changed tensors, or chosen rows; want a plain trace of whole tensors")
    given = question_in(said, path)
    if "pixels" in file.tensors:
        given["pixels"] = trace_file.read_tensor(file, "pixels")
    return Run(file, said, cfg, given)
