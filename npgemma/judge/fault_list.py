"""All faults that the judge knows, by name, and the other ways to be right."""

from npgemma.judge import (
    faults_attention,
    faults_masks,
    faults_mlp,
    faults_norms,
    faults_products,
    faults_resizing,
    faults_rotation,
    faults_steps,
    faults_vision,
)
from npgemma.judge.faults import Fault

FILES = (
    faults_resizing,
    faults_vision,
    faults_norms,
    faults_mlp,
    faults_rotation,
    faults_attention,
    faults_masks,
    faults_steps,
    faults_products,
)
FAULTS: dict[str, Fault] = {fault.name: fault for file in FILES for fault in file.FAULTS}
# Computed otherwise and as right: no alarm, but worth a word.
VARIANTS: dict[str, Fault] = {fault.name: fault for file in (faults_norms, faults_mlp) for fault in file.VARIANTS}
