"""What npgemma raises: each error says the place, what came, what was wanted, and what to do.

Every class inherits :class:`NpgemmaError` and the built-in that fits, so that both ``except NpgemmaError`` and
``except ValueError`` work.
"""


class NpgemmaError(Exception):
    """Any mistake in an input that npgemma found: a file, a picture, a prompt, an argument."""


class InputError(NpgemmaError, ValueError):
    """An argument of a public function has a wrong shape, dtype or range."""


class InputTypeError(InputError, TypeError):
    """An argument of a public function is of a wrong kind."""


class ConfigError(NpgemmaError, ValueError):
    """A ``config.json`` (or a configuration record) describes no model that npgemma can run."""


class CheckpointError(NpgemmaError, ValueError):
    """A weight file, or a folder of them, is broken or does not fit its configuration."""


class ImageError(NpgemmaError, ValueError):
    """A picture cannot be read, or reading it would lose something silently."""


class TokenizerError(NpgemmaError, ValueError):
    """A tokenizer file is broken, or belongs to another model."""


class PromptError(NpgemmaError, ValueError):
    """A prompt cannot be tokenised as asked."""


class OutputError(NpgemmaError, OSError):
    """A file cannot be written, or another one is in its place."""


class PromptTypeError(PromptError, TypeError):
    """What was given as text is no str."""


class TensorError(NpgemmaError, KeyError):
    """A trace was asked for a tensor that it does not hold."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print the message's repr


class WeightError(NpgemmaError, KeyError):
    """A layer asked for a weight that the model does not hold."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print the message's repr


class SlowWarning(UserWarning):
    """What was asked for will be done, much slower than a user may expect, for a reason that can be changed."""
