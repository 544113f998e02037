"""What of the optional packages is installed. Looks for them without loading them."""

from importlib.util import find_spec

from ..errors import UsageError


def needs_train_extra(command: str, *packages: str) -> None:
    """Refuse a command that needs packages of the extra [train] where they are not installed.

    Raises:
        UsageError: one of them is not.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"`{command}` needs {' and '.join(missing)}, not installed here: pip install 'ccvae-deploy[train]'"
        )
