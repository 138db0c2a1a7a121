"""Putting a function of ours around one of a library, as little visible as can be."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

COPIED = ("__module__", "__name__", "__qualname__", "__doc__")


def wrap(
    owner: Any,
    name: str,
    enter: Callable[[tuple[Any, ...], dict[str, Any]], Any],
    leave: Callable[[Any, Any], None],
) -> None:
    """Have ``enter`` called before a function, with its arguments, and ``leave`` after it with what enter returned.

    ``leave`` gets the result too; None when the function raised. Neither may raise. From Python 3.11 on our frame is not in
    the tracebacks of what the function raises; before, a frame cannot be taken out of them.
    """
    original = vars(owner)[name]

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        token = enter(args, kwargs)
        try:
            result = original(*args, **kwargs)
        except BaseException as exc:
            leave(token, None)
            exc.__traceback__ = exc.__traceback__.tb_next if exc.__traceback__ else None
            raise
        leave(token, result)
        return result

    _replace(owner, name, wrapper)


def after(owner: Any, name: str, tell: Callable[[tuple[Any, ...], dict[str, Any], Any], None]) -> None:
    """Have ``tell`` called when a function has returned, with its arguments and its result; it must not raise."""
    original = vars(owner)[name]

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            result = original(*args, **kwargs)
        except BaseException as exc:  # as above
            exc.__traceback__ = exc.__traceback__.tb_next if exc.__traceback__ else None
            raise
        tell(args, kwargs, result)
        return result

    _replace(owner, name, wrapper)


def _replace(owner: Any, name: str, wrapper: Any) -> None:
    original = vars(owner)[name]
    for attribute in COPIED:
        setattr(wrapper, attribute, getattr(original, attribute, None))
    wrapper.__dict__.update(getattr(original, "__dict__", {}), __wrapped__=original)
    setattr(owner, name, wrapper)
