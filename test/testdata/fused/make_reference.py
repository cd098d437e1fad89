"""Writes a tiny Llama and a tiny Qwen3 with heads of 16 and their reference data, computed by Hugging Face's code.

    python make_reference.py OUT

ONNX Runtime's GroupQueryAttention rotates heads of a multiple of 16 only, which none of the other models has. OUT gets a folder for
each as in ../oracle: config.json, model.safetensors (for make_operators.py), reference.json, tucker.json and tucker.safetensors. The
interventions project each layer's tensor [d, h, 4, H], key and value repeated over their group, onto the leading left singular vectors
of its unfoldings, in float64; the outputs are those of the same class with the projected weights, one key and value head for each
query head.

Needs numpy, safetensors, torch and transformers (5.18, torch 2.13).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

D, H, G, SIZE, LAYERS, VOCABULARY = 32, 4, 2, 16, 2, 64
PARTS = ["q_proj", "k_proj", "v_proj", "o_proj"]
CLASSES = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen3": (Qwen3Config, Qwen3ForCausalLM)}
INTERVENTIONS = {
    "half": ([D // 2, SIZE // 2, 2], [1]),
    "grouped": ([D // 2, SIZE // 2, 4], [0]),
    "half-all-layers": ([D // 2, SIZE // 2, 2], list(range(LAYERS))),
    "grouped-all-layers": ([3 * D // 4, SIZE // 2, 4], list(range(LAYERS))),
}


def build(kind, groups):
    make_config, make_model = CLASSES[kind]
    config = make_config(
        hidden_size=D, num_attention_heads=H, num_key_value_heads=groups, head_dim=SIZE, intermediate_size=48,
        num_hidden_layers=LAYERS, vocab_size=VOCABULARY, max_position_embeddings=64, rms_norm_eps=1e-6, rope_theta=10000.0,
        tie_word_embeddings=False, attn_implementation="eager",
    )
    return make_model(config).eval()


def randomise(model):
    generator = torch.Generator().manual_seed(16)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        scale = 1.0 if parameter.dim() == 1 or "embed" in name else 1.5 / parameter.shape[1] ** 0.5
        parameter.data = (1 + 0.3 * noise) if parameter.dim() == 1 else noise * scale


def tensor_of(model, layer):
    """W[:, :, s, i] of Q, K, V as they act on row vectors and of O transposed, in float64."""
    attention = model.model.layers[layer].self_attn
    stacked = []
    for part in PARTS:
        weight = getattr(attention, part).weight.detach().double().numpy()
        heads = (weight if part == "o_proj" else weight.T).reshape(D, -1, SIZE)
        stacked.append(np.repeat(heads, H // heads.shape[1], axis=1))
    return np.stack(stacked).transpose(1, 3, 0, 2)


def projected(w, ranks):
    for mode, rank in enumerate(ranks):
        unfolded = np.moveaxis(w, mode, 0).reshape(w.shape[mode], -1)
        u = np.linalg.svd(unfolded, full_matrices=False)[0][:, :rank]
        w = np.moveaxis(np.tensordot(u @ u.T, w, axes=(1, mode)), 0, mode)
    return w


def with_weights(model, tensors):
    """The model with a key and a value head for each query head, and some layers replaced."""
    wide = build(model.config.model_type, H)
    state = model.state_dict()
    for layer in range(LAYERS):
        w = tensors.get(layer, tensor_of(model, layer))
        for s, part in enumerate(PARTS):
            joined = torch.tensor(w[:, :, s, :].transpose(0, 2, 1).reshape(D, H * SIZE), dtype=torch.float32)
            state[f"model.layers.{layer}.self_attn.{part}.weight"] = joined if part == "o_proj" else joined.T.contiguous()
    wide.load_state_dict(state)
    return wide


@torch.no_grad()
def run(model, ids, past=None):
    out = model(torch.tensor(ids), past_key_values=past, use_cache=True)
    outputs = {"logits": rounded(out.logits)}
    for layer in range(LAYERS):
        entry = out.past_key_values.layers[layer]
        outputs |= {f"present.{layer}.key": rounded(entry.keys), f"present.{layer}.value": rounded(entry.values)}
    return outputs, out.past_key_values


def rounded(tensor):
    return np.round(tensor.numpy().astype(np.float64), 6).tolist()


def inputs_of(ids, start, past=None):
    positions = list(range(start, start + len(ids[0])))
    inputs = {"input_ids": ids, "attention_mask": [[1] * (start + len(ids[0]))], "position_ids": [positions]}
    for name, value in (past or {}).items():
        if name.startswith("present"):
            inputs[name.replace("present", "past_key_values")] = value
    return inputs


def cases(model, tokens):
    result, past, outputs = [], None, None
    for name, (start, end) in {"prefill": (0, 6), "step": (6, 7), "chunk": (7, 10)}.items():
        inputs = inputs_of([tokens[start:end]], start, outputs)
        outputs, past = run(model, [tokens[start:end]], past)
        result.append({"name": name, "inputs": inputs, "outputs": outputs})
    for name, ids in {"single": tokens[:11], "long": tokens[:30]}.items():
        outputs, _ = run(model, [ids])
        result.append({"name": name, "inputs": inputs_of([ids], 0), "outputs": {"logits": outputs["logits"]}})
    return result


@torch.no_grad()
def greedy(model, prompt, count=12):
    tokens, margins = list(prompt), []
    for _ in range(count):
        logits = model(torch.tensor([tokens])).logits[0, -1]
        best = torch.topk(logits, 2)
        margins.append(float(best.values[0] - best.values[1]))
        tokens.append(int(best.indices[0]))
    return {"prompt": prompt, "new_tokens": tokens[len(prompt):], "smallest_top1_top2_margin": min(margins)}


def main(out):
    for kind in CLASSES:
        write(kind, Path(out) / f"{kind}-16")


def write(kind, out):
    out.mkdir(parents=True, exist_ok=True)
    model = build(kind, G)
    randomise(model)
    tokens = np.random.default_rng(5).integers(0, VOCABULARY, 30).tolist()
    prompt = tokens[:6]
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, out / "model.safetensors")
    config = {
        "model_type": kind, "hidden_size": D, "num_attention_heads": H, "num_key_value_heads": G, "head_dim": SIZE,
        "num_hidden_layers": LAYERS, "vocab_size": VOCABULARY, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": False,
    }
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    originals = {layer: tensor_of(model, layer) for layer in range(LAYERS)}
    tensors = {f"layer{layer}.W": w for layer, w in originals.items()}
    interventions = []
    for name, (ranks, layers) in INTERVENTIONS.items():
        replaced = {layer: projected(originals[layer], ranks) for layer in layers}
        for layer, w in replaced.items():
            tensors[f"{name}.layer{layer}.W_hat"] = w
        changed = with_weights(model, replaced)
        found = [case for case in cases(changed, tokens) if case["name"] == "single"]
        interventions.append({
            "name": name,
            "ranks": ranks,
            "layers": [
                {"layer": l, "relative_error": float(np.linalg.norm(w - originals[l]) / np.linalg.norm(originals[l]))}
                for l, w in replaced.items()
            ],
            "compression_ratio": 4 * D * SIZE * H
            / (ranks[0] * ranks[1] * ranks[2] * H + D * ranks[0] + SIZE * ranks[1] + 4 * ranks[2]),
            "cases": [{"name": case["name"], "outputs": case["outputs"]} for case in found],
            "greedy": greedy(changed, prompt),
        })
    stored = {name: torch.tensor(np.ascontiguousarray(w), dtype=torch.float32) for name, w in tensors.items()}
    save_file(stored, out / "tucker.safetensors")
    sizes = {"d_model": D, "d_head": SIZE, "n_heads": H, "num_key_value_heads": G}
    (out / "tucker.json").write_text(json.dumps({**sizes, "interventions": interventions}))
    reference = {
        "model": f"{kind}-16", "tolerance": {"atol": 1e-4, "rtol": 1e-4}, "cases": cases(model, tokens),
        "greedy": greedy(model, prompt),
    }
    (out / "reference.json").write_text(json.dumps(reference))


if __name__ == "__main__":
    main(sys.argv[1])
