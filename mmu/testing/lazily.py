"""Hypothesis, which is an extra, where it is installed."""

from mmu.errors import InputError

try:
    from hypothesis import strategies
except ImportError as error:
    raise InputError(
        "mmu.testing.strategies: found no hypothesis, which draws the examples; "
        "pip install 'mmu[testing]'"
    ) from error

__all__ = ["strategies"]
