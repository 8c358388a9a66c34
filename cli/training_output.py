"""What `zorro train` prints: plain lines, one every so often, that read at 80 columns and in a log alike."""

import logging
import textwrap
import time
from collections.abc import Callable, Mapping

from rich.console import Console

from media.progress import NO_FIGURES

LINE_SECONDS = 10.0  # between two lines of one stage
NOT_LOSSES = ("learning_rate", "temperature", "clips/s")


class TrainingLines:
    """An `OnProgress` that prints lines; the first and the last of a stage always."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self.clock = console, clock
        self._stage = ""
        self._started = self._printed = clock()
        self._first_step = self._printed_step = 0
        self._clips_per_step = 0.0

    def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float] = NO_FIGURES) -> None:
        """See `OnProgress`."""
        match stage:
            case "list":
                self._print(f"{done} of {total} listed clips are there{_counted(figures)}")
            case "start":
                self._start(done, total, figures)
            case "train":
                self._train(done, total, figures)
            case "evaluate":
                scores = _joined({name.replace("_", " "): value for name, value in figures.items()})
                self._print(f"validated at step {done}: {scores or 'no clip to validate by'}")
            case "save":
                self._print(f"saved at step {done}")
            case "faults":
                self._print(f"{done} of {total} files have faults{_counted(figures)}")
            case _:
                self._count(stage, done, total, figures)

    def _start(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        self._clips_per_step = figures["clips per step"]
        if step == total:
            self._print(f"this run has taken all of its {total} steps before; nothing is left to train")
        elif step:
            self._print(f"going on from step {step} of {total}, where the run was saved")
        else:
            self._print(f"training {total} steps of {self._clips_per_step:.0f} clips")
        self._first_step = self._printed_step = step
        self._started = self._printed = self.clock()

    def _train(self, step: int, total: int, figures: Mapping[str, float]) -> None:
        now = self.clock()
        is_due = now - self._printed >= LINE_SECONDS or step in (self._first_step + 1, total)
        if not is_due:
            return
        speed = (step - self._printed_step) * self._clips_per_step / max(now - self._printed, 1e-9)
        left = (now - self._started) / (step - self._first_step) * (total - step)
        losses = _joined({name: value for name, value in figures.items() if name not in NOT_LOSSES})
        self._print(f"step {step} of {total}, {speed:.3g} clips/s, {_duration(left)} left, losses: {losses}")
        self._printed, self._printed_step = now, step

    def _count(self, stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        now = self.clock()
        if stage != self._stage:
            self._stage, self._printed = stage, now
        if figures or (done < total and now - self._printed >= LINE_SECONDS):
            self._print(f"{stage}: {done} of {total} files{_counted(figures)}")
            self._printed = now

    def _print(self, line: str) -> None:
        for part in textwrap.wrap(line, self.console.width, subsequent_indent="    "):
            self.console.print(part, highlight=False, markup=False, soft_wrap=True)


class ConsoleHandler(logging.Handler):
    """Log records as lines of a console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console
        self.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record; paths are not broken over lines."""
        self.console.print(self.format(record).replace("WARNING", "warning", 1), markup=False, soft_wrap=True)


def _counted(figures: Mapping[str, float]) -> str:
    """Counts above 0 in brackets."""
    parts = [f"{name} {value:g}" for name, value in figures.items() if value]
    return f" ({', '.join(parts)})" if parts else ""


def _joined(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items())


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
