"""The processes that train one run together, as `torchrun` starts them. Talks to torch.distributed only.

One process is the ordinary case; then everything here is free. Of several, each computes its share of every batch, and
only the first, rank 0, writes, validates and speaks.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ccvae_deploy.errors import ProviderError, TrainingError, UsageError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

PATIENCE = timedelta(days=1)
"""How long a rank waits for another, which may be building a cache; one that ends is noticed at once."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank, count: which of how many.
        local: which of those on this machine.
        store: what torchrun lets them share; None for a single process.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    store: "Store | None" = None

    @property
    def first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def refuse_fewer_than_ranks(self, batch: int) -> None:
        """Refuse a batch of which a rank would have no image.

        Raises:
            UsageError: it is one.
        """
        if batch < self.count:
            raise UsageError(
                f"a batch of {batch} images cannot be shared by {self.count} processes; "
                "raise --batch-size or start fewer of them"
            )

    def share(self, batch: int) -> slice:
        """The rows of a batch that are this rank's; shares differ by one row at most.

        Raises:
            UsageError: a rank would have none.
        """
        self.refuse_fewer_than_ranks(batch)
        return slice(self.rank * batch // self.count, (self.rank + 1) * batch // self.count)

    def weight(self, batch: int) -> float:
        """What makes the mean over ranks of means over shares the mean over the batch; 1 where shares are even."""
        share = self.share(batch)
        return float((share.stop - share.start) * self.count / batch)

    def averaging(self, objective: nn.Module) -> nn.Module:
        """The module, with gradients that are the mean over ranks after every backward."""
        if self.count == 1:
            return objective
        # none is looked for that went unused: every parameter is in every loss
        return nn.parallel.DistributedDataParallel(objective)

    def mean(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """The mean over ranks of every scalar, in one exchange."""
        if self.count == 1:
            return values
        stacked = torch.stack(list(values.values()))
        dist.all_reduce(stacked)
        return dict(zip(values, stacked / self.count, strict=True))

    def any(self, said: bool) -> bool:
        """Whether any rank says so; hosts meet here, devices do not."""
        if self.count == 1:
            return said
        flag = torch.tensor(said, dtype=torch.int32)
        dist.all_reduce(flag, dist.ReduceOp.MAX)
        return bool(flag)

    def meet(self) -> None:
        """Wait until every rank is here."""
        self.any(False)

    @contextmanager
    def one_per_machine_first(self) -> Iterator[None]:
        """Run the block in one process of every machine, then in the others."""
        if self.local:
            self.meet()
        yield
        if not self.local:
            self.meet()

    def from_first(self, name: str, make: Callable[[], str]) -> str:
        """What rank 0 has made."""
        if self.store is None:
            return make()
        if self.first:
            self.store.set(name, make())
        return str(self.store.get(name).decode())


@contextmanager
def together(device: str) -> Iterator[Ranks]:
    """Join the other processes of `torchrun` for the block; a process on its own is alone.

    When one of them fails, the first to know raises and the others end without a word.

    Args:
        device: `auto`, `cpu` or `cuda`; ranks take the CUDA devices of their machine in turn.

    Raises:
        ProviderError: there are more ranks than CUDA devices.
        TrainingError: another process has gone without a word.
    """
    if not dist.is_available() or not dist.is_torchelastic_launched() or os.environ["WORLD_SIZE"] == "1":
        yield Ranks()
        return
    from torch.distributed.rendezvous import rendezvous

    store, rank, count = next(rendezvous("env://"))
    ranks = Ranks(rank, count, int(os.environ["LOCAL_RANK"]), store)
    with contextlib.ExitStack() as stack:
        if rank:
            stack.enter_context(contextlib.redirect_stderr(stack.enter_context(Path(os.devnull).open("w"))))
        try:
            backend = _backend(device, ranks.local)
            dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
            yield ranks
            dist.destroy_process_group()
        except Exception as error:
            if store.add("failed", 1) > 1:
                raise SystemExit(getattr(error, "exit_code", 1)) from None
            if isinstance(error, dist.DistError) or "gloo" in str(error):
                raise TrainingError(
                    f"another of the {count} processes has ended; go on with --resume when its cause is gone"
                ) from error
            raise


def _backend(device: str, local: int) -> str:
    if device == "cpu" or not torch.cuda.is_available():
        return "gloo"
    if local >= torch.cuda.device_count():
        raise ProviderError(
            f"process {local + 1} of this machine finds {torch.cuda.device_count()} CUDA devices; "
            "start one process per device, or use --device cpu"
        )
    torch.cuda.set_device(local)
    return "cpu:gloo,cuda:nccl"
