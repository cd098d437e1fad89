"""Writes roberta/{uint8-dynamic,int4-qdq,int2-asym,int4-hqq,bnb4}: the oracle's RoBERTa quantised by ONNX Runtime's own tools, with references.

Interventions as in the other folders: the tensor [d, h, (Q, K, V, O), H] of the dequantised weights is decomposed by HOOI in float64
(full SVDs, until the error stands still), and every projection of a chosen layer becomes a float MatMul with the reconstruction that
reads what the file's own operator reads. Run by onnxruntime with graph optimisation off.

Needs onnx, onnxruntime, numpy, and torch for HQQ. Usage: make_quantised.py (writes beside itself)
"""
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper, version_converter
from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_bnb4_quantizer import MatMulBnb4Quantizer
from onnxruntime.quantization.matmul_nbits_quantizer import HQQWeightOnlyQuantConfig, MatMulNBitsQuantizer

HERE = Path(__file__).parent
SOURCE = HERE.parent / "oracle" / "roberta"
D, HEAD, HEADS = 32, 8, 4
PLACES = ["attention/self/query", "attention/self/key", "attention/self/value", "attention/output/dense"]


def quantise(kind: str, path: Path) -> None:
    if kind == "uint8-dynamic":
        quantize_dynamic(SOURCE / "onnx/model.onnx", path, weight_type=QuantType.QUInt8)
        return
    model = onnx.load(SOURCE / "onnx-latest/model.onnx")
    if kind == "bnb4":
        # FP4 in layer 0, NF4 elsewhere.
        first = [n.name for n in model.graph.node if "layer.0/" in n.name]
        others = [n.name for n in model.graph.node if "layer.0/" not in n.name]
        for quant_type, excluded in ((0, others), (1, first)):
            quantiser = MatMulBnb4Quantizer(model, quant_type, 16, nodes_to_exclude=excluded)
            quantiser.process()
            model = quantiser.model.model
        onnx.save(model, path)
        return
    if kind == "int4-hqq":  # its zero points are real numbers
        config = HQQWeightOnlyQuantConfig(block_size=16, bits=4)
        quantiser = MatMulNBitsQuantizer(model, algo_config=config)
        quantiser.process()
        onnx.save(quantiser.model.model, path)
        return
    if kind == "int4-qdq":
        model = version_converter.convert_version(model, 21)  # the first whose DequantizeLinear knows blocks
    bits, layout = (4, QuantFormat.QDQ) if kind == "int4-qdq" else (2, QuantFormat.QOperator)
    quantiser = MatMulNBitsQuantizer(model, bits=bits, block_size=16, is_symmetric=False, quant_format=layout,
                                     op_types_to_quantize=("MatMul",))
    quantiser.process()
    onnx.save(quantiser.model.model, path)


class Graph:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        self.producers = {name: node for node in model.graph.node for name in node.output}

    def readers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self.model.graph.node if name in node.input]

    def projection(self, layer: int, place: str) -> tuple[str, onnx.NodeProto, np.ndarray]:
        """What a projection reads, the node that makes its result, and the matrix [in, out] that it stands for."""
        where = f"layer.{layer}/{place}/MatMul"
        node = next(n for n in self.model.graph.node
                    if where in n.name and n.op_type in ("MatMul", "MatMulNBits", "MatMulBnb4", "MatMulInteger"))
        if node.op_type == "MatMulInteger":
            quantise = self.producers[node.input[0]]
            last = self.readers(self.readers(node.output[0])[0].output[0])[0]
            scales = self.producers[[name for name in last.input if self.producers[name].op_type == "Mul"][0]]
            scale = self.arrays[[name for name in scales.input if name in self.arrays][0]]
            zero = self.arrays[node.input[3]].astype(np.float64)
            return quantise.input[0], last, (self.arrays[node.input[1]].astype(np.float64) - zero) * scale
        if node.op_type == "MatMul":
            dequantise = self.producers[node.input[1]]
            return node.input[0], node, self.evaluate(dequantise)
        identity = helper.make_node(node.op_type, ["eye", *node.input[1:]], ["out"], domain="com.microsoft")
        identity.attribute.extend(node.attribute)
        size = next(a.i for a in node.attribute if a.name == "K")
        return node.input[0], node, self.evaluate(identity, {"eye": np.eye(size, dtype=np.float32)})

    def evaluate(self, node: onnx.NodeProto, feeds: dict[str, np.ndarray] = {}) -> np.ndarray:
        """One node alone, run by ONNX Runtime: its own idea of what stored numbers stand for."""
        stored = [t for t in self.model.graph.initializer if t.name in node.input]
        inputs = [helper.make_tensor_value_info(k, onnx.TensorProto.FLOAT, v.shape) for k, v in feeds.items()]
        output = [helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT, None)]
        graph = helper.make_graph([node], "one", inputs, output, stored)
        model = helper.make_model(graph, opset_imports=list(self.model.opset_import), ir_version=10)
        return session(model).run(None, feeds)[0].astype(np.float64)


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options)


def stack(matrices: list[np.ndarray]) -> np.ndarray:
    q, k, v = (matrix.reshape(D, HEADS, HEAD).transpose(0, 2, 1) for matrix in matrices[:3])
    return np.stack([q, k, v, matrices[3].reshape(HEADS, HEAD, D).transpose(2, 1, 0)], axis=2)


def unstack(tensor: np.ndarray) -> list[np.ndarray]:
    first = [tensor[:, :, s].transpose(0, 2, 1).reshape(D, D) for s in range(3)]
    return [*first, tensor[:, :, 3].transpose(2, 1, 0).reshape(D, D)]


def hooi(tensor: np.ndarray, ranks: tuple[int, int, int]) -> np.ndarray:
    def basis(x: np.ndarray, mode: int) -> np.ndarray:
        return np.linalg.svd(np.moveaxis(x, mode, 0).reshape(x.shape[mode], -1), full_matrices=False)[0][:, :ranks[mode]]

    def project(x: np.ndarray, factors: list[np.ndarray], modes: list[int], transpose: bool = True) -> np.ndarray:
        for mode in modes:
            x = np.moveaxis(np.tensordot(factors[mode].T if transpose else factors[mode], x, (1, mode)), 0, mode)
        return x

    factors = [basis(tensor, mode) for mode in range(3)]
    before = -1.0
    for _ in range(2000):
        for mode in range(3):
            factors[mode] = basis(project(tensor, factors, [m for m in range(3) if m != mode]), mode)
        core = project(tensor, factors, [0, 1, 2])
        energy = float((core ** 2).sum())
        if abs(energy - before) <= 1e-15 * energy:
            break
        before = energy
    return project(core, factors, [0, 1, 2], transpose=False)


def outputs(model: onnx.ModelProto, inputs: dict[str, list]) -> dict[str, list]:
    running = session(model)
    feeds = {name: np.array(value, dtype=np.int64) for name, value in inputs.items()}
    return {o.name: v.tolist() for o, v in zip(running.get_outputs(), running.run(None, feeds))}


def intervene(model: onnx.ModelProto, ranks: tuple[int, int, int], layers: list[int]) -> tuple[onnx.ModelProto, list]:
    original, changed, facts = Graph(model), onnx.ModelProto(), []
    changed.CopyFrom(model)
    for layer in layers:
        tensor = stack([original.projection(layer, place)[2] for place in PLACES])
        rebuilt = tensor if ranks == (D, HEAD, 4) else hooi(tensor, ranks)
        error = float(np.linalg.norm(tensor - rebuilt) / np.linalg.norm(tensor))
        facts.append({"layer": layer, "relative_error": error})
        for place, matrix in zip(PLACES, unstack(rebuilt)):
            stream, last, _ = Graph(changed).projection(layer, place)
            name = f"{place}/{layer}/W_hat"
            changed.graph.initializer.append(numpy_helper.from_array(matrix.astype(np.float32), name))
            last.CopyFrom(helper.make_node("MatMul", [stream, name], [last.output[0]], name=last.name))
    return changed, facts


def main() -> None:
    cases = [c for c in json.loads((SOURCE / "reference.json").read_text())["cases"] if c["name"] in ("single", "right-pad")]
    for kind in ("uint8-dynamic", "int4-qdq", "int2-asym", "int4-hqq", "bnb4"):
        folder = HERE / "roberta" / kind
        folder.mkdir(parents=True, exist_ok=True)
        quantise(kind, folder / "model.onnx")
        model = onnx.load(folder / "model.onnx")
        inputs = {c["name"]: {i.name: c["inputs"][i.name] for i in model.graph.input} for c in cases}
        reference = {"model": "roberta", "format": kind, "task": "question-answering",
                     "onnxruntime": f"{ort.__version__} CPU, ORT_DISABLE_ALL, one thread",
                     "tolerance": {"atol": 1e-4, "rtol": 1e-4} if kind != "uint8-dynamic" else {"atol": 2e-3, "rtol": 2e-3},
                     "cases": [{"name": n, "inputs": i, "outputs": outputs(model, i)} for n, i in inputs.items()]}
        interventions = []
        for name, ranks, layers in [("full", (D, HEAD, 4), [1]), ("half", (D // 2, HEAD // 2, 2), [1]),
                                    ("half-all-layers", (D // 2, HEAD // 2, 2), [0, 1])]:
            changed, facts = intervene(model, ranks, layers)
            interventions.append({"name": name, "ranks": ranks, "layers": facts,
                                  "cases": [{"name": n, "outputs": outputs(changed, i)} for n, i in inputs.items()]})
        for file, content in ("reference.json", reference), ("tucker.json", {"interventions": interventions}):
            (folder / file).write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
