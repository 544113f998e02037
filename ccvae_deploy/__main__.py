"""The command `ccvae-deploy`, which is `python -m ccvae_deploy` too: the command line of `cli.py`, started quickly."""

import gc
import os


def main() -> None:
    """Run the command without what a short one need not wait for: a third of a cold edit.

    The garbage collector would look through all that is imported some hundred times at the start, and once more at the
    end; pydantic would search every installed package for plugins of its own.
    """
    gc.set_threshold(10_000)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from .cli import app

    try:
        app(prog_name="ccvae-deploy")
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
