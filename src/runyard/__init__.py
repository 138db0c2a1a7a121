"""Runyard: put ``runyard run`` in front of any command.

The package is two halves (docs/how-it-works.md). ``wire``, ``client``, ``capture`` and ``agent`` run in other people's
environments: standard library only, Python 3.8 and later. The rest runs in Runyard's own environment.

The names below are imported when first used, so that ``import runyard`` costs nothing.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runyard.client.query import Runs as Runs
    from runyard.client.query import runs as runs
    from runyard.client.run import Run as Run
    from runyard.client.sdk import data as data
    from runyard.client.sdk import finish as finish
    from runyard.client.sdk import init as init
    from runyard.client.sdk import log as log
    from runyard.client.sdk import output as output
    from runyard.client.sdk import params as params
    from runyard.client.sdk import summary as summary
    from runyard.client.sdk import tag as tag
    from runyard.client.values import Histogram as Histogram
    from runyard.client.values import Image as Image
    from runyard.client.values import Table as Table
    from runyard.wire.errors import RunyardError as RunyardError

_SDK = "runyard.client.sdk"
_VALUES = "runyard.client.values"
_PLACES = {
    "init": _SDK, "log": _SDK, "params": _SDK, "summary": _SDK, "tag": _SDK, "output": _SDK, "data": _SDK, "finish": _SDK,
    "runs": "runyard.client.query", "Runs": "runyard.client.query", "RunyardError": "runyard.wire.errors",
    "Run": "runyard.client.run", "Image": _VALUES, "Table": _VALUES, "Histogram": _VALUES,
}  # fmt: skip


def __getattr__(name: str) -> object:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError("module %r has no attribute %r" % (__name__, name))
    import importlib

    value = getattr(importlib.import_module(place), name)
    globals()[name] = value
    return value
