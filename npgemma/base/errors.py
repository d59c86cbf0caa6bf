"""What npgemma raises: each error says the place, what came, what was wanted, and what to do.

Every class inherits :class:`NpgemmaError` and the built-in that fits, so that both ``except NpgemmaError`` and
``except ValueError`` work.
"""


LONGEST = 2400  # characters of a message; what a file says of itself may be megabytes


def shortened(message: str) -> str:
    """Give a message with its middle left out where it is too long: the place stands first, what to do last."""
    half = LONGEST // 2 - 1
    return message if len(message) <= LONGEST else f"{message[:half]} … {message[-half:]}"


class NpgemmaError(Exception):
    """Any mistake in an input that npgemma found: a file, a picture, a prompt, an argument.

    Parameters
    ----------
    message : str
    argument : str, optional
        The argument of a Python function that is wrong.  The message of the error begins with it; the command puts the
        name of its option there.
    """

    def __init__(self, message: str = "", argument: str | None = None) -> None:
        super().__init__(shortened(message))
        self.argument = argument

    def __str__(self) -> str:
        return self.naming(self.argument)

    def naming(self, name: str | None) -> str:
        """Give the message with another name for the argument."""
        return str(self.args[0]) if name is None else f"{name}: {self.args[0]}"


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


class PackageError(NpgemmaError, ImportError):
    """What was asked for needs a package that is not installed."""


class NonfiniteError(NpgemmaError, ArithmeticError):
    """The model computed NaN or infinities where an answer should come from: its weights, or its inputs, are broken."""


class TensorError(NpgemmaError, KeyError):
    """A trace was asked for a tensor that it does not hold."""


class WeightError(NpgemmaError, KeyError):
    """A layer asked for a weight that the model does not hold."""


class OddWarning(UserWarning):
    """A file says something that is odd, and is used all the same."""


class SlowWarning(UserWarning):
    """What was asked for will be done, much slower than a user may expect, for a reason that can be changed."""
