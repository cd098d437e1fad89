"""Writes decoders with fused attention operators and rotary embedding, from the weights of Hugging Face models.

    python make_fused_operators.py MODELS OUT

MODELS holds a folder for each model with config.json and model.safetensors: those whose outputs are in ../oracle, where make_reference.py
made the ones with heads of 16. OUT gets
`<model>/<form>.onnx` and one `<model>/weights.data` that all forms of a model read. Forms:

group_query         com.microsoft.GroupQueryAttention that rotates itself (do_rotary), as ONNX Runtime GenAI's builder writes it
group_query_packed  the same with query, key and value in one operand
group_query_turned  com.microsoft.RotaryEmbedding, then a GroupQueryAttention that doesn't rotate
multi_head          com.microsoft.RotaryEmbedding, then com.microsoft.MultiHeadAttention with a cache
attention           the standard's RotaryEmbedding and Attention on [batch, positions, heads * head size], causal, cache inside
attention_heads     the same with heads first

Needs numpy, onnx and safetensors.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import load_file

FORMS = {
    "llama": ["multi_head"],
    "llama-gqa": ["attention"],
    "qwen3": ["attention_heads"],
    "llama-16": ["group_query", "group_query_packed", "group_query_turned"],
    "qwen3-16": ["group_query", "group_query_turned"],
}
MICROSOFT = "com.microsoft"


class Decoder:
    """One graph under construction."""

    def __init__(self, config, weights, form, store):
        self.config, self.weights, self.form, self.store = config, weights, form, store
        self.nodes, self.initializers = [], []
        self.heads, self.groups = config["num_attention_heads"], config["num_key_value_heads"]
        self.size = config["head_dim"]
        self.standard = form.startswith("attention")

    def node(self, op, inputs, output, domain="", **attributes):
        outputs = [output] if isinstance(output, str) else output
        name = "/" + outputs[0].replace(".", "/") + "/" + op
        self.nodes.append(helper.make_node(op, inputs, outputs, name=name, domain=domain, **attributes))
        return outputs[0]

    def tensor(self, name, values):
        """A constant: small ones in the graph, matrices in the shared file."""
        values = np.ascontiguousarray(values)
        if all(entry.name != name for entry in self.initializers):
            self.initializers.append(self.store.tensor(name, values))
        return name

    def linear(self, x, names, output):
        matrix = np.concatenate([self.weights[name + ".weight"] for name in names]).T
        return self.node("MatMul", [x, self.tensor("+".join(names) + ".weight", matrix)], output)

    def norm(self, x, name, output):
        op = "RMSNormalization" if self.standard else "SimplifiedLayerNormalization"
        scale = self.tensor(name + ".weight", self.weights[name + ".weight"])
        return self.node(op, [x, scale], output, axis=-1, epsilon=self.config["rms_norm_eps"])

    def inputs_of_attention(self):
        """Lengths for the operators that count, an additive mask for the others, and the rotation's tables."""
        angles = np.outer(
            np.arange(self.config["max_position_embeddings"]),
            self.config["rope_theta"] ** (-np.arange(0, self.size, 2) / self.size),
        )
        self.tensor("cos_cache", np.cos(angles).astype(np.float32))
        self.tensor("sin_cache", np.sin(angles).astype(np.float32))
        one = self.tensor("one", np.array([1], np.int64))
        if self.form.startswith("group_query"):
            counted = self.node("ReduceSum", ["attention_mask", one], "mask.count", keepdims=0)
            self.node("Cast", [self.node("Sub", [counted, one], "mask.last")], "seqlens_k", to=TensorProto.INT32)
            index = self.tensor("index", np.array(1, np.int64))
            total = self.node("Gather", [self.node("Shape", ["attention_mask"], "mask.shape"), index], "mask.total")
            self.node("Cast", [total], "total_sequence_length", to=TensorProto.INT32)
            if self.form == "group_query_turned":
                self.counted_positions(counted, total, index)
            return
        # Where position t of the new ones may look: at what the mask has, up to its own place.
        zero = self.tensor("zero", np.array([0], np.int64))
        two = self.tensor("two", np.array([2], np.int64))
        shape = self.node("Shape", ["attention_mask"], "mask.shape")
        total = self.node("Slice", [shape, one, two], "mask.total")
        fresh = self.node("Slice", [self.node("Shape", ["input_ids"], "ids.shape"), one, two], "ids.total")
        scalars = [self.tensor("scalar.0", np.array(0, np.int64)), self.tensor("scalar.1", np.array(1, np.int64))]
        everything = self.node("Squeeze", [total], "mask.total.scalar")
        keys = self.node("Range", [scalars[0], everything, scalars[1]], "mask.keys")
        start = self.node("Squeeze", [self.node("Sub", [total, fresh], "mask.past")], "mask.past.scalar")
        queries = self.node("Range", [start, everything, scalars[1]], "mask.queries")
        later = self.node("Greater", [keys, self.node("Unsqueeze", [queries, one], "mask.rows")], "mask.later")
        padded = self.node("Equal", ["attention_mask", zero], "mask.padded")
        axes = self.tensor("axes", np.array([1, 2], np.int64))
        hidden = self.node("Or", [later, self.node("Unsqueeze", [padded, axes], "mask.columns")], "mask.hidden")
        values = [self.tensor("lowest", np.array(-1e9, np.float32)), self.tensor("nothing", np.array(0, np.float32))]
        self.node("Where", [hidden, *values], "mask.bias")

    def counted_positions(self, counted, total, index):
        """Positions of the new tokens as GroupQueryAttention counts them for itself: in the first call all rows begin at 0."""
        tokens = self.node("Gather", [self.node("Shape", ["input_ids"], "ids.shape"), index], "ids.total")
        scalars = [self.tensor(f"scalar.{number}", np.array(number, np.int64)) for number in (0, 1)]
        first = self.node("Equal", [total, tokens], "ids.first")
        before = self.node("Where", [first, scalars[0], self.node("Sub", [counted, tokens], "mask.before")], "before")
        rows = self.node("Unsqueeze", [before, "one"], "before.rows")
        steps = self.node("Range", [scalars[0], tokens, scalars[1]], "ids.steps")
        self.node("Add", [rows, steps], "position_ids")

    def attention(self, x, layer):
        base = f"model.layers.{layer}.self_attn"
        names = [f"{base}.{part}_proj" for part in "qkv"]
        past = [f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"]
        outputs = [f"{base}.context", f"present.{layer}.key", f"present.{layer}.value"]
        if self.form == "group_query_packed":
            operands = [self.linear(x, names, f"{base}.qkv"), "", ""]
        else:
            operands = [self.linear(x, [name], f"{name}.out") for name in names]
        heads = [self.heads, self.groups, self.groups]
        if self.form == "attention_heads":
            operands = [self.split(operand, count) for operand, count in zip(operands, heads)]
        if f"{base}.q_norm.weight" in self.weights:
            for i, part in enumerate("qk"):
                operands[i] = self.head_norm(operands[i], f"{base}.{part}_norm")
        inside = self.form in ("group_query", "group_query_packed")
        for i in range(0 if inside else 2):
            operands[i] = self.rotated(operands[i], heads[i])
        if self.form.startswith("group_query"):
            lengths = ["seqlens_k", "total_sequence_length"]
            tables = ["cos_cache", "sin_cache"] if inside else []
            rotation = {"do_rotary": 1, "rotary_interleaved": 0} if inside else {}
            context = self.node(
                "GroupQueryAttention", [*operands, *past, *lengths, *tables], outputs, MICROSOFT,
                num_heads=self.heads, kv_num_heads=self.groups, scale=self.size**-0.5, **rotation,
            )
            return self.linear(context, [f"{base}.o_proj"], f"{base}.out")
        if self.form == "multi_head":
            context = self.node(
                "MultiHeadAttention", [*operands, "", "", "mask.bias", *past], outputs, MICROSOFT, num_heads=self.heads,
            )
            return self.linear(context, [f"{base}.o_proj"], f"{base}.out")
        counts = {} if self.form == "attention_heads" else {"q_num_heads": self.heads, "kv_num_heads": self.groups}
        context = self.node("Attention", [*operands, "mask.bias", *past], outputs, scale=self.size**-0.5, **counts)
        if self.form == "attention_heads":
            moved = self.node("Transpose", [context], f"{base}.positions", perm=[0, 2, 1, 3])
            join = self.tensor("join", np.array([0, 0, self.heads * self.size], np.int64))
            context = self.node("Reshape", [moved, join], f"{base}.joined")
        return self.linear(context, [f"{base}.o_proj"], f"{base}.out")

    def split(self, x, heads):
        shape = self.tensor(f"split.{heads}", np.array([0, 0, heads, self.size], np.int64))
        return self.node("Transpose", [self.node("Reshape", [x, shape], x + ".split")], x + ".heads", perm=[0, 2, 1, 3])

    def head_norm(self, x, name):
        """RMS norm over each head; before a joined operand, GenAI's builder puts heads into rows."""
        if self.form == "attention_heads":
            return self.norm(x, name, x + ".norm")
        rows = self.tensor("rows", np.array([0, -1, self.size], np.int64))
        heads = self.groups if "k_norm" in name else self.heads
        joined = self.tensor(f"joined.{heads}", np.array([0, -1, heads * self.size], np.int64))
        normed = self.norm(self.node("Reshape", [x, rows], x + ".rows"), name, x + ".norm")
        return self.node("Reshape", [normed, joined], x + ".normed")

    def rotated(self, x, heads):
        if not self.standard:
            inputs = [x, "position_ids", "cos_cache", "sin_cache"]
            attributes = {"num_heads": heads, "rotary_embedding_dim": 0}
            return self.node("RotaryEmbedding", inputs, x + ".rotated", MICROSOFT, **attributes)
        attributes = {} if self.form == "attention_heads" else {"num_heads": heads}
        return self.node("RotaryEmbedding", [x, "cos_cache", "sin_cache", "position_ids"], x + ".rotated", **attributes)

    def mlp(self, x, layer):
        base = f"model.layers.{layer}.mlp"
        gate = self.linear(x, [f"{base}.gate_proj"], f"{base}.gate")
        active = self.node("Mul", [gate, self.node("Sigmoid", [gate], f"{base}.sigmoid")], f"{base}.silu")
        product = self.node("Mul", [active, self.linear(x, [f"{base}.up_proj"], f"{base}.up")], f"{base}.product")
        return self.linear(product, [f"{base}.down_proj"], f"{base}.out")

    def model(self):
        self.inputs_of_attention()
        embedding = self.tensor("model.embed_tokens.weight", self.weights["model.embed_tokens.weight"])
        x = self.node("Gather", [embedding, "input_ids"], "embedded")
        layers = self.config["num_hidden_layers"]
        for layer in range(layers):
            base = f"model.layers.{layer}"
            attended = self.attention(self.norm(x, f"{base}.input_layernorm", f"{base}.norm1"), layer)
            x = self.node("Add", [x, attended], f"{base}.residual1")
            fed = self.mlp(self.norm(x, f"{base}.post_attention_layernorm", f"{base}.norm2"), layer)
            x = self.node("Add", [x, fed], f"{base}.residual2")
        tied = self.config.get("tie_word_embeddings")
        head = self.tensor("head.weight", self.weights["model.embed_tokens.weight" if tied else "lm_head.weight"].T)
        self.node("MatMul", [self.norm(x, "model.norm", "normed"), head], "logits")
        info = helper.make_tensor_value_info
        inputs = [
            info("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"]),
            info("attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"]),
        ]
        if not self.form.startswith("group_query"):
            inputs.append(info("position_ids", TensorProto.INT64, ["batch_size", "sequence_length"]))
        outputs = [info("logits", TensorProto.FLOAT, ["batch_size", "sequence_length", self.config["vocab_size"]])]
        for layer in range(layers):
            for part in ("key", "value"):
                shape = ["batch_size", self.groups, "past_sequence_length", self.size]
                inputs.append(info(f"past_key_values.{layer}.{part}", TensorProto.FLOAT, shape))
                shape = [*shape[:2], "total_sequence_length", self.size]
                outputs.append(info(f"present.{layer}.{part}", TensorProto.FLOAT, shape))
        graph = helper.make_graph(self.nodes, "decoder", inputs, outputs, self.initializers)
        opsets = [helper.make_opsetid("", 23 if self.standard else 21), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=11 if self.standard else 10)


class Store:
    """Matrices of all forms of a model, each once, in one file."""

    def __init__(self):
        self.data, self.places = bytearray(), {}

    def tensor(self, name, values):
        if values.nbytes < 512:
            return onnx.numpy_helper.from_array(values, name)
        content = values.tobytes()
        if content not in self.places:
            self.places[content] = len(self.data)
            self.data += content
        tensor = TensorProto(name=name, dims=values.shape, data_type=helper.np_dtype_to_tensor_dtype(values.dtype))
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": "weights.data", "offset": self.places[content], "length": len(content)}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor


def main(models, out):
    for name, forms in FORMS.items():
        folder = Path(out) / name
        folder.mkdir(parents=True, exist_ok=True)
        config = json.loads((Path(models) / name / "config.json").read_text())
        weights = load_file(Path(models) / name / "model.safetensors")
        store = Store()
        for form in forms:
            model = Decoder(config, weights, form, store).model()
            (folder / f"{form}.onnx").write_bytes(model.SerializeToString())
        (folder / "weights.data").write_bytes(store.data)


if __name__ == "__main__":
    main(*sys.argv[1:])
