"""Choose for every graph the first of its forms with which the whole passes the quality gate. Pure computation."""

import math
from collections.abc import Callable, Mapping
from functools import cache

from ccvae_deploy.bundle import Bundle
from ccvae_deploy.errors import BundleError, ParityError
from ccvae_deploy.schema import GraphName

from .quality import Quality, QualityGate
from .serialised import Maker, Serialised

Assemble = Callable[[Mapping[GraphName, Serialised]], Bundle]


def choose(
    options: Mapping[GraphName, list[Maker]], exact: Mapping[GraphName, Maker], assemble: Assemble, gate: QualityGate
) -> tuple[dict[GraphName, Serialised], Quality]:
    """Begin with every graph in its preferred form; while the gate does not pass, the graph that hurts most gives way.

    Args:
        options: per graph its forms, the preferred first.
        exact: per graph a form without loss, beside which another graph is judged alone.
        assemble: makes a bundle that runs.

    A bundle that gives what is no image or no scale does not pass either.

    Raises:
        ParityError: no form is left to try; names the graph and the figure.
        BundleError: the same, and the last one gives what is none.
    """
    at = dict.fromkeys(options, 0)
    made = cache(lambda graph, position: options[graph][position]())
    lossless = cache(lambda graph: exact[graph]())

    def judged(forms: Mapping[GraphName, Serialised]) -> Quality | BundleError:
        try:
            return gate.measure(assemble(forms))
        except BundleError as error:
            return error

    while True:
        chosen = {graph: made(graph, position) for graph, position in at.items()}
        quality = judged(chosen)
        if isinstance(quality, Quality) and quality.ok:
            return chosen, quality
        able = [graph for graph in options if at[graph] + 1 < len(options[graph])]
        if isinstance(quality, BundleError) and not able:
            raise quality
        others = {graph: lossless(graph) for graph in options}
        alone = {graph: _strain(judged({**others, graph: one})) for graph, one in chosen.items()}
        order = sorted(alone, key=lambda graph: alone[graph], reverse=True)
        if isinstance(quality, Quality) and not able:
            raise ParityError(_refusal(order[0], chosen[order[0]], quality))
        at[next(graph for graph in order if graph in able)] += 1


def _strain(quality: Quality | BundleError) -> float:
    return math.inf if isinstance(quality, BundleError) else quality.worst_strain


def _refusal(graph: GraphName, form: Serialised, quality: Quality) -> str:
    figure, strain = max(quality.strain.items(), key=lambda item: item[1])
    return (
        f"the quality gate failed: {figure} is {strain:.2f} times what is allowed, and the {graph} in {form.precision} "
        "has the largest part in it; no bundle was written; use --precision auto, or a higher one"
    )
