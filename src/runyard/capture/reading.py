"""Data files that libraries open in C, so that neither ``open`` nor, when it is quick, the agent sees them.

The functions by which programs have them opened are followed; each says afterwards what it has read.
"""

from __future__ import annotations

from runyard.capture.patch import after

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from runyard.capture.session import Session


class Reading:
    """Says to a session which files were read. Each method gets the arguments and the result of a function."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def follow(self, owner: Any, name: str, tell: Callable[[Any, Any, Any], None]) -> None:
        """Have one of the methods below called after a function of a library."""

        def told(args: Any, kwargs: Any, result: Any) -> None:
            try:
                tell(args, kwargs, result)
            except Exception:  # noqa: BLE001 - the program must not notice
                self._session.failed()

        after(owner, name, told)

    def image(self, args: Any, kwargs: Any, result: Any) -> None:
        """``cv2.imread(filename)``, which returns None for what it cannot read."""
        if result is not None:
            self._session.read(_argument(args, kwargs, 0, "filename", None))

    def loaded(self, args: Any, kwargs: Any, result: Any) -> None:
        """``load_file(filename)`` of safetensors."""
        self._session.read(_argument(args, kwargs, 0, "filename", None))

    def hdf5(self, args: Any, kwargs: Any, result: Any) -> None:
        """``File(name, mode)`` of h5py, or ``File(filename, mode)`` of PyTables."""
        name = args[1] if len(args) > 1 else kwargs.get("name", kwargs.get("filename"))
        self._session.read(name, _argument(args, kwargs, 2, "mode", None) or "r")

    def parquet(self, args: Any, kwargs: Any, result: Any) -> None:
        """``ParquetFile(source)``."""
        if kwargs.get("filesystem") is None:
            self._session.read(_argument(args, kwargs, 1, "source", None))

    def parquets(self, args: Any, kwargs: Any, result: Any) -> None:
        """``ParquetDataset(...)``: what ``read_table`` reads."""
        self.dataset(args, kwargs, args[0])

    def dataset(self, args: Any, kwargs: Any, result: Any) -> None:
        """``pyarrow.dataset.dataset(...)``: all its files, also those that a filter will leave out."""
        if getattr(getattr(result, "filesystem", None), "type_name", "") == "local":
            for path in result.files:
                self._session.read(path)


def _argument(args: Any, kwargs: Any, index: int, name: str, default: Any) -> Any:
    return args[index] if len(args) > index else kwargs.get(name, default)


def hook(session: Session, module: Any) -> None:
    """Put the hooks for one of the modules in `runyard.capture.hooks.LIBRARIES` in place."""
    reading = Reading(session)
    name = module.__name__
    if name == "cv2":
        if not hasattr(module, "_native"):  # else it has its functions from there, where the hook is already
            reading.follow(module, "imread", reading.image)
    elif name == "pyarrow.dataset":
        reading.follow(module, "dataset", reading.dataset)
    elif name == "pyarrow.parquet.core":
        reading.follow(module.ParquetFile, "__init__", reading.parquet)
        reading.follow(module.ParquetDataset, "__init__", reading.parquets)
    elif name.startswith("safetensors."):
        reading.follow(module, "load_file", reading.loaded)
    else:
        reading.follow(module.File, "__init__", reading.hdf5)
