"""Signals during `zorro train`: the step under way is saved, and the command that it prints goes on from
there."""

import shlex
import signal
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from cli.training_output import TrainingLines
from media.progress import NO_FIGURES
from models.weights import load_checkpoint
from tests.training.made_collections import label_folders
from tests.training.small_runs import CLIP_SPEC, MODEL, NUMBERS
from training.interrupts import NOTICE, SIGNALS, Interrupts, TrainingInterrupted

RECIPE = NUMBERS.replace("num_steps = 2", "num_steps = 3")


class InterruptedLines(TrainingLines):
    """Lines of a run that gets Ctrl-C once the line of its first step is printed."""

    def __call__(self, stage: str, done: int, total: int, figures: Mapping[str, float] = NO_FIGURES) -> None:
        super().__call__(stage, done, total, figures)
        if (stage, done) == ("train", 1):
            signal.raise_signal(signal.SIGINT)


def _zorro(arguments: list[str], *, status: int) -> Result:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert result.exit_code == status, (result.output, result.exception)
    return result


@pytest.mark.usefixtures("few_resamples")
def test_ctrl_c_saves_the_step_and_names_the_command_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    data, run = label_folders(tmp_path / "data", audio=True), tmp_path / "run of the day"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(RECIPE + MODEL + CLIP_SPEC)
    arguments = ["train", str(recipe), "--data", str(data), "--run", str(run)]
    handlers = [signal.getsignal(number) for number in SIGNALS]

    with monkeypatch.context() as patched:
        patched.setattr("cli.training_output.TrainingLines", InterruptedLines)
        *before, stopped, again = _zorro(arguments, status=130).stderr.splitlines()
    assert any(line.startswith("step 1 of 3") for line in before)
    assert stopped == f"stopped; step 1 is saved in {run}. Go on with:"
    assert shlex.split(again) == ["zorro", *arguments]
    assert NOTICE.decode() in capfd.readouterr().err
    assert not (run / "checkpoint").exists()
    assert [signal.getsignal(number) for number in SIGNALS] == handlers

    assert "going on from step 1 of 3" in _zorro(shlex.split(again)[1:], status=0).stderr
    assert load_checkpoint(run / "checkpoint").extra["num_steps"] == 3


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_end_of_what_is_held_back(number: signal.Signals) -> None:
    with Interrupts() as interrupts:
        interrupts.raise_received()
        with interrupts.held_back():
            signal.raise_signal(number)
            interrupts.saved_step = 7
        with pytest.raises(TrainingInterrupted) as caught:
            interrupts.raise_received()
    assert (caught.value.signal_number, caught.value.saved_step) == (number, 7)


def test_a_second_signal_does_not_wait() -> None:
    with Interrupts() as interrupts, interrupts.held_back():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(TrainingInterrupted):
            signal.raise_signal(signal.SIGTERM)


def test_nothing_waits_where_nothing_is_held_back() -> None:
    with Interrupts(), pytest.raises(TrainingInterrupted, match="step 0 is saved"):
        signal.raise_signal(signal.SIGTERM)


def test_other_threads_leave_the_signals_alone() -> None:
    handlers: list[object] = []

    def enter() -> None:
        with Interrupts():
            handlers.extend(signal.getsignal(number) for number in SIGNALS)

    before = [signal.getsignal(number) for number in SIGNALS]
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == before
