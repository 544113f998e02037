"""Progress: plain lines where stderr is no terminal, a bar of 80 columns where it is."""

import io

import pytest
from rich.console import Console
from rich.progress import Progress as RichProgress
from rich.progress import TimeRemainingColumn

from ccvae_deploy.terminal import progress as room
from ccvae_deploy.terminal.progress import progress, shown


def test_plain_lines_say_how_far_how_fast_and_how_long(capsys: pytest.CaptureFixture, monkeypatch) -> None:
    clock = iter([0.0, 1.0, 10.0, 12.0])
    monkeypatch.setattr(room.time, "monotonic", lambda: next(clock))
    with shown(), progress("edit", 1000, "images") as bar:
        bar.advance(10)
        bar.advance(90)
        bar.line("done here")
        bar.advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "edit: 100 of 1,000 images, 10.0 images/s, 90 s left",
        "done here",
    ]


def test_where_nothing_is_done_no_time_is_left_that_could_be_told(capsys: pytest.CaptureFixture, monkeypatch) -> None:
    clock = iter([0.0, 20.0])
    monkeypatch.setattr(room.time, "monotonic", lambda: next(clock))
    with shown(), progress("edit", 1000, "images") as bar:
        bar.advance(0)
    assert capsys.readouterr().err == "edit: 0 of 1,000 images, 0.0 images/s\n"
    monkeypatch.undo()
    with RichProgress(console=Console(file=io.StringIO())) as drawn:
        reporter = room._RichBar(drawn, "edit", 10, "images")
        reporter.advance(0)
        reporter.advance(0)
        (task,) = drawn.tasks
        assert TimeRemainingColumn().render(task).plain == "-:--:--"


def test_a_program_that_calls_a_function_sees_nothing(capsys: pytest.CaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(room, "INTERVAL", 0.0)
    with shown():
        pass
    with progress("edit", 1000, "images") as bar:
        bar.advance(10)
        bar.line("done here")
    assert capsys.readouterr() == ("", "")


def test_a_bar_counts_and_prints_lines_above_itself() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with RichProgress(console=console) as bar:
        reporter = room._RichBar(bar, "edit", 10, "images")
        reporter.advance(4)
        reporter.line("epoch [1]/2")
        (task,) = bar.tasks
        assert task.completed == 4
        assert "images/s" in task.fields["rate"]
    assert "epoch [1]/2" in console.file.getvalue()
