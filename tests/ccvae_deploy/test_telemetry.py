"""onnxruntime reports to its maker by default; nothing here lets it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("command", ["classify", "inspect"])
def test_no_command_leaves_a_device_id_in_the_home_folder(command, pictures, tiny_bundle, tmp_path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    given = [pictures, "--bundle", tiny_bundle] if command == "classify" else [tiny_bundle]
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-m", "ccvae_deploy", command, *map(str, given)],
        env={**environment, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_who_wants_it_is_asked() -> None:
    code = "import os, ccvae_deploy; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    for given, expected in ((None, "1"), ("0", "0")):
        environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
        environment |= {} if given is None else {"ORT_DISABLE_TELEMETRY": given}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == expected, Path(sys.executable)
