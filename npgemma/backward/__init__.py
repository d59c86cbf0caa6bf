"""The model backwards: each file the mirror of a model file, each function the namesake of the one it undoes.

Read ``npgemma/ops.py`` and ``backward/ops.py`` side by side, then attention, text, vision, paligemma.  ``f(d_y, what f
took)`` gives the gradients of f's array arguments in their order; what else it needs it reads from a tape
(:mod:`npgemma.backward.tape`): the tensors of a run, by name.
"""
