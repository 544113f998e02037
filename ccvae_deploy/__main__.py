"""The command `ccvae-deploy`, which is `python -m ccvae_deploy` too: the command line of `cli.py`, started quickly."""

import gc
import os
import sys


def main() -> None:
    """Run the command without what a short one need not wait for: a quarter of a cold edit.

    The garbage collector would look through all that is imported some hundred times at the start, and once more at the
    end; pydantic would search every installed package for plugins of its own; and numpy's products of matrices, which
    are small, would have threads that spin on the cores that run graphs.
    """
    gc.set_threshold(100_000)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        from .cli import app

        app(prog_name="ccvae-deploy")
    except KeyboardInterrupt:
        # before there is a command that says so itself
        print("error: interrupted; run the same command again", file=sys.stderr)
        sys.exit(130)
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
