"""Functions that record their calls or results; tests put them in place of the real ones."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def noted(function: Callable[P, R], note: Callable[P, object]) -> Callable[P, R]:
    """Return the function with `note` called before it, with the same arguments."""

    @functools.wraps(function)
    def watched(*arguments: P.args, **options: P.kwargs) -> R:
        note(*arguments, **options)
        return function(*arguments, **options)

    return watched


def recorded(function: Callable[P, R], results: list[R]) -> Callable[P, R]:
    """Return the function with each of its results appended to `results`."""

    @functools.wraps(function)
    def watched(*arguments: P.args, **options: P.kwargs) -> R:
        results.append(function(*arguments, **options))
        return results[-1]

    return watched
