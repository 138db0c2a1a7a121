"""Runyard: put ``runyard run`` in front of any command.

The package is two halves (docs/how-it-works.md). ``wire``, ``client``, ``capture`` and ``agent`` run in other people's
environments: standard library only, Python 3.8 and later. The rest runs in Runyard's own environment.
"""

__version__ = "0.1.0"
