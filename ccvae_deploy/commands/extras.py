"""What of the optional packages is installed. Looks for them without loading them."""

from importlib.util import find_spec

from ..errors import UsageError


def needs_train_extra(command: str) -> None:
    """Refuse a command that needs torch where it is not installed.

    Raises:
        UsageError: it is not.
    """
    if find_spec("torch") is None:
        raise UsageError(f"`{command}` needs torch, which is not installed: pip install 'ccvae-deploy[train]'")
