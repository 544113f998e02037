"""Someone else's model: what could read other files, bring code or draw noise is refused before a session is made."""

from pathlib import Path

import numpy as np
import onnx
import onnx.inliner
import pytest
from onnx import TensorProto, helper, numpy_helper

from ccvae_deploy.audit.vet import read_model
from ccvae_deploy.errors import UsageError


def refused(model: onnx.ModelProto | bytes, folder: Path, message: str) -> None:
    path = folder / "theirs.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    with pytest.raises(UsageError, match=message) as caught:
        read_model(path)
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(f"--model {path}")


def test_what_passes_runs_as_it_was_checked(made_classifier, tmp_path: Path) -> None:
    model = made_classifier([(0, 4)])
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString() + b"\xfa\x7f\x03abc")
    vetted = read_model(tmp_path / "m.onnx")
    assert b"abc" not in vetted.graph
    assert onnx.load_model_from_string(vetted.graph).graph == model.graph


def test_files_that_are_no_model(made_classifier, tmp_path: Path) -> None:
    refused(b"no model", tmp_path, "not an ONNX file")
    refused(b"", tmp_path, "no file of 1 to")
    refused(made_classifier([(0, 4)]).SerializeToString()[:-100], tmp_path, "not an ONNX file")
    with pytest.raises(UsageError, match="cannot be read"):
        read_model(tmp_path / "none.onnx")
    with pytest.raises(UsageError, match="directory"):
        read_model(tmp_path)


def test_weights_in_another_file_wherever_they_hide(made_classifier, tmp_path: Path) -> None:
    secret = TensorProto(name="s", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
    secret.external_data.add(key="location", value="../../etc/passwd")
    outside = made_classifier([(0, 4)])
    outside.graph.initializer.append(secret)
    refused(outside, tmp_path, "another file")
    constant = made_classifier([(0, 4)])
    constant.graph.node.append(helper.make_node("Constant", [], ["c"], value=secret))
    refused(constant, tmp_path, "another file")
    sparse = made_classifier([(0, 4)])
    sparse.graph.sparse_initializer.add(values=secret)
    refused(sparse, tmp_path, "another file")
    inner = helper.make_graph([helper.make_node("Constant", [], ["k"], value=secret)], "b", [], [])
    branch = made_classifier([(0, 4)])
    branch.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))
    refused(branch, tmp_path, "another file")


def test_code_of_its_own_and_noise(made_classifier, tmp_path: Path) -> None:
    operator = made_classifier([(0, 4)])
    operator.graph.node[0].domain = "evil.\x1bcorp"
    refused(operator, tmp_path, r"uses evil\. corp\.Cast, no ONNX operator")
    local = made_classifier([(0, 4)])
    local.functions.append(helper.make_function("d", "f", ["a"], ["a"], [], []))
    refused(local, tmp_path, "onnx.inliner")
    noisy = made_classifier([(0, 4)])
    noisy.graph.node.insert(0, helper.make_node("RandomNormal", [], ["n"], shape=[1]))
    refused(noisy, tmp_path, "random numbers")


def test_a_domain_that_no_operator_is_of_is_no_matter(made_classifier, tmp_path: Path) -> None:
    """onnxruntime names its own in every model that it has optimised; inlining leaves those of the functions."""
    made = made_classifier([(0, 4)])
    square = helper.make_function(
        "evil", "Square", ["a"], ["b"], [helper.make_node("Mul", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    made.functions.append(square)
    made.opset_import.append(helper.make_opsetid("evil", 1))
    made.graph.node.append(helper.make_node("Square", ["scores"], ["squares"], domain="evil"))
    made.graph.output[0].name = "squares"
    refused(made, tmp_path, "defines operators of its own; inline them with onnx.inliner first")
    (tmp_path / "inlined.onnx").write_bytes(onnx.inliner.inline_local_functions(made).SerializeToString())
    assert "evil" in {opset.domain for opset in read_model(tmp_path / "inlined.onnx").model.opset_import}


def test_much_structure_and_deep_graphs(made_classifier, tmp_path: Path) -> None:
    large = made_classifier([(0, 4)])
    large.doc_string = "a" * (17 << 20)
    refused(large, tmp_path, "beside its weights")
    deep = helper.make_graph([], "g", [], [])
    for _ in range(12):
        deep = helper.make_graph([helper.make_node("If", ["c"], ["d"], then_branch=deep)], "g", [], [])
    inside = made_classifier([(0, 4)])
    inside.graph.node.append(deep.node[0])
    refused(inside, tmp_path, "deeper than")


def test_a_graph_that_does_not_check(made_classifier, tmp_path: Path) -> None:
    broken = made_classifier([(0, 4)])
    broken.graph.node[1].input[0] = "nobody"
    refused(broken, tmp_path, "not a valid ONNX graph")
    twice = made_classifier([(0, 4)])
    twice.graph.initializer.append(numpy_helper.from_array(np.float32([1]), "w"))
    twice.graph.node[0].op_type = "NoSuchOperator"
    refused(twice, tmp_path, "not a valid ONNX graph")
