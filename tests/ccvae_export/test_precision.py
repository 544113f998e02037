"""Precisions: what is stored in how many bits, what the gate lets through, and which form of a graph is taken."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnxruntime.quantization.calibrate import HistogramCollector

from ccvae_deploy.bundle import Bundle
from ccvae_deploy.errors import BundleError, DataError, ParityError
from ccvae_deploy.schema import GRAPHS, Label, LabelSet
from ccvae_export import run_images, variants
from ccvae_export.choose import choose
from ccvae_export.export import export_run, open_written
from ccvae_export.parity import _compare, eager_graphs
from ccvae_export.quality import Quality, QualityGate, disagreement, every_value
from ccvae_export.serialised import Serialised
from ccvae_train.checkpoint import load_run

PERFECT = Quality(256, mean=0.0, p999=0.0, worst=0.0, equal=1.0, disagreement=0.0, flips=0.0, spread=0.0)


@pytest.fixture(scope="module")
def images(made_run: Path):
    return run_images.run_images(load_run(made_run), required=True)


def made(run: Path, graph: str, precision: str, images) -> list[onnx.ModelProto]:
    options = variants.variants(load_run(run), graph, "onnx", precision, images.calibration)  # type: ignore[arg-type]
    return [onnx.load_model_from_string(make().data) for make in options]


def weights(model: onnx.ModelProto) -> dict[int, int]:
    """Numbers in initialisers, by element type."""
    found: dict[int, int] = {}
    for one in model.graph.initializer:
        found[one.data_type] = found.get(one.data_type, 0) + int(np.prod(one.dims))
    return found


def scales(model: onnx.ModelProto) -> list[float]:
    """Steps of the values that are rounded to bytes."""
    names = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    return [onnx.numpy_helper.to_array(one).item() for one in model.graph.initializer if one.name in names]


def test_an_encoder_in_8_bits(made_run: Path, images) -> None:
    (model,) = made(made_run, "encoder", "int8", images)
    operators = [node.op_type for node in model.graph.node]
    assert operators.count("Conv") == 3
    assert "QuantizeLinear" in operators
    assert not {"ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"} & set(operators)
    found = weights(model)
    # the first convolution and the head stay in float32
    assert found[TensorProto.INT8] > 0.9 * sum(found.values())


@pytest.mark.parametrize(("count", "batches"), [(7, [{7}]), (45, [{32}, {13}])])
def test_any_number_of_images_calibrates_and_one_batch_is_kept(
    made_run: Path, images, count: int, batches: list[set[int]], monkeypatch
) -> None:
    collect, kept = HistogramCollector.collect, []

    def watched(self: HistogramCollector, found: dict[str, list[np.ndarray]]) -> None:
        kept.append({sum(map(len, arrays)) for arrays in found.values()})
        collect(self, found)

    monkeypatch.setattr(HistogramCollector, "collect", watched)
    (model,) = made(made_run, "encoder", "int8", replace(images, calibration=images.calibration[:count]))
    assert kept == batches
    found = scales(model)
    assert found
    assert np.isfinite(found).all()
    assert min(found) > 0


def test_a_decoder_in_8_bits_comes_in_several_forms(made_run: Path, images) -> None:
    first, second = made(made_run, "decoder", "int8", images)
    for model, upsampled in ((first, 2), (second, 1)):
        operators = [node.op_type for node in model.graph.node]
        assert operators.count("Conv") == upsampled
        assert operators.count("ConvTranspose") == 3 - upsampled
        # channels come last, pixels move, channels come first, all of it in bytes; what comes after it is float
        assert operators.count("Transpose") == 3 * upsampled
        assert operators[-4:] == ["QuantizeLinear", "DequantizeLinear", "ConvTranspose", "Sigmoid"]
        assert len(set(scales(model))) == 1 + upsampled


def test_small_graphs_in_8_bits_are_exact_for_a_label_of_one_latent(made_run: Path, images) -> None:
    run = load_run(made_run)
    eager = eager_graphs(run)
    (model,) = made(made_run, "classifier", "int8", images)
    assert weights(model)[TensorProto.INT8] == 4 * 3
    z_c = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    found = onnx.reference.ReferenceEvaluator(model).run(None, {"z_c": z_c})[0]
    error = np.abs(found - eager["classifier"](z_c)[0])
    assert error[:, [0, 2]].max() < 1e-6
    # two latents share the scale of their logit: each weight is off by half a step at most
    largest = run.model.classifier.matrix[1:3, 1].abs().max().item()
    assert (error[:, 1] <= np.abs(z_c[:, 1:3]).sum(1) * largest / 254 + 1e-6).all()


@pytest.mark.parametrize("precision", ["int8", "fp16", "auto"])
def test_a_small_scale_beside_a_large_one_is_kept_in_every_precision(mixed_run: Path, images, precision: str) -> None:
    run = load_run(mixed_run)
    with torch.no_grad():
        # the second value of the binary label, and the last class
        run.model.conditional_prior.raw.fill_(8.0)
        run.model.conditional_prior.raw[[1, -2, -1]] = -20
    (make,) = variants.variants(run, "conditional_prior", "onnx", precision, images.calibration)
    model = onnx.load_model_from_string(make().data)
    y = every_value(run.labels)
    expected = eager_graphs(run)["conditional_prior"](y)
    for found, wanted in zip(onnx.reference.ReferenceEvaluator(model).run(None, {"y": y}), expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-3)
    assert 0.9e-3 < expected[1].min() < 1.1e-3 < 7 < expected[1].max()


def test_every_value_of_every_label() -> None:
    hair = Label(name="hair", kind="categorical", classes=("black", "blond", "brown"), dims=3)
    found = every_value(LabelSet(labels=(hair, Label(name="smiling"))))
    assert found.tolist() == [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]]


def test_the_gate_looks_at_values_that_no_edit_asks_for(made_run: Path, onnx_bundle: Path, images) -> None:
    bundle = open_written(onnx_bundle)
    gate = QualityGate(eager_graphs(load_run(made_run)), images.judged[:1])
    prior = bundle.graphs["conditional_prior"]
    # the only edit is of another label, beside what the last one is read as
    unread = bundle.classify(bundle.encode(images.judged[:1])[0][:, :4])[0, 2] <= 0

    def narrow(y: np.ndarray) -> tuple[np.ndarray, ...]:
        loc, scale = prior(y)
        return loc, np.where(y[:, 2:] == unread, np.float32([1, 1, 1, 0]) * scale, scale)

    assert gate.measure(bundle).ok
    with pytest.raises(BundleError, match="gives a scale of 0"):
        gate.measure(replace(bundle, graphs={**bundle.graphs, "conditional_prior": narrow}))


def test_graphs_in_float16_keep_their_inputs_and_outputs(made_run: Path, images) -> None:
    for graph in GRAPHS[:3]:
        (model,) = made(made_run, graph, "fp16", images)
        for value in (*model.graph.input, *model.graph.output):
            assert value.type.tensor_type.elem_type == TensorProto.FLOAT
        assert weights(model)[TensorProto.FLOAT16] > 0.99 * sum(weights(model).values()) - 16
        onnx.checker.check_model(model)


def test_the_gate_measures_what_people_see(made_run: Path, onnx_bundle: Path, images) -> None:
    run, bundle = load_run(made_run), open_written(onnx_bundle)
    gate = QualityGate(eager_graphs(run), images.judged)
    whole = gate.measure(bundle)
    assert whole.ok
    assert whole.images == len(images.judged) == 256
    assert (whole.mean, whole.disagreement, whole.flips) == pytest.approx((0, 0, 0), abs=1e-3)
    assert whole.equal > 0.9999

    def changed(**graphs) -> Quality:
        return gate.measure(replace(bundle, graphs={**bundle.graphs, **graphs}))

    decode, classify = bundle.graphs["decoder"], bundle.graphs["classifier"]
    # a constant cancels in the difference of two decoded images, noise does not
    assert changed(decoder=lambda z: (decode(z)[0] * 0.9 + 0.05,)).mean < 0.5 * 0.1 * 255
    noise = np.random.default_rng(0)
    grain = [noise.normal(0, 0.02, (1, 3, 32, 32)).astype(np.float32) for _ in range(9)]
    noisy = changed(decoder=lambda z: (np.clip(decode(z)[0] + grain[noise.integers(9)], 0, 1),))
    assert noisy.mean > 0.5
    assert not noisy.ok
    swapped = changed(classifier=lambda z_c: (-classify(z_c)[0],))
    assert swapped.disagreement == 1
    assert swapped.strain["share of labels that differ"] == pytest.approx(100)
    encode = bundle.graphs["encoder"]
    wide = changed(encoder=lambda image: (encode(image)[0], encode(image)[1] * np.float32(100)))
    assert (wide.mean, wide.spread) == pytest.approx((whole.mean, np.log(100)), rel=1e-4)
    assert not wide.ok


def test_decisions_are_counted_by_label_not_by_class() -> None:
    hair = Label(name="hair", kind="categorical", classes=("black", "blond", "brown"), dims=3)
    labels = LabelSet(labels=(hair, Label(name="smiling")))
    expected = np.array([[0.4, 0.35, 0.25, 0.9], [0.1, 0.2, 0.7, 0.1]], np.float32)
    found = np.array([[0.35, 0.4, 0.25, 0.9], [0.2, 0.1, 0.7, 0.1]], np.float32)
    assert disagreement(labels, found, expected) == 0.25  # one of two images by two labels
    assert disagreement(labels, expected, expected) == 0


@pytest.mark.parametrize(("precision", "relative"), [("fp32", 1e-4), ("fp16", 2e-2), ("int8", None)])
def test_a_small_output_is_not_judged_by_a_large_one(precision: str, relative: float | None) -> None:
    loc, scale = np.float32([[900.0]]), np.float32([[0.1]])
    by = 2 * (relative or 1)
    row = _compare("encoder", ("eager torch", "onnx"), 1, precision, ((loc, scale), (loc, scale + np.float32(by))))
    assert (row.max_abs, row.tolerance) == (pytest.approx(by, rel=1e-2), relative)
    assert row.ok == (relative is None)


def test_limits_are_those_that_are_stated() -> None:
    held = Quality(256, mean=0.5, p999=4, worst=200, equal=0, disagreement=0.01, flips=0.01, spread=0.1)
    assert held.ok
    over = {"mean": 0.51, "p999": 5.0, "disagreement": 0.0101, "flips": 0.0101, "spread": 0.101}
    for field, value in over.items():
        assert not replace(held, **{field: value}).ok, field


class Costs:
    """A gate and an assembler in numbers: a bundle is its forms, its quality the sum of their costs."""

    def __init__(self, **costs: dict[str, float]) -> None:
        self.costs, self.asked = costs, 0

    def assemble(self, chosen) -> dict[str, str]:
        return {graph: one.form for graph, one in chosen.items()}

    def measure(self, bundle: Bundle) -> Quality:
        self.asked += 1
        return replace(PERFECT, mean=sum(self.costs[graph][form] for graph, form in bundle.items()))  # type: ignore[attr-defined]

    def options(self) -> dict[str, list]:
        return {graph: [lambda f=f: Serialised(b"", "int8", f) for f in forms] for graph, forms in self.costs.items()}

    def exact(self) -> dict[str, object]:
        return {graph: lambda f=list(forms)[-1]: Serialised(b"", "fp32", f) for graph, forms in self.costs.items()}


def test_the_graph_that_hurts_most_gives_way() -> None:
    costs = Costs(
        encoder={"small": 0.2, "exact": 0.0},
        decoder={"small": 0.9, "middle": 0.25, "exact": 0.0},
        classifier={"small": 0.0, "exact": 0.0},
    )
    chosen, quality = choose(costs.options(), costs.exact(), costs.assemble, costs)
    assert {graph: one.form for graph, one in chosen.items()} == {
        "encoder": "small",
        "decoder": "middle",
        "classifier": "small",
    }
    assert quality.mean == pytest.approx(0.45)


def test_what_passes_at_once_is_taken_and_what_never_passes_is_named() -> None:
    fine = Costs(encoder={"small": 0.1, "exact": 0.0}, decoder={"small": 0.2, "exact": 0.0})
    assert choose(fine.options(), fine.exact(), fine.assemble, fine)[1].mean == pytest.approx(0.3)
    assert fine.asked == 1
    bad = Costs(encoder={"small": 0.3, "exact": 0.0}, decoder={"small": 0.7, "exact": 0.0})
    small = {graph: forms[:1] for graph, forms in bad.options().items()}
    with pytest.raises(ParityError, match=r"mean difference in levels is 2\.00 times .* the decoder in int8") as caught:
        choose(small, bad.exact(), bad.assemble, bad)
    assert caught.value.exit_code == 1


def test_a_form_that_gives_what_is_no_image_gives_way() -> None:
    costs = Costs(encoder={"small": 0.1, "exact": 0.0}, decoder={"broken": 0.0, "exact": 0.0})

    def assemble(chosen) -> dict[str, str]:
        if chosen["decoder"].form == "broken":
            raise BundleError("decoder.onnx gives numbers that are not finite")
        return costs.assemble(chosen)

    chosen, quality = choose(costs.options(), costs.exact(), assemble, costs)
    assert {graph: one.form for graph, one in chosen.items()} == {"encoder": "small", "decoder": "exact"}
    assert quality.mean == pytest.approx(0.1)
    broken = {graph: forms[:1] for graph, forms in costs.options().items()}
    with pytest.raises(BundleError, match="not finite"):
        choose(broken, costs.exact(), assemble, costs)


def test_a_bundle_in_the_smallest_precision_that_is_good_enough(made_run: Path, tmp_path: Path) -> None:
    report = export_run(made_run, "onnx", tmp_path / "bundle", precision="auto")
    one = report.exported[0]
    assert one.quality.ok
    assert one.manifest.files["classifier"].precision == "int8"
    assert json.loads((one.bundle / "parity.json").read_text())["quality"]["judged_on"] == "fresh portraits"
    assert "precision" in (one.bundle / "README.md").read_text()


def test_8_bits_need_the_data_of_the_run(made_run: Path, monkeypatch) -> None:
    run = load_run(made_run)
    monkeypatch.setitem(run.provenance, "data", "celeba:/nowhere")
    with pytest.raises(DataError, match="calibrated on the run's own images"):
        run_images.run_images(run, required=True)
    found = run_images.run_images(run, required=False)
    assert found.source == "generated images"
    assert found.judged.shape == (256, 3, 32, 32)
    assert 0 <= found.judged.min() <= found.judged.max() <= 1
    assert np.array_equal(found.judged, run_images.run_images(run, required=False).judged)
