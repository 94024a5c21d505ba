"""Fits that stop at `max_iter` are counted and told once, not warned of one by one."""

import warnings

from sklearn.exceptions import ConvergenceWarning


def silence_unconverged() -> None:
    """No warnings of fits that stop at `max_iter`, in this process: the grid counts them."""
    warnings.simplefilter("ignore", ConvergenceWarning)
