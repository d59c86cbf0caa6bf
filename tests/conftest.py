"""The tests run as the command does: with one BLAS thread, for BLAS's own spin where other work takes a processor."""

from npgemma.base import threads

threads.take_over()
