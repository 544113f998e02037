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
        "edit: 100 of 1,000 images, 10 images/s, 90 s left",
        "done here",
    ]


@pytest.mark.parametrize("bar", ["plain", "rich"])
def test_what_was_done_before_says_nothing_of_what_is_to_come(bar, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(room.time, "monotonic", lambda: now[0])
    drawn = RichProgress(console=Console(file=io.StringIO()))
    reporter = (
        room._PlainLines("edit", 1_000_000, "images")
        if bar == "plain"
        else room._RichBar(drawn, "edit", 1_000_000, "images")
    )
    # 180 seconds of passing over, then 100 of work
    for count in [5000] * 180 + [500] * 100:
        now[0] += 1
        reporter.advance(count)
    if bar == "plain":
        last = capsys.readouterr().err.splitlines()[-1]
        assert last == "edit: 950,000 of 1,000,000 images, 500 images/s, 100 s left"
    else:
        assert drawn.tasks[0].fields["rate"] == "500 images/s"
    assert len(reporter.pace.points) < 40


def test_a_rate_of_rare_advances_is_over_the_last_of_them_and_has_a_decimal() -> None:
    pace = room._Pace(0.0)
    for now, done in ((0.5, 1), (60.0, 30), (100.0, 130), (140.0, 230)):
        rate = pace.rate(now, done)
    assert rate == 2.5
    assert room._told(rate, "images") == "2.5 images/s"
    assert room._told(1234.5, "images") == "1,234 images/s"


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
