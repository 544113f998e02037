"""`doctor`: what is wrong with this machine, and the remedy. Standard library only; what may break runs in children.

`python -m ccvae_deploy.doctor` is the same where even the command line cannot start.
"""

import json
import sys

from .machine import probe
from .machine.finding import Diagnosis, Finding
from .machine.installation import (
    ask_all,
    check_cuda_majors,
    check_extras,
    check_onnxruntime,
    check_packages,
    check_python,
    check_training,
    installed,
    modules_to_ask,
)
from .machine.resources import check_cpu, check_folders, check_gpu, check_threads, usable_cores


def diagnose() -> Diagnosis:
    """Look at everything that editing, training and exporting need. Takes a few seconds."""
    versions = installed()
    answers = ask_all(modules_to_ask(versions), probe.ask, workers=min(4, usable_cores()))
    devices = int(probe.ask("devices").get("devices", 0))
    runtime, torch = answers["onnxruntime"], answers.get("torch", {})
    findings: list[Finding] = [
        check_python(),
        *check_packages(versions, answers),
        check_onnxruntime(versions, runtime),
        check_cpu(probe.ask),
        *check_gpu(probe.ask, runtime, torch, devices),
        check_training(versions, answers),
        *check_cuda_majors(answers, devices),
        check_threads(),
        *check_folders(),
        *check_extras(versions, answers),
    ]
    return Diagnosis(findings)


if __name__ == "__main__":
    diagnosis = diagnose()
    print(json.dumps(diagnosis.to_json(), indent=2) if "--json" in sys.argv[1:] else diagnosis.text())
    sys.exit(not diagnosis.healthy)
