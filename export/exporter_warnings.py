"""Warnings of torch's ONNX exporter that concern no graph of ours, silenced one by one while it runs.

Anything else that torch says is still shown. Of each known warning the origin is written here, so that it can
be removed when torch no longer has it.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

REGISTRATION_LOGGER = "torch.onnx._internal.exporter._registration"
NO_TORCHVISION = "torchvision is not installed. Skipping "
"""torch registers translations of torchvision's operators, of which our models use none, in every export."""

KNOWN_WARNINGS: tuple[tuple[type[Warning], str], ...] = (
    # torch.export copies the tree of a program's arguments; the copy's constructor tests for a class that
    # torch itself has deprecated.
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    # The batch of the fused graph's two inputs is one axis by intention; the exporter notes that it names it
    # once.
    (UserWarning, r"# The axis name: batch will not be used, since it shares the same shape constraints"),
)


@contextmanager
def without_known_warnings() -> Iterator[None]:
    """While it lasts, the warnings of this file are not shown.

    Filters of warnings are the process's: not for threads.
    """
    logger = logging.getLogger(REGISTRATION_LOGGER)
    logger.addFilter(_is_worth_showing)
    try:
        with warnings.catch_warnings():
            for category, message in KNOWN_WARNINGS:
                warnings.filterwarnings("ignore", message=message, category=category)
            yield
    finally:
        logger.removeFilter(_is_worth_showing)


def _is_worth_showing(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(NO_TORCHVISION)
