"""A stranger's classifier, run: layouts, channel orders and batches give one answer; what cannot run is one line."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ccvae_deploy.audit.model import open_model
from ccvae_deploy.errors import ImageError, UsageError

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
RED = PIXELS[:, 4:8, :, 0].mean(axis=(1, 2)) / 255


def opened(model: onnx.ModelProto, folder: Path, **options):
    path = folder / "theirs.onnx"
    path.write_bytes(model.SerializeToString())
    return open_model(path, **{"provider": "cpu", "batch_size": 4} | options)


@pytest.mark.parametrize(
    ("made", "options"),
    [
        ({"channel": 0}, {"scale": 1}),
        ({"channel": 2}, {"scale": 1, "order": "bgr"}),
        ({"channel": 0, "layout": "nhwc"}, {"scale": 1}),
        ({"channel": 2, "layout": "nhwc", "gain": 20 / 255}, {"scale": 255, "order": "bgr"}),
        ({"channel": 0, "gain": 20 / 255, "dtype": TensorProto.UINT8}, {}),
        ({"channel": 0, "gain": 10, "bias": 0}, {"scale": 1, "mean": (0.5,), "std": (0.5,)}),
        ({"channel": 0, "shape": [3, 3, 32, 32]}, {"scale": 1}),
        ({"channel": 0, "end": "Identity"}, {"scale": 1, "activation": "sigmoid"}),
    ],
)
def test_one_answer_however_it_is_fed(made_classifier, tmp_path: Path, made: dict, options: dict) -> None:
    model = opened(made_classifier([(4, 8)], **made), tmp_path, **options)
    values, decisions = model.run(PIXELS)
    np.testing.assert_allclose(values[:, 0], 1 / (1 + np.exp(10 - 20 * RED)), rtol=1e-4)
    assert decisions[:, 0].tolist() == (RED > 0.5).tolist()
    assert model.provider == "CPUExecutionProvider"


def test_a_value_does_not_depend_on_what_is_beside_it(made_classifier, tmp_path: Path) -> None:
    model = opened(made_classifier([(0, 4), (4, 8)]), tmp_path, scale=1)
    whole = model.run(PIXELS)[0]
    assert all((model.run(PIXELS[i : i + 1])[0] == whole[i]).all() for i in range(7))


def test_an_image_that_the_model_cannot_take_is_one_image(made_classifier, tmp_path: Path) -> None:
    """A model that divides by the range of an image has no number for an even one."""
    made = made_classifier([(0, 4)], end="Identity")
    for i, operator in enumerate(("ReduceMax", "ReduceMin")):
        made.graph.node.append(helper.make_node(operator, ["v0", "axes"], [f"end{i}"], keepdims=0))
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 2, 3]), "axes"))
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "last"))
    for operator, given, out in (
        ("Sub", ["end0", "end1"], "range"),
        ("Unsqueeze", ["range", "last"], "column"),
        ("Div", ["scores", "column"], "relative"),
    ):
        made.graph.node.append(helper.make_node(operator, given, [out]))
    made.graph.output[0].name = "relative"
    model = opened(made, tmp_path, scale=1, activation="none")
    assert np.isfinite(model.run(PIXELS)[0]).all()
    with pytest.raises(ImageError, match="relative that is not finite"):
        model.run(np.concatenate([PIXELS, np.zeros_like(PIXELS[:1])]))


def test_what_cannot_run(made_classifier, tmp_path: Path) -> None:
    anysize = made_classifier([(0, 4)], shape=["N", 3, "H", "W"])
    with pytest.raises(UsageError, match="cannot run on 4 images as 16x16 rgb, nchw"):
        opened(anysize, tmp_path, scale=1, size=16)
    with pytest.raises(UsageError, match="not finite"):
        opened(made_classifier([(0, 4)], gain=np.inf, end="Identity"), tmp_path, scale=1, activation="none")
    indices = made_classifier([(0, 4)])
    indices.graph.node.append(helper.make_node("ArgMax", ["scores"], ["index"]))
    del indices.graph.output[:]
    indices.graph.output.append(helper.make_tensor_value_info("index", TensorProto.INT64, ["N", 1]))
    with pytest.raises(UsageError, match="scores, not indices"):
        opened(indices, tmp_path, scale=1)
    mixed = made_classifier([(0, 4)])
    mixed.graph.node.append(helper.make_node("ReduceMean", ["scores"], ["mean"], keepdims=0))
    mixed.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, []))
    del mixed.graph.output[0]
    with pytest.raises(UsageError, match=r"mean of shape \(\) for 4 images"):
        opened(mixed, tmp_path, scale=1, activation="none")


def test_a_model_that_was_exported_for_one_image_takes_one_at_a_time(made_classifier, tmp_path: Path) -> None:
    """Its batch is free by its shape, but a Reshape inside knows of one image alone."""
    made = made_classifier([(0, 4), (4, 8)], end="Identity")
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, -1]), "one"))
    made.graph.node.append(helper.make_node("Reshape", ["scores", "one"], ["row"]))
    made.graph.node.append(helper.make_node("Sigmoid", ["row"], ["rows"]))
    made.graph.output[0].name = "rows"
    with pytest.raises(UsageError, match=r"rows of shape \(1, 8\) for 4 images; give --batch-size 1"):
        opened(made, tmp_path, scale=1)
    alone = opened(made, tmp_path, scale=1, batch_size=1).run(PIXELS)[0]
    np.testing.assert_allclose(alone, opened(made_classifier([(0, 4), (4, 8)]), tmp_path, scale=1).run(PIXELS)[0], 1e-5)


def test_an_output_that_nobody_asks_for_may_have_any_shape_and_value(made_classifier, tmp_path: Path) -> None:
    made = made_classifier([(4, 8)])
    made.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([[np.inf]]), "infinite"))
    made.graph.node.append(helper.make_node("ReduceMean", ["scores"], ["mean"], keepdims=0))
    made.graph.node.append(helper.make_node("Mul", ["scores", "infinite"], ["apart"]))
    made.graph.output.append(helper.make_tensor_value_info("mean", TensorProto.FLOAT, []))
    alone = opened(made, tmp_path, scale=1)
    assert alone.reading.names == ("scores",)
    made.graph.output.append(helper.make_tensor_value_info("apart", TensorProto.FLOAT, ["N", 1]))
    chosen = opened(made, tmp_path, scale=1, outputs=["scores"])
    assert (chosen.run(PIXELS)[0] == alone.run(PIXELS)[0]).all()
    with pytest.raises(UsageError, match="apart that is not finite"):
        opened(made, tmp_path, scale=1, outputs=["apart"], activation="none")


def test_each_row_of_a_softmax_decides(made_classifier, tmp_path: Path) -> None:
    """Yes and no for each of two labels, as (N, 2, 2)."""

    def heads(end: str) -> onnx.ModelProto:
        made = made_classifier([(0, 4), (4, 8), (8, 12), (12, 16)], end="Identity")
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 2, 2]), "rows"))
        made.graph.node.append(helper.make_node("Reshape", ["scores", "rows"], ["pairs"]))
        made.graph.node.append(helper.make_node(end, ["pairs"], ["heads"]))
        made.graph.output[0].name = "heads"
        made.graph.output[0].type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 2, 2]))
        return made

    values, decisions = opened(heads("Softmax"), tmp_path, scale=1).run(PIXELS)
    assert (decisions == (values > 0.5)).all()
    assert (decisions.sum(axis=1) == 2).all()
    with pytest.raises(UsageError, match="heads has several rows an image"):
        opened(heads("Identity"), tmp_path, scale=1, activation="softmax")
