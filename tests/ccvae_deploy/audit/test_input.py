"""How a stranger's classifier is fed: what its file says, what options say, and what neither does."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from ccvae_deploy.audit.input import read_feeding
from ccvae_deploy.errors import UsageError


def taking(*shape: object, dtype: int = TensorProto.FLOAT, **metadata: str) -> onnx.ModelProto:
    """A model of which only the input counts."""
    given = helper.make_tensor_value_info("pixels", dtype, list(shape))
    model = helper.make_model(helper.make_graph([], "g", [given], []))
    helper.set_model_props(model, {f"Image.{key}": value for key, value in metadata.items()})
    return model


def test_shape_and_metadata_say_all() -> None:
    model = taking("N", 3, 20, 10, BitmapPixelFormat="Bgr8", NominalPixelRange="Normalized_1_1")
    found = read_feeding(model)
    assert (found.layout, found.order, found.height, found.width, found.batch) == ("nchw", "bgr", 20, 10, 0)
    assert (found.scale, found.mean, found.std) == (1, (0.5,) * 3, (0.5,) * 3)
    grey = read_feeding(taking(4, 8, 8, 1, NominalPixelRange="NominalRange_0_255"))
    assert (grey.layout, grey.order, grey.batch, grey.scale, grey.mean) == ("nhwc", "grey", 4, 255, (0.0,))


def test_a_size_below_1_is_free_and_a_huge_batch_is_refused() -> None:
    found = read_feeding(taking(-1, 3, -1, 0), size=32, scale=1)
    assert (found.batch, found.height, found.width) == (0, 32, 32)
    with pytest.raises(UsageError, match="takes 1,099,511,627,776 images at once"):
        read_feeding(taking(1 << 40, 3, 8, 8), scale=1)


def test_pixels_become_what_the_model_was_trained_on() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    options = {"scale": 1, "mean": (0.1, 0.2, 0.3), "std": (0.5, 1, 2)}
    x = read_feeding(taking("N", 3, 2, 4), **options).feed(pixels)
    assert x.shape == (1, 3, 2, 4)
    assert x.dtype == np.float32
    expected = (pixels.astype(np.float64) / 255 - [0.1, 0.2, 0.3]) / [0.5, 1, 2]
    np.testing.assert_allclose(x, expected.transpose(0, 3, 1, 2), rtol=1e-5)
    bgr = read_feeding(taking("N", 2, 4, 3), order="bgr", scale=255).feed(pixels)
    np.testing.assert_allclose(bgr, pixels[..., ::-1])
    half = read_feeding(taking("N", 3, 2, 4, dtype=TensorProto.FLOAT16), scale=255).feed(pixels)
    assert half.dtype == np.float16
    as_bytes = read_feeding(taking("N", 2, 4, 3, dtype=TensorProto.UINT8)).feed(pixels)
    assert as_bytes.dtype == np.uint8
    assert (as_bytes == pixels).all()


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (taking("N", 3, 8, 8), {}, "give --scale 1 or --scale 255"),
        (taking("N", "C", "H", "W"), {"scale": 1, "size": 8}, "give --layout"),
        (taking("N", 3, 8, 3), {"scale": 1}, r"\(\?, 3, 8, 3\) does not tell where the channels are"),
        (taking("N", 3, "H", "W"), {"scale": 1}, "give --size"),
        (taking("N", 3, 8, 8), {"scale": 1, "size": "9x8"}, "8x8 only"),
        (taking("N", 3, "H", "W"), {"scale": 1, "size": "big"}, "--size 'big'"),
        (taking("N", 3, "H", "W"), {"scale": 1, "size": "9999"}, "sides of 1 to 4096"),
        (taking("N", 3, 8, 8), {"scale": 2}, "--scale 2"),
        (taking("N", 3, 8, 8), {"scale": 1, "mean": (1, 2)}, "--mean has 2 values"),
        (taking("N", 3, 8, 8), {"scale": 1, "std": (0,)}, "--std above 0"),
        (taking("N", 3, 8, 8), {"scale": 1, "mean": (float("nan"),)}, "finite"),
        (taking("N", 3, 8, 8), {"scale": 1, "order": "grey"}, "takes 3 channels"),
        (taking("N", 1, 8, 8), {"scale": 1, "order": "bgr"}, "takes 1 channels"),
        (taking("N", 3, 8, 8), {"scale": 1, "layout": "nhwc"}, "has 8 channels then"),
        (taking("N", 3, 8, 8), {"scale": 1, "layout": "hwc"}, "did you mean nhwc"),
        (taking("N", 3, 8, 8, dtype=TensorProto.UINT8), {"std": (2,)}, "bytes from 0 to 255"),
        (taking("N", 3, 8, 8, dtype=TensorProto.INT64), {"scale": 1}, "another type"),
        (taking("N", 3, 8), {"scale": 1}, "4 dimensions"),
        (taking("N", 3, 8, 8, NominalPixelRange="Normalized_0_1"), {"mean": (1,)}, "need --scale"),
    ],
)
def test_what_is_open_or_contradicted_is_refused(model: onnx.ModelProto, options: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_feeding(model, **options)
    assert "\n" not in str(caught.value)


def test_options_fill_what_a_dynamic_shape_leaves_open() -> None:
    found = read_feeding(taking("N", "H", "W", "C"), layout="nhwc", size="12x7", scale=1)
    assert (found.height, found.width, found.order) == (12, 7, "rgb")
    assert read_feeding(taking("N", "C", "H", "W"), layout="nchw", size=9, scale=1, order="grey").mean == (0.0,)
