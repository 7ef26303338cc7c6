"""nnlite: a small neural-net engine whose backward pass reaches the inputs, and DataGrad on top of it.

Reading order: layers, losses, network (the Pass), penalties, datagrad. Everything a program needs is
importable from here; the command line is `nnlite`.
"""

__version__ = "0.2.0"

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder

import lazy_loader

# NumPy takes a quarter of a second, and the command must take signals before: a name is imported when it is used.
__getattr__, __dir__, _found = lazy_loader.attach_stub(__name__, __file__)

_HERE = os.path.dirname(__file__)
_CLONE = os.path.dirname(_HERE)
__all__ = [name for name in _found if not os.path.isfile(os.path.join(_HERE, f"{name}.py"))]  # * brings no files


class _InClone:
    """Finds nnlite.cli and nnlite.data in a clone, where cli/ and data/ lie beside this folder; a wheel has them in it.

    Python started in a clone takes this folder for nnlite, whether nnlite is installed or not. With the clone in
    `__path__` it would find the two as well, but tests/, docs/ and the user's runs/ with them, as nnlite.runs.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return where the module `name` is, or None for a module that is neither of the two."""
        return PathFinder.find_spec(name, [_CLONE]) if name in ("nnlite.cli", "nnlite.data") else None


if os.path.isfile(os.path.join(_CLONE, "setup.cfg")):  # only a clone has it there
    sys.meta_path.append(_InClone)
