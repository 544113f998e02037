"""How fast training is, beside a plain textbook step and the limit that the networks set, in one run:

    python tests/benchmarks/train_speed.py [--data celeba:DIR] [--recipe celeba] [--rounds 7] [--threads N] [--batch 64]
    python tests/benchmarks/train_speed.py --data celeba:DIR --recipe celeba --accuracy 0.877 --minutes 2

ours      the step of `ccvae-deploy train` with its defaults or with a recipe, and with --agreement-weight 0: what is
          drawn, edited and read again for that term is work of the networks that the limit does not have
limit     forward and backward of encoder and decoder alone, on one batch that is there already: the same networks,
          number format, layout, batch and threads
textbook  the same networks with the paper's estimator (100 draws for q(y|x)) in float32, channels first, Adam, and a
          DataLoader that decodes JPEG files: CelebA's own, or the made portraits written as such

All are timed in turn, round after round; figures are medians of rounds. With --accuracy, ours and textbook train in
turns of ten seconds and are validated after each; only training is on the clock. The learning rate of ours falls to
the end of its --minutes; the textbook has --book-minutes.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from ccvae_train import loop, training
from ccvae_train.batches import images_of, labels_of
from ccvae_train.config import make_config, read_recipe
from ccvae_train.convolutions import Collapse, Double, Expand
from ccvae_train.datasets import celeba
from ccvae_train.datasets.source import settled
from ccvae_train.device import choose_device
from ccvae_train.loop import Fit
from ccvae_train.noise import Noise
from ccvae_train.ranks import Ranks
from ccvae_train.validation import validate

PAPER_BATCH, PAPER_RATE = 200, 1e-3
JPEG_SIZE = 178
SECONDS = 3.0
TURN = 10.0

Step = Callable[[], int]
"""One optimiser step; gives the images it has seen."""


@dataclass(frozen=True)
class Side:
    """One contender: its name, what it computes in, and how a round of it begins."""

    name: str
    batch: int
    precision: str
    begin: Callable[[], Step]


class JpegFiles(Dataset[tuple[Tensor, int]]):
    """JPEG files as a textbook reads them."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self.paths = paths
        self.to_tensor = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[row]) as image:
            return self.to_tensor(image.convert("RGB")), row


def jpeg_paths(fit: Fit, folder: Path, count: int) -> list[Path]:
    """The files of the training images: CelebA's own, else the first `count` images written into `folder`."""
    kind, _, place = fit.config.data.partition(":")
    if kind == "celeba":
        root, found, (training, _) = celeba.read_celeba(Path(place), celeba.PAPER_LABELS)
        return [celeba.images_of(root) / found.files[row] for row in training]
    paths = []
    for row, pixels in enumerate(fit.data.train.images[:count]):
        paths.append(folder / f"{row:06d}.jpg")
        Image.fromarray(pixels).resize((JPEG_SIZE, JPEG_SIZE), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def prepared(options: argparse.Namespace, **settings: object) -> Fit:
    """A run in memory, without a folder."""
    asked = {"data": options.data, "supervision": options.supervision, "device": options.device}
    config = settled(make_config(settings | asked))
    precision = "fp32" if config.estimator == "paper" else None
    return training.prepare(config, choose_device(config.device, precision), Ranks())


class Timed(Fit):
    """A run that ends within an epoch."""

    images: int

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return min(self.steps_per_epoch * self.config.epochs, max(self.images // self.batch, 1))


def timed(options: argparse.Namespace, settings: Mapping[str, object], images: int, epoch: int) -> Fit:
    """A run of so many images, of which an epoch has `epoch`."""
    fit = prepared(options, **settings | {"epochs": -(-images // epoch)})
    fit.__class__ = Timed
    fit.images = images
    return fit


def ours(fit: Fit, name: str = "ours") -> Side:
    """The product's own step."""

    def begin() -> Step:
        rows = _rows(fit)

        def step() -> int:
            batch = next(rows)
            loop.one_step(fit, batch)
            fit.step += 1
            return len(batch)

        return step

    return Side(name, fit.config.batch_size, fit.device.precision, begin)


def limit(fit: Fit) -> Side:
    """What no step of these networks can be faster than; the weights stay as they are."""

    def begin() -> Step:
        image = images_of(fit.data.train.images, next(_rows(fit)), fit.device)
        to_image, to_scale = torch.ones_like(image), torch.ones(len(image), fit.layout.size, device=image.device)

        def step() -> int:
            fit.optimiser.zero_grad(set_to_none=True)
            with fit.device.autocast():
                loc, scale = fit.model.encoder(image)
                mean = fit.model.decoder(loc)
            torch.autograd.backward([mean, scale], [to_image, to_scale])
            return len(image)

        return step

    return Side("limit", fit.config.batch_size, fit.device.precision, begin)


def textbook(fit: Fit, paths: list[Path], workers: int) -> Side:
    """The step that a careful reader of the paper would write."""
    from ccvae_train.objective import Labels, Posterior, laplace_log_likelihood, paper_terms

    model = fit.model.to(memory_format=torch.contiguous_format)
    for layer in model.modules():
        # torch's own layers, as anyone would take them
        if isinstance(layer, Collapse | Double | Expand):
            layer.__class__ = type(layer).__base__
    optimiser = torch.optim.Adam(model.parameters(), lr=fit.config.learning_rate)
    files, batch, device = JpegFiles(paths, fit.data.image.size), fit.config.batch_size, fit.device.torch_device
    prior = model.states.of_columns(torch.as_tensor(fit.prior, dtype=torch.float32, device=device))
    noise = Noise(fit.device.generator(0))

    def begin() -> Step:
        loader = DataLoader(files, batch, shuffle=True, num_workers=workers, drop_last=True)
        batches = itertools.chain.from_iterable(itertools.repeat(loader))

        def step() -> int:
            image, rows = next(batches)
            image = image.to(device)
            labels = Labels(*labels_of(fit.shown[rows.numpy()], model.states, fit.device), prior.log())
            posterior = Posterior(*model.encoder(image))
            terms = paper_terms(
                model, posterior, labels, lambda z: laplace_log_likelihood(image, model.decoder(z), 1.0), noise
            )
            optimiser.zero_grad()
            terms.loss(0.0).backward()
            optimiser.step()
            return len(image)

        return step

    return Side(f"textbook, {workers} workers", batch, "fp32", begin)


def _rows(fit: Fit) -> Iterator[np.ndarray]:
    """The batches of the epochs of a run, with the labelled images of each; after its end those of the last again."""
    for epoch in itertools.count():
        yield from fit.order(min(epoch, fit.config.epochs - 1))


def rate(side: Side, device: torch.device, seconds: float = SECONDS) -> float:
    """Images per second of steps one after the other; the first, which starts workers, is not counted."""
    step = side.begin()
    step()
    _wait(device)
    began, images = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        images += step()
    _wait(device)
    return images / (time.perf_counter() - began)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def speed_table(sides: list[Side], rounds: int, device: torch.device) -> Table:
    """Median rates of interleaved rounds, with the spread, and two ratios, each the median of the rounds' own."""
    every: dict[int, list[float]] = {number: [] for number in range(len(sides))}
    for _ in range(rounds):
        for number, side in enumerate(sides):
            every[number].append(rate(side, device))
    books = [number for number, side in enumerate(sides) if side.name.startswith("textbook")]
    book = max(books, key=lambda number: statistics.median(every[number]))
    found = Table(title=f"training speed, {rounds} interleaved rounds", title_justify="left")
    for name in ("step", "batch", "format", "images/s", "lowest to highest", "of the limit", "x textbook"):
        found.add_column(name, justify="left" if name == "step" else "right")
    for number, side in enumerate(sides):
        rates = every[number]
        cells = [side.name, f"{side.batch}", side.precision, f"{statistics.median(rates):,.0f}"]
        cells.append(f"{min(rates):,.0f} to {max(rates):,.0f}")
        limits = [n for n, s in enumerate(sides) if s.name == "limit" and s.batch == side.batch]
        cells.append(f"{_ratio(rates, every[limits[0]]):.0%}" if side.name.startswith("ours") else "")
        found.add_row(*cells, f"{_ratio(rates, every[book]):.2f}")
    return found


def _ratio(one: list[float], other: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def race(sides: list[tuple[Side, Fit, float]], accuracy: float, console: Console) -> None:
    """Train in turns, each for so many minutes; say when each first reached the accuracy on the validation images."""
    steps = [side.begin() for side, _, _ in sides]
    clocks, best = [0.0] * len(sides), [0.0] * len(sides)
    running = set(range(len(sides)))
    while running:
        for number in sorted(running):
            side, fit, minutes = sides[number]
            began = time.perf_counter()
            while time.perf_counter() - began < TURN and fit.step < fit.steps:
                steps[number]()
            _wait(fit.device.torch_device)
            clocks[number] += time.perf_counter() - began
            fit.model.eval()
            figures, _ = validate(fit.model, fit.data.valid, fit.labels, fit.majority, fit.device)
            fit.model.train()
            best[number] = max(best[number], figures.accuracy)
            if best[number] >= accuracy:
                console.print(f"{side.name}: accuracy {figures.accuracy:.4f} after {clocks[number]:.0f} s")
            elif clocks[number] >= 60 * minutes or fit.step >= fit.steps:
                console.print(f"{side.name}: not reached in {clocks[number]:.0f} s, best {best[number]:.4f}")
            else:
                continue
            running.remove(number)


def machine() -> str:
    """What the figures depend on."""
    has = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    said = ", ".join(f"{name} {'yes' if has.get(key) else 'no'}" for name, key in CAPABILITIES.items())
    return f"{has.get('cpu_name', 'CPU')}; {said}; {torch.get_num_threads()} threads; torch {torch.__version__}"


CAPABILITIES = {"AMX": "amx_bf16", "avx512_bf16": "avx512_bf16"}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="portraits")
    parser.add_argument("--supervision", type=float, default=0.2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--accuracy", type=float)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--book-minutes", type=float, default=8.0)
    return parser.parse_args()


def main() -> None:
    """Print the table, or the times to an accuracy."""
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console(width=100, highlight=False)
    own_settings = read_recipe(options.recipe) if options.recipe else {}
    own_settings |= {"batch_size": options.batch} if options.batch else {}
    own = prepared(options, **own_settings)
    console.print(f"{machine()}; {own.device.note}")
    paper = {"estimator": "paper", "learning_rate": PAPER_RATE}
    with tempfile.TemporaryDirectory() as folder:
        paths = jpeg_paths(own, Path(folder), len(own.data.train) if options.accuracy else 4000)
        book = prepared(options, batch_size=PAPER_BATCH, epochs=100_000, **paper)
        books = [textbook(book, paths, workers) for workers in (0, torch.get_num_threads())]
        if options.accuracy is None:
            alone = prepared(options, **own_settings | {"agreement_weight": 0.0})
            wide = prepared(options, **own_settings | {"batch_size": PAPER_BATCH})
            narrow = textbook(prepared(options, batch_size=own.batch, **paper), paths, 0)
            bound = ours(alone, "ours, bound alone")
            sides = [ours(own), bound, limit(own), ours(wide), limit(wide), narrow, *books]
            console.print(speed_table(sides, options.rounds, own.device.torch_device))
            console.print("of the limit: at the same batch; x textbook: times the fastest textbook step")
            return
        # the textbook takes the number of workers that is faster, and begins anew
        speed = rate(ours(own), own.device.torch_device)
        fit = timed(options, own_settings, round(speed * 60 * options.minutes), len(own.data.train))
        rates = [rate(side, own.device.torch_device) for side in books]
        book = prepared(options, batch_size=PAPER_BATCH, epochs=100_000, **paper)
        side = textbook(book, paths, (0, torch.get_num_threads())[int(np.argmax(rates))])
        race([(ours(fit), fit, options.minutes), (side, book, options.book_minutes)], options.accuracy, console)


if __name__ == "__main__":
    main()
