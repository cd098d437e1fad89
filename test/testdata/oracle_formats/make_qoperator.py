"""Writes roberta/qoperator and bert/qattention: files in ONNX Runtime's QOperator format, with references.

roberta/qoperator  quantize_static(quant_format=QOperator): QLinearMatMul, QLinearAdd, QLinearMul, QLinearSoftmax
bert/qattention    the same on the fused file of the oracle, then quantize_dynamic for its attentions: QAttention that reads a
                   QuantizeLinear (the first) or DynamicQuantizeLinear (the others), QLinearMatMul

Interventions as in make_quantised.py, in float on the real values that an operator reads: QLinearMatMul becomes DequantizeLinear, MatMul
with the reconstruction, QuantizeLinear; QAttention becomes Attention; what it reads through DynamicQuantizeLinear is taken before that.

Usage: make_qoperator.py (writes beside itself)
"""
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from make_quantised import HERE, hooi, outputs

MODELS = {"roberta": (32, 8, 4), "bert": (48, 12, 4)}
OPERATORS = ["MatMul", "Add", "Mul", "Softmax"]


class Cases(CalibrationDataReader):
    def __init__(self, inputs: list[dict[str, list]]) -> None:
        self.feeds = iter([{k: np.array(v, dtype=np.int64) for k, v in each.items()} for each in inputs])

    def get_next(self) -> dict | None:
        return next(self.feeds, None)


def source(kind: str) -> Path:
    return HERE.parent / "oracle/roberta/onnx-latest/model.onnx" if kind == "qoperator" else HERE / "bert/fused/model.onnx"


def described(path: Path) -> onnx.ModelProto:
    """With the types of what the fused operators give, which the tools don't work out and calibrate only where they know them."""
    model = onnx.load(path)
    for node in model.graph.node:
        if node.domain == "com.microsoft":
            model.graph.value_info.append(helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None))
    return onnx.shape_inference.infer_shapes(model)


def quantise(kind: str, inputs: list[dict[str, list]], path: Path) -> None:
    quantize_static(
        described(source(kind)), path, Cases(inputs), quant_format=QuantFormat.QOperator, op_types_to_quantize=OPERATORS,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=kind == "qoperator",
    )
    if kind == "qattention":
        quantize_dynamic(path, path, op_types_to_quantize=["Attention"], weight_type=QuantType.QInt8)
        fix_range(path)
    model = onnx.load(path)
    del model.graph.value_info[:]
    onnx.save(model, path)


def fix_range(path: Path) -> None:
    """The first attention reads what was rounded by a fixed scale, as older tools made it."""
    model = onnx.load(path)
    name = next(n for n in model.graph.node if n.op_type == "QAttention").input[0]
    node = next(n for n in model.graph.node if name in n.output)
    assert node.op_type == "DynamicQuantizeLinear"
    for value, number in zip(node.output[1:], (np.float32(8 / 255), np.uint8(128))):
        model.graph.initializer.append(numpy_helper.from_array(np.array(number), value))
    node.CopyFrom(helper.make_node("QuantizeLinear", [node.input[0], *node.output[1:]], [name], name=node.name))
    onnx.save(model, path)


class Graph:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.producers = {name: node for node in model.graph.node for name in node.output}

    def real(self, node: onnx.NodeProto, value: int, scale: int, zero: int) -> np.ndarray:
        number = lambda i: self.arrays[node.input[i]].astype(np.float64)
        return (number(value) - number(zero)) * number(scale)

    def node(self, operators: set[str], test) -> onnx.NodeProto:
        found = [n for n in self.model.graph.node if n.op_type in operators and test(n)]
        assert len(found) == 1, [n.name for n in found]
        return found[0]


def projections(graph: Graph, layer: int, kind: str) -> list[onnx.NodeProto]:
    """The nodes that multiply by Q, K, V and O; the first three are one QAttention."""
    place = lambda text: graph.node({"QLinearMatMul"}, lambda n: f"layer.{layer}/attention/{text}/MatMul" in n.name)
    if kind == "qoperator":
        return [place(text) for text in ("self/query", "self/key", "self/value", "output/dense")]
    attention = graph.node({"QAttention"}, lambda n: n.input[1].startswith(f"Attention_{layer}_"))
    return [attention, place("output/dense")]


def matrix(graph: Graph, node: onnx.NodeProto) -> np.ndarray:
    if node.op_type == "QAttention":
        return graph.real(node, 1, 4, 7)
    return graph.real(node, 3, 4, 5)


def replaced(graph: Graph, node: onnx.NodeProto, name: str) -> list[onnx.NodeProto]:
    """The float nodes that take a node's place."""
    before = graph.producers.get(node.input[0])
    if before is not None and before.op_type == "DynamicQuantizeLinear":
        stream, nodes = before.input[0], []
    else:
        stream = f"{name}/stream"
        scale, zero = (3, 6) if node.op_type == "QAttention" else (1, 2)
        nodes = [helper.make_node("DequantizeLinear", [node.input[0], node.input[scale], node.input[zero]], [stream])]
    if node.op_type == "QAttention":
        given = [stream, name, node.input[2], node.input[5] if len(node.input) > 5 else ""]
        real = helper.make_node("Attention", given, list(node.output), domain="com.microsoft")
        real.attribute.extend(node.attribute)
        return [*nodes, real]
    product = f"{name}/product"
    nodes.append(helper.make_node("MatMul", [stream, name], [product]))
    return [*nodes, helper.make_node("QuantizeLinear", [product, *node.input[6:8]], [node.output[0]])]


def intervene(model, kind: str, ranks, layers, sizes):
    d, h, heads = sizes
    changed, facts = onnx.ModelProto(), []
    changed.CopyFrom(model)
    for layer in layers:
        graph = Graph(changed)
        nodes = projections(graph, layer, kind)
        parts = [matrix(graph, node) for node in nodes]
        if len(parts) == 2:
            parts = [*np.split(parts[0], 3, axis=1), parts[1]]
        split = lambda m: m.reshape(d, heads, h).transpose(0, 2, 1)
        tensor = np.stack([*(split(m) for m in parts[:3]), split(parts[3].T)], axis=2)
        rebuilt = tensor if ranks == (d, h, 4) else hooi(tensor, ranks)
        facts.append({"layer": layer, "relative_error": float(np.linalg.norm(tensor - rebuilt) / np.linalg.norm(tensor))})
        joined = [rebuilt[:, :, s].transpose(0, 2, 1).reshape(d, d) for s in range(4)]
        joined[3] = joined[3].T
        if len(nodes) == 2:
            joined = [np.concatenate(joined[:3], axis=1), joined[3]]
        for i, (node, new) in enumerate(zip(nodes, joined)):
            name = f"layer{layer}/{i}/W_hat"
            changed.graph.initializer.append(numpy_helper.from_array(new.astype(np.float32), name))
            real = replaced(graph, node, name)
            at = [n.output[0] for n in changed.graph.node].index(node.output[0])
            del changed.graph.node[at]
            for k, new_node in enumerate(real):
                changed.graph.node.insert(at + k, new_node)
            graph = Graph(changed)
    return changed, facts


def main() -> None:
    for model_name, kind in [("roberta", "qoperator"), ("bert", "qattention")]:
        sizes = MODELS[model_name]
        d, h, _ = sizes
        folder = HERE / model_name / kind
        folder.mkdir(parents=True, exist_ok=True)
        cases = json.loads((HERE.parent / "oracle" / model_name / "reference.json").read_text())["cases"]
        names = [i.name for i in onnx.load(source(kind)).graph.input]
        inputs = {c["name"]: {n: c["inputs"][n] for n in names} for c in cases}
        quantise(kind, list(inputs.values()), folder / "model.onnx")
        model = onnx.load(folder / "model.onnx")
        print(kind, sorted({n.op_type for n in model.graph.node}), (folder / "model.onnx").stat().st_size)
        kept = {n: i for n, i in inputs.items() if n in ("single", "right-pad")}
        reference = {"model": model_name, "format": kind, "task": "question-answering",
                     "onnxruntime": f"{ort.__version__} CPU, ORT_DISABLE_ALL, one thread",
                     "tolerance": {"atol": 1e-4, "rtol": 1e-4},
                     "cases": [{"name": n, "inputs": i, "outputs": outputs(model, i)} for n, i in kept.items()]}
        interventions = []
        layers = 2 if model_name == "roberta" else 3
        for name, ranks, chosen in [("full", (d, h, 4), [1]), ("half", (d // 2, h // 2, 2), [1]),
                                    ("half-all-layers", (d // 2, h // 2, 2), list(range(layers)))]:
            changed, facts = intervene(model, kind, ranks, chosen, sizes)
            after = [{"name": n, "outputs": outputs(changed, i)} for n, i in kept.items()]
            for a, b in zip(after, reference["cases"]):
                print("  ", name, a["name"], max(np.abs(np.array(a["outputs"][k]) - np.array(b["outputs"][k])).max() for k in a["outputs"]))
            interventions.append({"name": name, "ranks": ranks, "layers": facts, "cases": after})
        for file, content in ("reference.json", reference), ("tucker.json", {"interventions": interventions}):
            (folder / file).write_text(json.dumps(content, separators=(",", ":")) + "\n")


main()
