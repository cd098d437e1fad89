"""Causal decoders by Hugging Face's own code with random weights, exported to ONNX, with outputs before and after Tucker
interventions. Needs torch 2.13, transformers 5.18, onnx, onnxscript, numpy and safetensors.

    python make_decoders.py OUT [NAME[:EXPORT,...] ...]

Without names: those of EXPORTS, which are kept here. EXPORT is exporter and opset (ts14: TorchScript, dynamo18:
torch.export), attention implementation, and `past` for a graph with a cache. Layout of a folder as in ../oracle:
reference.json, tucker.json, tucker.safetensors, EXPORT/model.onnx. The HOOI here is float64 NumPy and shares nothing with
the program under test.
"""
import copy, inspect, json, os, re, sys, warnings, zlib

import numpy as np
import onnx
import torch
from safetensors.numpy import save_file
import transformers
from transformers import DynamicCache
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

warnings.filterwarnings("ignore")
V, D, H, HEAD, L = 48, 32, 4, 8, 2
BASE = dict(vocab_size=V, hidden_size=D, num_attention_heads=H, num_hidden_layers=L, intermediate_size=16,
            num_key_value_heads=H, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False)
GQA = dict(num_key_value_heads=2)
MOE = dict(num_local_experts=2, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=16)


def linear(prefix, q="q_proj", k="k_proj", v="v_proj", o="o_proj"):
    """Four nn.Linear."""
    return lambda heads, groups: {
        "q": (prefix + q, np.arange(heads * HEAD)), "k": (prefix + k, np.arange(groups * HEAD)),
        "v": (prefix + v, np.arange(groups * HEAD)), "o": (prefix + o, None)}


def packed(name, out):
    """Rows q of all heads, k of all groups, v of all groups."""
    return lambda heads, groups: {
        "q": (name, np.arange(heads * HEAD)), "k": (name, heads * HEAD + np.arange(groups * HEAD)),
        "v": (name, (heads + groups) * HEAD + np.arange(groups * HEAD)), "o": (out, None)}


def interleaved(name, out):
    """Rows [head][q, k, v][head size]."""
    rows = lambda part: lambda heads: np.concatenate([(3 * i + part) * HEAD + np.arange(HEAD) for i in range(heads)])
    return lambda heads, groups: {
        "q": (name, rows(0)(heads)), "k": (name, rows(1)(heads)), "v": (name, rows(2)(heads)), "o": (out, None)}


def grouped(name, out):
    """Falcon's new layout: rows [group][queries of the group, k, v][head size]."""
    def rows(heads, groups):
        rep = heads // groups
        width = (rep + 2) * HEAD
        q = np.concatenate([g * width + np.arange(rep * HEAD) for g in range(groups)])
        k = np.concatenate([g * width + rep * HEAD + np.arange(HEAD) for g in range(groups)])
        v = np.concatenate([g * width + (rep + 1) * HEAD + np.arange(HEAD) for g in range(groups)])
        return {"q": (name, q), "k": (name, k), "v": (name, v), "o": (out, None)}
    return rows


def gated(prefix):
    """Queries in the rows [head][query, gate][head size]; key, value and output of their own."""
    return lambda heads, groups: linear(prefix)(heads, groups) | {
        "q": (prefix + "q_proj", np.concatenate([2 * i * HEAD + np.arange(HEAD) for i in range(heads)]))}


def bigcode(heads, groups):
    pack = packed if groups == 1 else interleaved
    return pack("transformer.h.{l}.attn.c_attn", "transformer.h.{l}.attn.c_proj")(heads, groups)


LLAMA = linear("model.layers.{l}.self_attn.")
# name: (model type, configuration, layout); groups are those of the configuration
ARCHITECTURES = {
    "opt": ("opt", dict(ffn_dim=16, word_embed_proj_dim=D), linear("model.decoder.layers.{l}.self_attn.", o="out_proj")),
    "gpt-neo": ("gpt_neo", dict(num_layers=L, num_heads=H, attention_types=[[["global", "local"], 1]], window_size=4),
                linear("transformer.h.{l}.attn.attention.", o="out_proj")),
    "gpt-neox": ("gpt_neox", dict(rotary_pct=0.5), interleaved("gpt_neox.layers.{l}.attention.query_key_value",
                                                               "gpt_neox.layers.{l}.attention.dense")),
    "gpt-bigcode": ("gpt_bigcode", dict(n_embd=D, n_head=H, n_layer=L, n_positions=64, n_inner=16, multi_query=True), bigcode),
    "mpt": ("mpt", dict(d_model=D, n_heads=H, n_layers=L, expansion_ratio=1, max_seq_len=64),
            packed("transformer.blocks.{l}.attn.Wqkv", "transformer.blocks.{l}.attn.out_proj")),
    "falcon-alibi": ("falcon", dict(alibi=True, multi_query=False, new_decoder_architecture=False, bias=True, parallel_attn=False,
                                    ffn_hidden_size=16),
                     interleaved("transformer.h.{l}.self_attention.query_key_value", "transformer.h.{l}.self_attention.dense")),
    "falcon-new": ("falcon", dict(new_decoder_architecture=True, multi_query=False, num_kv_heads=2, ffn_hidden_size=16),
                   grouped("transformer.h.{l}.self_attention.query_key_value", "transformer.h.{l}.self_attention.dense")),
    "phi": ("phi", dict(partial_rotary_factor=0.5), linear("model.layers.{l}.self_attn.", o="dense")),
    "phi-norm": ("phi", dict(partial_rotary_factor=0.5, qk_layernorm=True), linear("model.layers.{l}.self_attn.", o="dense")),
    "phi3": ("phi3", dict(**GQA, original_max_position_embeddings=64),
             packed("model.layers.{l}.self_attn.qkv_proj", "model.layers.{l}.self_attn.o_proj")),
    "phimoe": ("phimoe", dict(**GQA, **MOE), LLAMA),
    "gemma": ("gemma", dict(head_dim=HEAD, num_key_value_heads=1), LLAMA),
    "gemma3": ("gemma3_text", dict(head_dim=HEAD, **GQA, sliding_window=4, layer_types=["sliding_attention", "full_attention"],
                                   query_pre_attn_scalar=5), LLAMA),
    "mistral": ("mistral", dict(**GQA, sliding_window=4, head_dim=HEAD), LLAMA),
    "mixtral": ("mixtral", dict(**GQA, **MOE), LLAMA),
    "qwen2": ("qwen2", dict(**GQA), LLAMA),
    "qwen2-moe": ("qwen2_moe", dict(**GQA, **MOE, shared_expert_intermediate_size=16), LLAMA),
    "qwen3-moe": ("qwen3_moe", dict(**GQA, **MOE, head_dim=HEAD), LLAMA),
    "stablelm": ("stablelm", dict(use_qkv_bias=True, partial_rotary_factor=0.25), LLAMA),
    "stablelm-norm": ("stablelm", dict(**GQA, qk_layernorm=True, use_parallel_residual=True, partial_rotary_factor=0.25), LLAMA),
    "olmo": ("olmo", dict(clip_qkv=0.5), LLAMA),
    "olmo2": ("olmo2", dict(), LLAMA),
    "olmoe": ("olmoe", dict(**MOE), LLAMA),
    "cohere": ("cohere", dict(**GQA, logit_scale=0.25), LLAMA),
    "cohere-norm": ("cohere", dict(**GQA, use_qk_norm=True), LLAMA),
    "cohere2": ("cohere2", dict(**GQA, sliding_window=4, layer_types=["sliding_attention", "full_attention"]), LLAMA),
    "starcoder2": ("starcoder2", dict(**GQA, sliding_window=4), LLAMA),
    "granite": ("granite", dict(**GQA, attention_multiplier=0.3, residual_multiplier=0.7, embedding_multiplier=3.0,
                                attention_bias=True), LLAMA),
    "glm": ("glm", dict(**GQA, head_dim=HEAD, partial_rotary_factor=0.5, attention_bias=True), LLAMA),
    "glm4": ("glm4", dict(**GQA, head_dim=HEAD, partial_rotary_factor=0.5, attention_bias=True), LLAMA),
    "xglm": ("xglm", dict(d_model=D, num_layers=L, attention_heads=H, ffn_dim=16), linear("model.layers.{l}.self_attn.", o="out_proj")),
    "biogpt": ("biogpt", dict(), linear("biogpt.layers.{l}.self_attn.", o="out_proj")),
    "ctrl": ("ctrl", dict(n_positions=64, n_embd=D, dff=16, n_layer=L, n_head=H),
             linear("transformer.h.{l}.multi_head_attention.", "Wq", "Wk", "Wv", "dense")),
    "openai-gpt": ("openai-gpt", dict(n_positions=64, n_embd=D, n_layer=L, n_head=H),
                   packed("transformer.h.{l}.attn.c_attn", "transformer.h.{l}.attn.c_proj")),
    "smollm3": ("smollm3", dict(**GQA, no_rope_layers=[1, 0], no_rope_layer_interval=2), LLAMA),
    "persimmon": ("persimmon", dict(partial_rotary_factor=0.5, qk_layernorm=True),
                  interleaved("model.layers.{l}.self_attn.query_key_value", "model.layers.{l}.self_attn.dense")),
    "nemotron": ("nemotron", dict(**GQA, partial_rotary_factor=0.5, head_dim=HEAD), LLAMA),
    "exaone4": ("exaone4", dict(**GQA, sliding_window=4, sliding_window_pattern=2, layer_types=["sliding_attention", "full_attention"]), LLAMA),
    "helium": ("helium", dict(**GQA, head_dim=HEAD), LLAMA),
    "apertus": ("apertus", dict(**GQA), LLAMA),
    "hunyuan": ("hunyuan_v1_dense", dict(**GQA, head_dim=HEAD), LLAMA),
    "seed-oss": ("seed_oss", dict(**GQA, head_dim=HEAD, attention_bias=True), LLAMA),
    "dbrx": ("dbrx", dict(d_model=D, n_heads=H, n_layers=L, max_seq_len=64,
                          attn_config=dict(clip_qkv=0.5, kv_n_heads=2, rope_theta=1e4),
                          ffn_config=dict(ffn_hidden_size=16, moe_num_experts=2, moe_top_k=1)),
             packed("transformer.blocks.{l}.norm_attn_norm.attn.Wqkv", "transformer.blocks.{l}.norm_attn_norm.attn.out_proj")),
    "gptj": ("gptj", dict(n_embd=D, n_head=H, n_layer=L, n_positions=64, rotary_dim=4, n_inner=16),
             linear("transformer.h.{l}.attn.", o="out_proj")),
    "gpt2": ("gpt2", dict(n_embd=D, n_head=H, n_layer=L, n_positions=64, n_inner=16),
             packed("transformer.h.{l}.attn.c_attn", "transformer.h.{l}.attn.c_proj")),
    "gpt2-scaled": ("gpt2", dict(n_embd=D, n_head=H, n_layer=L, n_positions=64, n_inner=16, reorder_and_upcast_attn=True,
                                 scale_attn_by_inverse_layer_idx=True),
             packed("transformer.h.{l}.attn.c_attn", "transformer.h.{l}.attn.c_proj")),
    "bloom": ("bloom", dict(n_layer=L, n_head=H), interleaved("transformer.h.{l}.self_attention.query_key_value",
                                                              "transformer.h.{l}.self_attention.dense")),
    # not of the form, or only nearly
    "deepseek-v3": ("deepseek_v3", dict(num_key_value_heads=H, q_lora_rank=12, kv_lora_rank=12, qk_nope_head_dim=6, qk_rope_head_dim=2,
                                        v_head_dim=8, first_k_dense_replace=2, n_group=1, topk_group=1, **MOE), None),
    "deepseek-v2": ("deepseek_v2", dict(num_key_value_heads=H, q_lora_rank=None, kv_lora_rank=12, qk_nope_head_dim=6, qk_rope_head_dim=2,
                                        v_head_dim=8, first_k_dense_replace=2, n_group=1, topk_group=1, n_routed_experts=2,
                                        num_experts_per_tok=1, moe_intermediate_size=16), None),
    "llama4": ("llama4_text", dict(**GQA, **MOE, head_dim=HEAD, intermediate_size_mlp=16, no_rope_layers=[1, 0], moe_layers=[],
                                   attn_temperature_tuning=True, floor_scale=4, attn_scale=0.3, attention_chunk_size=8), LLAMA),
    "gpt-oss": ("gpt_oss", dict(**GQA, **MOE, head_dim=HEAD, sliding_window=4, layer_types=["sliding_attention", "full_attention"]), LLAMA),
    "diffllama": ("diffllama", dict(), None),
    "qwen3-next": ("qwen3_next", dict(**GQA, head_dim=HEAD, layer_types=["full_attention", "full_attention"], num_experts=0,
                                      mlp_only_layers=[0, 1]), gated("model.layers.{l}.self_attn.")),
    "gemma3-single": ("gemma3_text", dict(head_dim=HEAD, num_key_value_heads=1, sliding_window=4,
                                          layer_types=["sliding_attention", "full_attention"]), LLAMA),
    "gemma3n": ("gemma3n_text", dict(**GQA, head_dim=HEAD, intermediate_size=[16, 16], hidden_size_per_layer_input=4,
                                     vocab_size_per_layer_input=V, laurel_rank=4, num_kv_shared_layers=0, altup_num_inputs=2,
                                     activation_sparsity_pattern=[0.0, 0.0], sliding_window=4,
                                     layer_types=["sliding_attention", "full_attention"]), LLAMA),
    "minimax": ("minimax", dict(**GQA, **MOE, head_dim=HEAD, layer_types=["linear_attention", "full_attention"], block_size=4), None),
}


# What is kept as test data, each for something that no other file here shows.
EXPORTS = {
    "opt": ["dynamo18-sdpa-past"],  # biases everywhere, reduced with a cache
    "gpt-neox": ["ts17-sdpa-past"],  # [head][q, k, v] rows, rotary embedding of half a head
    "gpt-bigcode": ["dynamo18-sdpa-past", "dynamo24-sdpa-past"],  # one key head, packed, reduced; Attention beside a cache
    "falcon-new": ["dynamo18-sdpa-past"],  # [group][queries, k, v] rows by GatherND, heads repeated before rotation, so cached
    "phi3": ["dynamo18-sdpa-past"],  # packed rows of grouped heads
    # biases on grouped heads; a past that is joined with nothing first; heads repeated before Attention, behind a cache
    "qwen2": ["ts14-eager-past", "dynamo24-sdpa-past"],
    "gemma3": ["ts17-sdpa-past"],  # sliding windows, norms of query and key
    "olmo": ["ts17-sdpa"],  # clipped query, key and value: nothing may run reduced
    "olmo2": ["dynamo18-sdpa-past"],  # norms over all heads together
    "stablelm-norm": ["dynamo18-sdpa-past"],  # a norm for each head, joined again
    "smollm3": ["dynamo18-sdpa-past"],  # a layer without rotation
    "glm": ["dynamo18-eager-past"],  # interleaved rotation of half a head
    "mixtral": ["dynamo18-eager"],  # a router's softmax beside attention's
    "qwen3-next": ["dynamo18-sdpa-past"],  # a gate in the query's projection
    "gemma3-single": ["dynamo18-sdpa-past"],  # a norm of the one key head, which becomes one for every query head
    "gemma3n": ["ts17-eager-past"],  # a norm without gain on values
    "gpt-oss": ["dynamo18-eager-past"],  # sinks: the rows of the softmax sum to less than one
    "persimmon": ["dynamo18-sdpa-past"],  # LayerNormalization between projection and cache
    "gpt-neo": ["dynamo18-eager-past"],  # no scale, windows by Where
    "cohere2": ["dynamo18-sdpa-past"],  # interleaved rotation in one layer, none in the other, a parallel network
}


def make_config(kind, options):
    config = transformers.CONFIG_MAPPING[kind]
    accepted = {**BASE, **options}
    return config(**accepted)


def make_model(config, attention):
    config = copy.deepcopy(config)
    config._experts_implementation = "batched_mm"  # others don't export
    model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]._from_config(config, attn_implementation=attention)
    return model.eval().float()


def groups_of(config):
    if getattr(config, "multi_query", False):
        return 1
    if config.model_type == "falcon":
        return config.num_kv_heads if config.new_decoder_architecture else H
    attn = getattr(config, "attn_config", None)
    return getattr(attn, "kv_n_heads", None) or getattr(config, "num_key_value_heads", None) or H


def ungrouped_config(kind, options):
    """Multi-head instead of grouped queries."""
    options = copy.deepcopy(options)
    options.update({"num_key_value_heads": H, "num_kv_heads": H, "multi_query": False})
    if "attn_config" in options:
        options["attn_config"]["kv_n_heads"] = H
    return make_config(kind, options)


def ungrouped_norms(state, wanted, groups):
    """The state under the names of a model with H key heads: norms of single key heads repeated like the heads."""
    result = {}
    for name in wanted:
        source = re.sub(r"(k_layernorm\.norms\.)(\d+)", lambda m: m[1] + str(int(m[2]) * groups // H), name) \
            if f"k_layernorm.norms.{H - 1}" in " ".join(wanted) and groups < H else name
        value = state[source]
        if "k_norm" in name and value.shape[0] == groups < wanted[name].shape[0] == H:
            value = value.repeat_interleave(H // groups, 0)
        result[name] = value
    return result


def randomise(model, rng):
    """Every parameter random, norm gains around 1 and norm biases too."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            value = rng.standard_normal(tuple(p.shape))
            if p.dim() >= 2:
                value *= 0.9 / np.sqrt(p.shape[-1]) if "embed" not in name and "wte" not in name else 0.5
            elif "norm" in name or "ln_" in name or "layernorm" in name:
                value = 0.2 * value + (0.0 if name.endswith("bias") else 1.0)
                if "Gemma" in type(model).__name__ or "Nemotron" in type(model).__name__:
                    value -= 0.0 if name.endswith("bias") else 1.0
            else:
                value *= 0.3
            p.copy_(torch.from_numpy(value))


def decaying_tensor(rng):
    """[D, HEAD, 4, H] with a decaying multilinear spectrum."""
    tensor = rng.standard_normal((D, HEAD, 4, H))
    for mode, rate in ((0, 0.87), (1, 0.7), (2, 0.6)):
        n = tensor.shape[mode]
        q = np.linalg.qr(rng.standard_normal((n, n)))[0] * rate ** np.arange(n)
        tensor = np.moveaxis(np.tensordot(q, tensor, (1, mode)), 0, mode)
    return tensor * np.sqrt(1.6 / D) / tensor.std()


class Attention:
    """Reads and writes the four projections of a layer of a model as [D, HEAD, 4, H]."""

    def __init__(self, model, layout, groups):
        self.model, self.layout, self.groups = model, layout, groups

    def parts(self, l):
        for part, (name, rows) in self.layout(H, self.groups).items():
            module = self.model.get_submodule(name.format(l=l))
            yield part, module, rows, type(module).__name__ == "Conv1D"

    def get(self, l):
        tensor = np.zeros((D, HEAD, 4, H))
        for part, module, rows, flipped in self.parts(l):
            weight = module.weight.detach().double().numpy()
            weight = weight.T if flipped else weight  # [out, in]
            s = "qkvo".index(part)
            if part == "o":
                tensor[:, :, s, :] = weight.reshape(D, H, HEAD).transpose(0, 2, 1)
            else:
                heads = weight[rows].reshape(-1, HEAD, D)
                heads = np.repeat(heads, H // heads.shape[0], axis=0)
                tensor[:, :, s, :] = heads.transpose(2, 1, 0)
        return tensor

    def set(self, l, tensor):
        with torch.no_grad():
            for part, module, rows, flipped in self.parts(l):
                s = "qkvo".index(part)
                weight = module.weight.detach().double().numpy()
                weight = (weight.T if flipped else weight).copy()
                if part == "o":
                    weight[:] = tensor[:, :, s, :].transpose(0, 2, 1).reshape(D, H * HEAD)
                else:
                    groups = len(rows) // HEAD
                    heads = tensor[:, :, s, ::H // groups].transpose(2, 1, 0)
                    weight[rows] = heads.reshape(-1, D)
                module.weight.copy_(torch.from_numpy(weight.T if flipped else weight))

    def biases(self, l):
        return {part: None if module.bias is None else
                (module.bias.detach().clone() if rows is None else
                 module.bias.detach().clone()[rows].reshape(-1, HEAD).repeat_interleave(H * HEAD // len(rows), 0).reshape(-1))
                for part, module, rows, _ in self.parts(l)}

    def set_biases(self, l, biases):
        with torch.no_grad():
            for part, module, rows, _ in self.parts(l):
                if biases[part] is None:
                    continue
                if rows is None:
                    module.bias.copy_(biases[part])
                else:
                    step = H * HEAD // len(rows)
                    module.bias[torch.from_numpy(rows)] = biases[part].reshape(-1, HEAD)[::step].reshape(-1)


def hooi(tensor, ranks):
    """Tucker on modes 0 to 2, from the HOSVD until no subspace moves."""
    bases = [np.linalg.svd(np.moveaxis(tensor, m, 0).reshape(tensor.shape[m], -1), full_matrices=False)[0][:, :r]
             for m, r in enumerate(ranks)]
    for _ in range(2000):
        moved = 0.0
        for m, r in enumerate(ranks):
            part = tensor
            for k in range(3):
                if k != m:
                    part = np.moveaxis(np.tensordot(bases[k].T, part, (1, k)), 0, k)
            u = np.linalg.svd(np.moveaxis(part, m, 0).reshape(part.shape[m], -1), full_matrices=False)[0][:, :r]
            moved = max(moved, np.linalg.norm(u @ u.T - bases[m] @ bases[m].T))
            bases[m] = u
        if moved < 1e-12:
            break
    result = tensor
    for k in range(3):
        result = np.moveaxis(np.tensordot(bases[k] @ bases[k].T, result, (1, k)), 0, k)
    return result, np.linalg.norm(tensor - result) / np.linalg.norm(tensor)


class Wrapper(torch.nn.Module):
    """Flat inputs and outputs, under optimum's names."""

    def __init__(self, model, names, cached):
        super().__init__()
        self.model, self.names, self.cached = model, names, cached

    def forward(self, *tensors):
        named = dict(zip(self.names, tensors))
        past = list(tensors[len(self.names):])
        if not self.cached:
            return self.model(**named, **no_cache(self.model)).logits
        cache = DynamicCache()
        for l in range(len(past) // 2):
            cache.update(past[2 * l], past[2 * l + 1], l)
        out = self.model(**named, past_key_values=cache, use_cache=True)
        return (out.logits, *[t for layer in out.past_key_values.layers for t in (layer.keys, layer.values)])


def takes_cache(model):
    return "past_key_values" in inspect.signature(model.forward).parameters


def no_cache(model):
    return {"use_cache": False} if takes_cache(model) else {}


def input_names(model):
    accepted = inspect.signature(model.forward).parameters
    return [n for n in ("input_ids", "attention_mask", "position_ids") if n in accepted]


def cache_sizes(model, config):
    """Heads and sizes of keys and values."""
    with torch.no_grad():
        out = model(input_ids=torch.ones(1, 2, dtype=torch.long), use_cache=True)
    return [[(t.shape[1], t.shape[3]) for t in (layer.keys, layer.values)] for layer in out.past_key_values.layers]


def export(model, config, spec, path):
    """spec: such as ts14-eager-past, dynamo18-sdpa."""
    exporter, _, *past = spec.split("-")
    cached = bool(past)
    opset = int(re.sub(r"\D", "", exporter))
    names = input_names(model)
    wrapper = Wrapper(model, names, cached).eval()
    B, T, P = 2, 3, 5 if cached else 0
    given = {"input_ids": torch.randint(3, V, (B, T)), "attention_mask": torch.ones(B, P + T, dtype=torch.long),
             "position_ids": torch.arange(P, P + T)[None].repeat(B, 1)}
    args = [given[n] for n in names]
    inputs = list(names)
    outputs = ["logits"]
    axes = {"input_ids": {0: "batch_size", 1: "sequence_length"}, "logits": {0: "batch_size", 1: "sequence_length"},
            "attention_mask": {0: "batch_size", 1: "past_sequence_length + sequence_length" if cached else "sequence_length"},
            "position_ids": {0: "batch_size", 1: "sequence_length"}}
    if cached:
        for l, layer in enumerate(cache_sizes(model, config)):
            for part, (heads, size) in zip(("key", "value"), layer):
                args.append(torch.randn(B, heads, P, size))
                inputs.append(f"past_key_values.{l}.{part}")
                outputs.append(f"present.{l}.{part}")
                axes[inputs[-1]] = {0: "batch_size", 2: "past_sequence_length"}
                axes[outputs[-1]] = {0: "batch_size", 2: "past_sequence_length + sequence_length"}
    if os.path.dirname(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
    if exporter.startswith("ts"):
        with torch.no_grad():
            torch.onnx.export(wrapper, tuple(args), path, input_names=inputs, output_names=outputs, opset_version=opset, dynamo=False,
                              dynamic_axes={n: axes[n] for n in inputs + outputs})
    else:
        dim = torch.export.Dim
        shapes = (tuple({i: dim.DYNAMIC for i in axes[n]} for n in inputs),)
        with torch.no_grad():
            program = torch.onnx.export(wrapper, tuple(args), input_names=inputs, output_names=outputs, opset_version=opset, dynamo=True,
                                        dynamic_shapes=shapes, external_data=False, verbose=False)
        program.save(path, external_data=False)
    strip(path)


def strip(path):
    """Drops what only tells of the exporting machine: stack traces, source paths."""
    model = onnx.load(path)
    def visit(graph):
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
            for a in node.attribute:
                if a.HasField("g"):
                    visit(a.g)
        for v in [*graph.value_info, *graph.input, *graph.output]:
            del v.metadata_props[:]
            v.doc_string = ""
        graph.doc_string = ""
    visit(model.graph)
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
            node.doc_string = ""
    del model.metadata_props[:]
    model.doc_string = ""
    shorten(model.graph)
    onnx.save(model, path)


def shorten(graph):
    """Short names for the values in between, which are half of a tiny file; nodes keep theirs."""
    kept = {v.name for v in [*graph.input, *graph.output, *graph.initializer]}
    short = {}
    for node in graph.node:
        for name in node.output:
            if name and name not in kept:
                short[name] = f"v{len(short)}"
    for node in graph.node:
        if any(a.HasField("g") for a in node.attribute):
            return  # subgraphs read these names too
    for node in graph.node:
        node.input[:] = [short.get(n, n) for n in node.input]
        node.output[:] = [short.get(n, n) for n in node.output]
    infos = [v for v in graph.value_info if v.name in short]
    del graph.value_info[:]
    for v in infos:
        v.name = short[v.name]
        graph.value_info.append(v)


def run(model, inputs, cached=False):
    named = {}
    past = {}
    for name, value in inputs.items():
        (past if name.startswith("past") else named)[name] = torch.tensor(value) if not torch.is_tensor(value) else value
    named = {n: v for n, v in named.items() if n in input_names(model)}
    cache = DynamicCache()
    for l in range(len(past) // 2):
        cache.update(past[f"past_key_values.{l}.key"], past[f"past_key_values.{l}.value"], l)
    with torch.no_grad():
        out = model(**named, past_key_values=cache, use_cache=True) if cached else model(**named, **no_cache(model))
    result = {"logits": out.logits}
    if cached:
        for l, layer in enumerate(out.past_key_values.layers):
            result[f"present.{l}.key"], result[f"present.{l}.value"] = layer.keys, layer.values
    return result


def nested(tensor):
    return json.loads(json.dumps(tensor.tolist()), parse_float=lambda s: float(f"{float(s):.7g}"))


def make_cases(model, rng):
    """single, left-pad, prefill, step: see ../oracle."""
    cases = []
    def add(name, inputs, cached=False):
        out = run(model, inputs, cached)
        cases.append({"name": name, "inputs": {k: v if not torch.is_tensor(v) else nested(v) for k, v in inputs.items()},
                      "outputs": {k: nested(v) for k, v in out.items()}})
        return out
    tokens = rng.integers(3, V, (1, 11)).tolist()
    add("single", {"input_ids": tokens, "attention_mask": [[1] * 11], "position_ids": [list(range(11))]})
    ids = rng.integers(3, V, (2, 10))
    ids[1, :3] = 0
    mask = [[1] * 10, [0] * 3 + [1] * 7]
    add("left-pad", {"input_ids": ids.tolist(), "attention_mask": mask, "position_ids": [list(range(10)), [1] * 3 + list(range(7))]})
    if not takes_cache(model) or type(model).__name__.startswith("MiniMax"):
        return cases
    sequence = rng.integers(3, V, 7).tolist()
    out = add("prefill", {"input_ids": [sequence[:6]], "attention_mask": [[1] * 6], "position_ids": [list(range(6))]}, True)
    past = {k.replace("present.", "past_key_values."): v for k, v in out.items() if k.startswith("present.")}
    add("step", {"input_ids": [sequence[6:]], "attention_mask": [[1] * 7], "position_ids": [[6]], **past}, True)
    return cases


def greedy(model, prompt, count):
    tokens, margin = list(prompt), 1e9
    for _ in range(count):
        n = len(tokens)
        logits = run(model, {"input_ids": [tokens], "attention_mask": [[1] * n], "position_ids": [list(range(n))]})["logits"][0, -1]
        top = logits.topk(2).values
        margin = min(margin, float(top[0] - top[1]))
        tokens.append(int(logits.argmax()))
    return {"prompt": list(prompt), "new_tokens": tokens[len(prompt):], "smallest_top1_top2_margin": margin}


def make(name, out, specs):
    kind, options, layout = ARCHITECTURES[name]
    seed = zlib.crc32(name.encode())
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    config = make_config(kind, options)
    groups = groups_of(config)
    model = make_model(config, "eager")
    randomise(model, rng)
    attention = Attention(model, layout, groups)
    if layout:
        for l in range(L):
            attention.set(l, decaying_tensor(rng))
    folder = os.path.join(out, name)
    os.makedirs(folder, exist_ok=True)
    cases = make_cases(model, rng)
    takes = "position_ids" in input_names(model)
    prompt = rng.integers(3, V, 5).tolist()
    reference = {"model": name, "architecture": type(model).__name__, "torch": torch.__version__, "transformers": transformers.__version__,
                 "tolerance": {"atol": 1e-4, "rtol": 1e-4}, "model_takes_position_ids": takes, "cases": cases,
                 "greedy": greedy(model, prompt, 8)}
    with open(os.path.join(folder, "reference.json"), "w") as f:
        json.dump(reference, f)
    if layout:
        write_interventions(folder, name, (kind, options, layout, groups), model, attention, cases, prompt)
    for spec in specs:
        path = os.path.join(folder, spec, "model.onnx")
        wanted = make_model(config, spec.split("-")[1])
        wanted.load_state_dict(model.state_dict())
        export(wanted, config, spec, path)
        print(name, spec, os.path.getsize(path), flush=True)


def write_interventions(folder, name, of, model, attention, cases, prompt):
    kind, options, layout, groups = of
    tensors = {}
    interventions = [{"name": "full", "ranks": [D, HEAD, 4], "layers": [], "cases": []}]
    half = (D // 2, HEAD // 2, 2)
    for label, ranks, layers in (("half-all-layers", half, list(range(L))),
                                 ("half-whole-stack", (D // 2, HEAD // 2, 4), list(range(L)))):
        target = model
        config = make_config(kind, options)
        # Below stack rank 4, the repeats of grouped heads differ: a model with as many key heads as query heads.
        if ranks[2] < 4 and groups < H:
            config = ungrouped_config(kind, options)
        target = make_model(config, "eager")
        state = target.state_dict()
        own = {k: v for k, v in ungrouped_norms(model.state_dict(), state, groups).items() if state[k].shape == v.shape}
        target.load_state_dict(own, strict=False)
        written = Attention(target, layout, H if ranks[2] < 4 else groups)
        errors = []
        for l in range(L):
            tensor = attention.get(l)
            tensors[f"layer{l}.W"] = np.ascontiguousarray(tensor, np.float32)
            written.set_biases(l, attention.biases(l))
            if l in layers:
                tensor, error = hooi(tensor, ranks)
                errors.append({"layer": l, "relative_error": error})
                if label != "half-all-layers" or f"half.layer{l}.W_hat" not in tensors:
                    tensors[f"{label.replace('-all-layers', '')}.layer{l}.W_hat"] = np.ascontiguousarray(tensor, np.float32)
            written.set(l, tensor)
        outputs = []
        for case in cases[:2]:
            outputs.append({"name": case["name"], "outputs": {k: nested(v) for k, v in run(target, case["inputs"]).items()}})
        interventions.append({"name": label, "ranks": list(ranks), "layers": errors, "cases": outputs,
                              "greedy": greedy(target, prompt, 8)})
    tucker = {"sites": [{"name": str(l), "d_model": D, "d_head": HEAD, "n_heads": H, "kv_heads": groups} for l in range(L)],
              "interventions": interventions}
    with open(os.path.join(folder, "tucker.json"), "w") as f:
        json.dump(tucker, f)
    save_file(tensors, os.path.join(folder, "tucker.safetensors"))


if __name__ == "__main__":
    out, *wanted = sys.argv[1:]
    for entry in wanted or [f"{name}:{','.join(specs)}" for name, specs in EXPORTS.items()]:
        name, _, specs = entry.partition(":")
        make(name, out, [s for s in specs.split(",") if s])
