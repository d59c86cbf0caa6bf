"""What a hover over an array shows in VS Code and PyCharm: the line of :func:`npgemma.base.describe.describe`.

Both debuggers are pydevd, which looks for modules of this name in the namespace ``pydevd_plugins.extensions``;
setup.cfg installs this file there (``pip install -e`` does not).  Nothing of npgemma is imported here: a program that
does not use it keeps NumPy's own text.
"""

import sys

from _pydevd_bundle.pydevd_extension_api import StrPresentationProvider

# A hover must be quick: of a larger array only about so many values are looked at.
LOOKED_AT = 1 << 20


class DescribedArray(StrPresentationProvider):
    """Shows numeric arrays as one line."""

    def can_provide(self, type_object, type_name):
        """Tell pydevd that arrays are ours; it remembers the answer for each type."""
        return type_name == "ndarray"

    def get_str(self, val):
        """Give the line, or NumPy's own text where npgemma is not in use or values are no numbers."""
        known = sys.modules.get("npgemma.base.describe")
        if known is None or val.dtype.kind not in "fiub":
            return repr(val)
        return known.describe(val, most=LOOKED_AT)
