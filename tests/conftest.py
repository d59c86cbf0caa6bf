"""The tests run as the command does: with one BLAS thread, for BLAS's own spin where other work takes a processor.

Ctrl-C reaches what they start even where a shell, which runs them in the background, has told it to be ignored.
"""

import signal

from npgemma.base import threads

threads.take_over()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
