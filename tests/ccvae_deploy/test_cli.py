"""The command line as a user meets it: exit codes, one line per error, nothing heavy loaded for help."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from ccvae_deploy import __version__, cli, pipeline
from ccvae_deploy.__main__ import main
from ccvae_deploy.cli import app


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


SCRIPT = "from ccvae_deploy.cli import app; app()"
COMMAND = f"{sys.executable} -c '{SCRIPT}'"


def test_edit_prints_a_summary_and_ends_with_0(pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    result = invoke("edit", pictures, "--set", "smiling=1", "--samples", 2, "--bundle", tiny_bundle, "--out", out)
    assert result.exit_code == 0, result.output
    assert "18 images" in result.stdout
    assert "CPUExecutionProvider" in result.stdout
    assert (out / "sheet.png").exists()


def test_vary_and_until_reached(pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    options = ["--vary", "smiling", "--vary", "Young", "--until-reached", 3, "--samples", 2]
    result = invoke("edit", pictures, "--set", "wearing_hat=1", *options, "--bundle", tiny_bundle, "--out", out)
    assert result.exit_code == 0, result.output
    assert "Smiling: " in result.stdout
    assert (out / "a__smiling=vary,wearing_hat=1,young=vary__01.png").exists()


def test_variance_writes_one_file(pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    options = ["--bundle", tiny_bundle, "--labels", "young, wearing_hat", "--labels", "smiling", "--samples", 3]
    result = invoke("variance", pictures / "a.png", *options, "--out", tmp_path / "maps.png")
    assert result.exit_code == 0, result.output
    assert "3 draws of Young, Wearing_Hat, Smiling" in result.stdout
    assert (tmp_path / "maps.png").exists()
    again = invoke("variance", pictures / "a.png", *options, "--out", tmp_path / "maps.png")
    assert again.exit_code == 2
    assert "is there already" in again.stderr


def test_a_bad_file_ends_with_1(pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    (pictures / "bad.png").write_text("no image")
    result = invoke(
        "edit", pictures, "--set", "smiling=1", "--bundle", tiny_bundle, "--out", tmp_path / "o", "--no-sheet"
    )
    assert result.exit_code == 1
    assert "1 failed" in result.stdout
    assert not (tmp_path / "o" / "sheet.png").exists()


def test_a_run_without_results_says_why_and_gives_no_figures(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bad[red][.png").write_text("no image")
    out = tmp_path / "o"
    result = invoke("edit", tmp_path / "bad[red][.png", "--set", "smiling=1", "--bundle", tiny_bundle, "--out", out)
    assert result.exit_code == 1
    text = "".join(result.stdout.split())
    assert "1failed" in text
    assert "bad[red][.png:" in text
    assert f"{out}/failures.jsonl" in text
    assert "0images" in text
    assert not any(row in result.stdout for row in ("drift", "pixels", "control", "reached"))


def test_one_image_is_one_image(pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    line = ["edit", pictures / "a.png", "--set", "smiling=1", "--bundle", tiny_bundle, "--out", tmp_path / "o"]
    forecast = invoke(*line, "--dry-run")
    assert "1 image," in forecast.stdout
    assert "1 edit of a source" in forecast.stdout
    assert "1 image," in invoke(*line).stdout


def test_a_dry_run_writes_nothing(pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    line = ["edit", pictures, "--set", "smiling=1", "--samples", 2, "--bundle", tiny_bundle, "--out", tmp_path / "o"]
    result = invoke(*line, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "18 images" in result.stdout
    assert "a__smiling=1__00.png" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert not (tmp_path / "o").exists()
    assert invoke(*line).exit_code == 0
    assert "done 9 edits to be passed over" in " ".join(invoke(*line, "--dry-run").stdout.split())
    assert invoke(*line, "--dry-run", "--seed", 1).exit_code == 2


def test_shards_are_merged(pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    line = ["edit", pictures, "--set", "smiling=1", "--bundle", tiny_bundle, "--out", out]
    assert invoke(*line, "--shard", "0/2").exit_code == 0
    assert "still without records: 1/2" in invoke("merge", out).stdout
    assert invoke(*line, "--shard", "1/2").exit_code == 0
    result = invoke(*line)
    assert result.exit_code == 2
    assert "merge the shards first" in result.stderr
    assert "9 receipts of 9 sources in one ledger; outputs were not looked at" in invoke("merge", out).stdout
    assert "9 done before" in invoke(*line).stdout


def test_interruption_ends_with_130(pictures, tiny_bundle, tmp_path, monkeypatch) -> None:
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "_finish", interrupted)
    result = invoke("edit", pictures, "--set", "smiling=1", "--bundle", tiny_bundle, "--out", tmp_path / "o")
    assert result.exit_code == 130
    assert "the same command goes on" in result.stderr
    monkeypatch.setattr("ccvae_deploy.encode.encode_folder", interrupted)
    again = invoke("encode", pictures, "--bundle", tiny_bundle)
    assert again.exit_code == 130
    assert again.stderr == "error: interrupted; run the same command again\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["edit", "--set", "smiling=1"], "no images are given"),
        (["edit", "--latents", "l.safetensors", "--set", "smiling=1"], "no images are given"),
        (["edit", "imgs", "--set", "smiling=1", "--plan", "p.csv"], "--set and --plan both say what to change"),
        (["edit", "imgs", "--set", "smiling=1", "--workers", "0"], "--workers 0"),
        (["variance", "a.png", "--labels", ","], "an option of names is ',', which names nothing; leave it out"),
        (["merge"], "Missing argument"),
        (["merge", "absent"], "absent is no folder"),
        (["merge", "a", "b"], "2 folders to merge: give a folder for all of them with --out"),
        (["edit", "imgs"], "imgs does not exist"),
        (["edti"], "error: No such command 'edti'. Did you mean 'edit'?\n"),
        (["--verson"], "No such option: --verson"),
        (["edit", "imgs", "--set", "smiling=1", "--smaples", "8"], "No such option"),
        (["edit", "imgs", "--set", "smiling=1", "--samples", "many"], "--samples"),
        (
            ["edit", "imgs", "--set", "smiling=1", "--samples", "4", "--samples=8"],
            "--samples is given 2 times; give it once",
        ),
        (["train", "--flip", "--no-flip"], "--flip is given 2 times; give it once"),
        (["data", "portraits", "x", "--seed", "1", "--seed", "1"], "--seed is given 2 times; give it once"),
        (["edit", "absent", "--overwrite", "--overwrite", "--set", "a=1", "--set", "b=1"], "absent does not exist"),
        (["edit", "absent", "--set", "smiling=1"], "absent does not exist"),
        (["export", "absent"], "no run at absent"),
        (["inspect", "absent"], "no bundle at absent"),
        (["inspect", "absent.onnx"], "absent.onnx cannot be read: No such file or directory; give another file"),
        (["train", "--epochs", "0"], "--epochs 0"),
        (["train", "--data", "celebba:x"], "did you mean celeba:DIR"),
        (["train", "--data", "celeba:absent"], "absent is no folder"),
        (["train", "--recipe", "absent.toml"], "recipe absent.toml cannot be read"),
        (["data", "portraits", "x", "--count", "0"], "--count 0"),
        (["train", "--data", "portraits", "--uncertain", "ones"], "portraits has no uncertain labels"),
        (["train", "--data", "mnist:absent"], "absent is no folder"),
    ],
)
def test_refusals_are_one_line_and_end_with_2(arguments, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.strip().splitlines()) == 1
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", [[], ["data"]])
def test_a_group_without_a_command_shows_its_help(command: list[str]) -> None:
    result = invoke(*command)
    assert result.exit_code == 2
    assert "Commands:\n" in result.stderr


def test_version() -> None:
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.stdout == f"ccvae-deploy {__version__}\n"


def test_no_bundle_says_how_to_make_one(pictures: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("edit", "imgs", "--set", "smiling=1")
    assert result.exit_code == 2
    assert "no bundle at runs/latest/bundle-onnx; make one with `ccvae-deploy export --format onnx`" in result.stderr


def test_a_run_folder_names_the_bundle_in_it(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle-onnx").symlink_to(tiny_bundle, target_is_directory=True)
    result = invoke("inspect", tmp_path)
    assert result.exit_code == 2
    assert f"give the bundle in it: {tmp_path / 'bundle-onnx'}" in result.stderr


def test_latest_may_be_a_text_file(pictures, tiny_bundle, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "one"
    run.mkdir(parents=True)
    (run / "bundle-onnx").symlink_to(tiny_bundle, target_is_directory=True)
    (tmp_path / "runs" / "latest").write_text("one\n")
    assert invoke("edit", "imgs", "--set", "smiling=1").exit_code == 0


def test_a_path_that_cannot_be_used_is_one_line(pictures: Path, tiny_bundle: Path) -> None:
    result = CliRunner().invoke(app, ["edit", "n" * 300, "--set", "smiling=1", "--bundle", str(tiny_bundle)])
    assert result.exit_code == 2
    assert result.stderr == f"error: {'n' * 59}…: no file has a name of more than 255 bytes; give another\n"


def test_unexpected_errors_are_one_line_unless_debugged(pictures, tiny_bundle, tmp_path, monkeypatch) -> None:
    def broken(*_, **__):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(pipeline, "edit_folder", broken)
    result = invoke("edit", pictures, "--set", "smiling=1")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "unexpected ZeroDivisionError" in result.stderr
    debugged = invoke("edit", pictures, "--set", "smiling=1", "--debug")
    assert debugged.exit_code == 1
    assert debugged.stderr.startswith("Traceback")


def test_debug_keeps_the_exit_code(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("edit", "absent", "--set", "smiling=1", "--debug")
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback")
    assert result.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("command", ["classify", "inspect"])
def test_a_full_stdout_is_one_line(command: str, pictures: Path, tiny_bundle: Path) -> None:
    given = [pictures, "--bundle", tiny_bundle] if command == "classify" else [tiny_bundle]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, command, *map(str, given)], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: cannot write: No space left on device")
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_into_a_full_stdout_is_one_line(option: str) -> None:
    done = subprocess.run(f"{COMMAND} {option} >/dev/full", shell=True, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "error: cannot write: No space left on device; make room and start again\n"


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX shell")
@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "</dev/null | cat"])
def test_closed_streams_end_no_run(streams: str, pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    given = f"edit {pictures} --set smiling=1 --bundle {tiny_bundle} --out {tmp_path / 'out'}"
    done = subprocess.run(f"{COMMAND} {given} {streams}", shell=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").rglob("*__smiling=1__00.*"))) == 9


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_stdout_of_another_encoding_ends_no_run(encoding: str, pictures: Path, tiny_bundle: Path, tmp_path: Path):
    out = tmp_path / "\u6587"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "edit", pictures, "--set", "smiling=1", "--bundle", tiny_bundle, "--out", out],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": encoding},
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u6587" in done.stdout


@pytest.mark.parametrize("command", ["train", "export", "judge", "evaluate"])
def test_without_torch_the_extra_is_named(command: str, monkeypatch) -> None:
    monkeypatch.setattr("ccvae_deploy.commands.extras.find_spec", lambda name: None)
    result = invoke(command)
    assert result.exit_code == 2
    assert "pip install 'ccvae-deploy[train]'" in result.stderr


def test_what_is_missing_of_the_extra_is_named(monkeypatch) -> None:
    there = {"torch": True, "torchvision": False}
    monkeypatch.setattr("ccvae_deploy.commands.extras.find_spec", lambda name: there.get(name) or None)
    result = invoke("train")
    assert result.stderr == "error: `train` needs torchvision, not installed here: pip install 'ccvae-deploy[train]'\n"


def test_a_format_that_this_pillow_cannot_write_is_refused(tiny_bundle: Path, pictures: Path, monkeypatch) -> None:
    monkeypatch.setattr("ccvae_deploy.pictures.rendering.features.check", lambda name: name != "avif")
    line = ["edit", pictures, "--set", "smiling=1", "--bundle", tiny_bundle, "--format", "avif"]
    result = invoke(*line)
    assert (result.exit_code, result.stderr[:14]) == (2, "error: --forma")
    assert "built without AVIF" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["edit", "", "--set", "smiling=1"], ["merge", "x", "--out", ""], ["edit", "--out="]]
)
def test_an_empty_argument_is_refused(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert result.stderr == "error: an option or argument is empty, as an unset variable makes it; give a value\n"


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    script = (
        "import sys\nfrom ccvae_deploy.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'onnxruntime', 'onnx', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    used = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
        after = os.times()
        # processor time, which equals the wall's on a machine at rest and does not count others' work
        used.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(used) < 0.4


def every_command() -> list[list[str]]:
    group = get_command(app)
    return [[name] for name in group.commands] + [["data", name] for name in group.commands["data"].commands]


@pytest.mark.parametrize("command", every_command(), ids=" ".join)
def test_every_command_has_help_within_80_columns(command: list[str]) -> None:
    result = CliRunner().invoke(app, [*command, "--help"], terminal_width=80)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.skipif(os.name == "nt", reason="needs a folder that can go while a process is in it")
def test_a_current_folder_that_is_gone_is_one_line(pictures: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    line = f"rmdir {tmp_path / 'gone'}; {COMMAND} edit {pictures} --set smiling=1 --bundle {tiny_bundle}"
    done = subprocess.run(line, shell=True, cwd=tmp_path / "gone", capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "unexpected" not in done.stderr


def test_only_the_command_that_is_asked_for_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    monkeypatch.setattr(cli, "get_command", lambda one: built.append(one) or get_command(one))
    assert CliRunner().invoke(app, ["merge", "--help"]).exit_code == 0
    assert len(built) == 1
    assert "Did you mean 'merge'?" in CliRunner().invoke(app, ["merg"]).output
    assert len(built) == 1


def test_an_interrupt_before_the_command_has_begun_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TyperGroup, "parse_args", interrupted)
        result = CliRunner().invoke(app, ["edit", "imgs"])
    assert (result.exit_code, result.stderr) == (130, "error: interrupted; run the same command again\n")
    monkeypatch.setattr(cli, "app", interrupted)
    # what it sets for the whole process
    for name in ("PYDANTIC_DISABLE_PLUGINS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setattr(gc, "set_threshold", lambda *_: None)
    monkeypatch.setattr(gc, "freeze", lambda: None)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "error: interrupted; run the same command again\n")
