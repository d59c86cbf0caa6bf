"""What a hover over an array shows in VS Code and PyCharm: the line of :func:`npgemma.base.describe.describe`.

Both debuggers are pydevd.  ``import npgemma`` registers this where pydevd is loaded already, which it is in a program
that was started under it, however npgemma was installed; and a program without npgemma keeps NumPy's own text.
"""

from _pydevd_bundle.pydevd_extension_api import StrPresentationProvider
from _pydevd_bundle.pydevd_extension_utils import extensions_of_type

# A hover must be quick: of a larger array only about so many values are looked at.
LOOKED_AT = 1 << 20


class DescribedArray(StrPresentationProvider):
    """Shows numeric arrays as one line."""

    def can_provide(self, type_object, type_name):
        """Tell pydevd that arrays are ours; it remembers the answer for each type."""
        return type_name == "ndarray"

    def get_str(self, val):
        """Give the line, or NumPy's own text where values are no numbers."""
        # Not above: the command chooses the threads of BLAS before NumPy is imported.
        from npgemma.base.describe import describe

        return describe(val, most=LOOKED_AT) if val.dtype.kind in "fiub" else repr(val)


def register() -> None:
    """Show arrays so from now on."""
    # The list that pydevd asks, whether or not it has shown anything yet.
    providers = extensions_of_type(StrPresentationProvider)
    if not any(isinstance(provider, DescribedArray) for provider in providers):
        providers.append(DescribedArray())
