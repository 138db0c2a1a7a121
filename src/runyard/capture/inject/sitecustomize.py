"""Comes before the program in every Python of a run (docs/capture.md), and hands on to the next ``sitecustomize``.

The directory of this file is the first entry of PYTHONPATH. Valid in any Python, 2.7 too: nothing is done below 3.8.
"""

import os
import sys

if __name__ == "sitecustomize":  # and not imported by another name, as a module of the package
    _here = os.path.dirname(os.path.abspath(__file__))
    if sys.version_info >= (3, 8) and os.environ.get("RUNYARD_ATTEMPT"):
        try:
            import _frozen_importlib_external as _importing

            _package = os.path.dirname(os.path.dirname(_here))
            _path = os.path.join(_package, "capture", "start.py")
            _names = {"__name__": "runyard.capture.start", "PACKAGE": _package}
            _kept, sys.dont_write_bytecode = sys.dont_write_bytecode, False  # it is our directory
            _code = _importing.SourceFileLoader("runyard.capture.start", _path).get_code("runyard.capture.start")
            sys.dont_write_bytecode = _kept
            exec(_code or "", _names)  # noqa: S102 - imported by no name that the program could see
        except Exception as _exc:  # noqa: BLE001 - the program runs without us, whatever is wrong here
            if os.environ.get("RUNYARD_DEBUG"):
                sys.stderr.write("runyard: nothing is captured: %r\n" % (_exc,))
    # As if this file and its directory were not there. Kept: Python 2 clears the globals of a module that is gone.
    _self = sys.modules.pop("sitecustomize", None)
    sys.path[:] = [_entry for _entry in sys.path if _entry != _here]
    __import__("sitecustomize")
