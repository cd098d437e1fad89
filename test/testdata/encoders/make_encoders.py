"""Encoders, vision and speech models of Hugging Face transformers, tiny and with random weights, exported to ONNX in several
ways, with PyTorch's outputs before and after every attention is replaced by its Tucker reconstruction at half ranks.

    python make_encoders.py            the files that are here
    python make_encoders.py --all DIR  every architecture in every form

Made with torch 2.13.0, transformers 5.18.0, onnx 1.23.1, onnxscript and numpy. No pretrained weight is involved.
"""

import json
import re
import sys
import traceback
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")
import numpy as np
import onnx
import torch
import transformers as hf
from safetensors.numpy import save_file

from hooi import Site, assign, linear_site, packed_site, reconstruction

HERE = Path(__file__).parent
TEXT = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, vocab_size=40,
    max_position_embeddings=40,
)
AUDIO = {k: v for k, v in TEXT.items() if k != "max_position_embeddings"} | dict(
    conv_dim=[8, 8], conv_stride=[4, 2], conv_kernel=[5, 3], num_feat_extract_layers=2, num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
)
IMAGE = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=8, patch_size=4
)
DISENTANGLED = dict(relative_attention=True, pos_att_type=["c2p", "p2c"], position_biased_input=False)


def text(cls, config, **more):
    return dict(make=lambda: getattr(hf, cls)(getattr(hf, config)(**(TEXT | more))), inputs="text")


def image(cls, config, size=8, **more):
    return dict(make=lambda: getattr(hf, cls)(getattr(hf, config)(**(IMAGE | more))), inputs="image", size=size)


def audio(cls, config, **more):
    return dict(make=lambda: getattr(hf, cls)(getattr(hf, config)(**(AUDIO | more))), inputs="audio")


def plain(cls, config, inputs, size=8, heads=2, **settings):
    return dict(make=lambda: getattr(hf, cls)(getattr(hf, config)(**settings)), inputs=inputs, size=size, heads=heads)


ARCHITECTURES = {
    "electra": text("ElectraModel", "ElectraConfig", embedding_size=12),
    "mobilebert": plain(
        "MobileBertModel", "MobileBertConfig", "text", vocab_size=40, hidden_size=20, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=24, intra_bottleneck_size=16, embedding_size=8,
        num_feedforward_networks=2, max_position_embeddings=40,
    ),
    "mobilebert-narrow": plain(
        "MobileBertModel", "MobileBertConfig", "text", vocab_size=40, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=24, intra_bottleneck_size=16, embedding_size=8,
        num_feedforward_networks=2, max_position_embeddings=40, key_query_shared_bottleneck=False, use_bottleneck=False,
    ),
    "squeezebert": text("SqueezeBertModel", "SqueezeBertConfig", embedding_size=16),
    "squeezebert-ungrouped": text(
        "SqueezeBertModel", "SqueezeBertConfig", embedding_size=16, q_groups=1, k_groups=1, v_groups=1,
        post_attention_groups=1,
    ),
    "mpnet": text("MPNetModel", "MPNetConfig"),
    "deberta": text("DebertaModel", "DebertaConfig", **DISENTANGLED),
    "deberta-v2": text("DebertaV2Model", "DebertaV2Config", **DISENTANGLED),
    "deberta-v3": text(
        "DebertaV2Model", "DebertaV2Config", position_buckets=8, share_att_key=True, norm_rel_ebd="layer_norm",
        **DISENTANGLED,
    ),
    "deberta-v2-absolute": text("DebertaV2Model", "DebertaV2Config", relative_attention=False),
    "xlm-roberta": text("XLMRobertaModel", "XLMRobertaConfig"),
    "camembert": text("CamembertModel", "CamembertConfig"),
    "convbert": text("ConvBertModel", "ConvBertConfig", embedding_size=16, conv_kernel_size=3, num_attention_heads=4),
    "nystromformer": text("NystromformerModel", "NystromformerConfig", num_landmarks=4, segment_means_seq_len=8),
    "fnet": plain(
        "FNetModel", "FNetConfig", "text", hidden_size=16, num_hidden_layers=2, intermediate_size=24, vocab_size=40,
        max_position_embeddings=40,
    ),
    "longformer": text("LongformerModel", "LongformerConfig", attention_window=4),
    "big-bird": text("BigBirdModel", "BigBirdConfig", attention_type="original_full", sep_token_id=2),
    "modernbert": text(
        "ModernBertModel", "ModernBertConfig", local_attention=4, global_attn_every_n_layers=2, pad_token_id=0,
        cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2, attention_bias=True,
    ),
    "nomic": text("NomicBertModel", "NomicBertConfig"),
    "roformer": text("RoFormerModel", "RoFormerConfig"),
    "esm": text(
        "EsmModel", "EsmConfig", position_embedding_type="rotary", pad_token_id=1, mask_token_id=3, token_dropout=False
    ),
    "eurobert": text(
        "EuroBertModel", "EuroBertConfig", num_key_value_heads=1, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        mask_token_id=3,
    ),
    "clip-text": text("CLIPTextModel", "CLIPTextConfig", bos_token_id=0, eos_token_id=39),
    "clip-vision": image("CLIPVisionModel", "CLIPVisionConfig"),
    "siglip-vision": image("SiglipVisionModel", "SiglipVisionConfig"),
    "siglip-text": text("SiglipTextModel", "SiglipTextConfig", bos_token_id=0, eos_token_id=2),
    "deit": image("DeiTModel", "DeiTConfig"),
    "beit": image("BeitModel", "BeitConfig", use_relative_position_bias=True),
    "data2vec-vision": image("Data2VecVisionModel", "Data2VecVisionConfig", use_shared_relative_position_bias=True),
    "swin": plain(
        "SwinModel", "SwinConfig", "image", size=16, image_size=16, patch_size=2, embed_dim=8, depths=[2, 2],
        num_heads=[2, 2], window_size=4,
    ),
    "swinv2": plain(
        "Swinv2Model", "Swinv2Config", "image", size=16, image_size=16, patch_size=2, embed_dim=8, depths=[2],
        num_heads=[2], window_size=4,
    ),
    "dinov2": image("Dinov2Model", "Dinov2Config"),
    "dinov3": image("DINOv3ViTModel", "DINOv3ViTConfig"),
    "yolos": image("YolosModel", "YolosConfig", image_size=[8, 8], num_detection_tokens=2),
    "segformer": plain(
        "SegformerModel", "SegformerConfig", "image", size=16, num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1],
        hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[2, 2], mlp_ratios=[2, 2],
    ),
    "sam-vision": plain(
        "SamVisionModel", "SamVisionConfig", "image", size=16, hidden_size=16, output_channels=8, num_hidden_layers=2,
        num_attention_heads=2, image_size=16, patch_size=2, mlp_dim=24, window_size=4, global_attn_indexes=[1],
        num_pos_feats=4,
    ),
    "wav2vec2": audio("Wav2Vec2Model", "Wav2Vec2Config"),
    "hubert": audio("HubertModel", "HubertConfig"),
    "wavlm": audio("WavLMModel", "WavLMConfig", num_buckets=8, max_bucket_distance=16),
    "ast": plain(
        "ASTModel", "ASTConfig", "spectrogram", hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_length=16, num_mel_bins=8, patch_size=4, frequency_stride=4, time_stride=4,
    ),
    "data2vec-text": text("Data2VecTextModel", "Data2VecTextConfig"),
    "layoutlm": text("LayoutLMModel", "LayoutLMConfig", max_2d_position_embeddings=32) | dict(inputs="layout"),
    "lilt": text("LiltModel", "LiltConfig", channel_shrink_ratio=2, hidden_size=48, max_2d_position_embeddings=32)
    | dict(inputs="layout"),
    "splinter": text("SplinterModel", "SplinterConfig", question_token_id=4),
    "xlnet": plain(
        "XLNetModel", "XLNetConfig", "text", vocab_size=40, d_model=16, n_layer=2, n_head=2, d_inner=24
    ),
    "xlm": plain(
        "XLMModel", "XLMConfig", "text", vocab_size=40, emb_dim=16, n_layers=2, n_heads=2, max_position_embeddings=40
    ),
    # Its tables of positions are as long as the traced text.
    "funnel": plain(
        "FunnelBaseModel", "FunnelConfig", "text-8", vocab_size=40, block_sizes=[1, 1], d_model=16, n_head=2, d_head=8,
        d_inner=24,
    ),
}



class EinsumAttention(torch.nn.Module):
    """Attention in the equations of Keras' MultiHeadAttention, or of Flax' with its leading dimensions unnamed."""

    KERAS = ("abc,cde->abde", "aecd,abcd->acbe", "acbe,aecd->abcd", "abcd,cde->abe")
    FLAX = ("...c,cde->...de", "...qhd,...khd->...hqk", "...hqk,...khd->...qhd", "...hd,hdc->...c")

    def __init__(self, d, heads, size, equations):
        super().__init__()
        make = lambda *shape: torch.nn.Parameter(torch.zeros(shape))
        self.q, self.k, self.v = (make(d, heads, size) for _ in range(3))
        self.q_bias, self.k_bias, self.v_bias = (make(heads, size) for _ in range(3))
        self.out, self.out_bias, self.scale, self.equations = make(heads, size, d), make(d), size**-0.5, equations

    def forward(self, x, mask):
        projection, scores, context, output = self.equations
        q, k, v = (
            torch.einsum(projection, x, weight) + bias
            for weight, bias in [(self.q, self.q_bias), (self.k, self.k_bias), (self.v, self.v_bias)]
        )
        q = q * self.scale
        raw = torch.einsum(scores, k, q) if self.equations is self.KERAS else torch.einsum(scores, q, k)
        probabilities = torch.softmax(raw + (1 - mask[:, None, None, :].float()) * -1e9, -1)
        return torch.einsum(output, torch.einsum(context, probabilities, v), self.out) + self.out_bias


class EinsumEncoder(torch.nn.Module):
    """A layer of Keras' attention and one of Flax', each with a feed-forward network."""

    config = type("Config", (), dict(num_attention_heads=2))

    def __init__(self):
        super().__init__()
        d = 16
        self.embedding = torch.nn.Embedding(40, d)
        equations = [EinsumAttention.KERAS, EinsumAttention.FLAX]
        self.attentions = torch.nn.ModuleList(EinsumAttention(d, 2, 8, each) for each in equations)
        self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(d) for _ in range(4))
        self.up = torch.nn.ModuleList(torch.nn.Linear(d, 24) for _ in range(2))
        self.down = torch.nn.ModuleList(torch.nn.Linear(24, d) for _ in range(2))

    def set_attn_implementation(self, _):
        pass

    def forward(self, input_ids, attention_mask):
        x = self.embedding(input_ids)
        for i, attention in enumerate(self.attentions):
            x = self.norms[2 * i](x + attention(x, attention_mask))
            x = self.norms[2 * i + 1](x + self.feed_forward(i, x))
        return (x,)

    def feed_forward(self, i, x):
        """The first layer's in equations too."""
        up, down = self.up[i], self.down[i]
        if i == 0:
            wide = torch.einsum("abc,dc->abd", x, up.weight) + up.bias
            return torch.einsum("abd,cd->abc", torch.nn.functional.gelu(wide), down.weight) + down.bias
        return down(torch.nn.functional.gelu(up(x)))


ARCHITECTURES["einsum"] = dict(make=EinsumEncoder, inputs="text")

# The exports that are kept here: of each way of computing attention at least one.
KEPT = {
    "electra": ["dynamo-18-eager"],
    "mpnet": ["torchscript-14-sdpa"],
    "deberta": ["dynamo-18-eager"],
    "deberta-v2": ["dynamo-18-eager"],
    "deberta-v3": ["torchscript-17-eager", "dynamo-18-sdpa"],
    "modernbert": ["dynamo-18-sdpa"],
    "nomic": ["torchscript-17-eager"],
    "roformer": ["torchscript-14-sdpa"],
    "esm": ["dynamo-18-eager"],
    "xlm": ["dynamo-18-eager"],
    "layoutlm": ["torchscript-11-eager"],
    "clip-text": ["torchscript-14-sdpa"],
    "clip-vision": ["torchscript-11-eager"],
    "siglip-vision": ["dynamo-18-sdpa"],
    "beit": ["dynamo-18-eager"],
    "swin": ["torchscript-17-sdpa"],
    "swinv2": ["torchscript-17-eager"],
    "dinov2": ["torchscript-17-sdpa"],
    "segformer": ["torchscript-14-sdpa"],
    "sam-vision": ["torchscript-17-sdpa"],
    "wav2vec2": ["dynamo-18-sdpa"],
    "wavlm": ["torchscript-17-sdpa", "dynamo-18-eager"],
    "mobilebert": ["torchscript-17-sdpa"],
    "squeezebert": ["dynamo-18-eager"],
    "convbert": ["torchscript-17-eager"],
    "xlnet": ["torchscript-17-eager"],
    "funnel": ["torchscript-14-sdpa"],
    "einsum": ["torchscript-17-eager"],
}

FORMS = {
    "torchscript-11-eager": (False, 11, "eager"),
    "torchscript-14-sdpa": (False, 14, "sdpa"),
    "torchscript-17-eager": (False, 17, "eager"),
    "torchscript-17-sdpa": (False, 17, "sdpa"),
    "dynamo-18-eager": (True, 18, "eager"),
    "dynamo-18-sdpa": (True, 18, "sdpa"),
    "dynamo-24-sdpa": (True, 24, "sdpa"),
}

# Query, key, value and output as the modelling code names them; the last two patterns are packed.
SEPARATE = [
    (r"(.*attention)\.self\.query$", ".self.query", ".self.key", ".self.value", ".output.dense"),
    (r"(.*attention)\.self\.query_proj$", ".self.query_proj", ".self.key_proj", ".self.value_proj", ".output.dense"),
    (r"(.*attention)\.attention\.query$", ".attention.query", ".attention.key", ".attention.value", ".output.dense"),
    (r"(.*)\.attention\.query$", ".attention.query", ".attention.key", ".attention.value", ".post_attention.conv1d"),
    (r"(.*attention\.attn)\.q$", ".q", ".k", ".v", ".o"),
    (r"(.*(?:attention|self_attn))\.q_proj$", ".q_proj", ".k_proj", ".v_proj", ".out_proj"),
    (r"(.*(?:attention|self_attn))\.q_proj$", ".q_proj", ".k_proj", ".v_proj", ".o_proj"),
    (r"(attentions\.\d+)\.q_lin$", ".q_lin", ".k_lin", ".v_lin", ".out_lin"),
    (r"(.*attention)\.q_head$", ".q_head", ".k_head", ".v_head", ".post_proj"),
]
PACKED = [
    (r"(.*)\.attn\.Wqkv$", ".attn.Wqkv", ".attn.Wo"),
    (r"(.*)\.attn\.qkv$", ".attn.qkv", ".attn.proj"),
    (r"(.*attention)\.self\.in_proj$", ".self.in_proj", ".output.dense"),
]


def randomise(model, seed=11):
    """Gains and biases too: transformers starts them at 1 and 0, which hides mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() >= 2:
                parameter.copy_(noise * min(0.5, 1.2 / max(parameter[0].numel(), 1) ** 0.5))
            elif "bias" in name:
                parameter.copy_(noise * 0.3)
            else:
                parameter.copy_(1 + noise * 0.2)


def einsum_site(name, heads, module):
    """Matrices [d, H, h]; the output's is so in XLNet, and [H, h, d] in Keras and Flax."""
    parts = [module.q, module.k, module.v]
    flat = lambda part: part.detach().flatten(1).double().numpy()
    reads = [lambda p=part: flat(p) for part in parts]
    writes = [lambda matrix, p=part: assign(p, slice(None), matrix) for part in parts]
    if hasattr(module, "o"):
        reads.append(lambda: flat(module.o).T)
        writes.append(lambda matrix: assign(module.o, slice(None), matrix.T))
    else:
        reads.append(lambda: module.out.detach().flatten(0, 1).double().numpy())
        writes.append(lambda matrix: assign(module.out, slice(None), matrix))
    return Site(name, heads, reads, writes)


def sites_of(model, heads):
    modules = dict(model.named_modules())
    sites = []
    for name in modules:
        if name.endswith("rel_attn") or type(modules[name]) is EinsumAttention:
            sites.append(einsum_site(name, heads, modules[name]))
        for pattern, *parts in SEPARATE:
            match = re.match(pattern, name)
            if match and all(match[1] + part in modules for part in parts):
                sites.append(linear_site(match[1], heads, [modules[match[1] + part] for part in parts]))
        for pattern, *parts in PACKED:
            match = re.match(pattern, name)
            if match:
                packed, output = (modules[match[1] + part] for part in parts)
                width = packed.weight.shape[0] // 3
                rows = [np.arange(width) + part * width for part in range(3)]
                if name.endswith("in_proj"):  # DeBERTa packs head by head
                    size = width // heads
                    rows = [np.concatenate([np.arange(size) + (3 * i + part) * size for i in range(heads)]) for part in range(3)]
                sites.append(packed_site(match[1], heads, [packed, output], rows))
    return sites


def cases_of(kind, size):
    random = np.random.default_rng(5)
    if kind == "image":
        return [(n, dict(pixel_values=random.normal(size=(b, 3, size, size)).astype(np.float32))) for n, b in [("single", 1), ("two", 2)]]
    if kind == "spectrogram":
        return [(n, dict(input_values=random.normal(size=(b, 16, 8)).astype(np.float32))) for n, b in [("single", 1), ("two", 2)]]
    if kind == "audio":
        return [(n, dict(input_values=random.normal(size=(b, t)).astype(np.float32))) for n, b, t in [("single", 1, 100), ("two", 2, 140)]]
    cases = []
    single, padded = (8, 8) if kind == "text-8" else (9, 12)
    for name, batch, length, pad in [("single", 1, single, 0), ("right-pad", 2, padded, 5)]:
        ids = random.integers(5, 39, size=(batch, length))
        mask = np.ones_like(ids)
        if pad:
            ids[-1, -pad:] = 1
            mask[-1, -pad:] = 0
        given = dict(input_ids=ids, attention_mask=mask)
        if kind == "layout":
            corners = random.integers(0, 12, size=(batch, length, 4))
            corners[..., 2:] += corners[..., :2]
            given["bbox"] = corners
        cases.append((name, given))
    return cases


class Wrapped(torch.nn.Module):
    """A model called with positional inputs that gives out its first tensor."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *inputs):
        extra = dict(use_cache=False) if "use_mems" in self.model.forward.__code__.co_varnames else {}
        return self.model(**dict(zip(self.names, inputs)), **extra)[0]


def run(wrapped, inputs):
    with torch.no_grad():
        return wrapped(*(torch.from_numpy(value) for value in inputs.values())).numpy()


def export(wrapped, inputs, path, form, sequence):
    dynamo, opset, implementation = FORMS[form]
    wrapped.model.set_attn_implementation(implementation)
    path.parent.mkdir(parents=True, exist_ok=True)
    args = tuple(torch.from_numpy(value) for value in inputs.values())
    names = dict(input_names=list(inputs), output_names=["last_hidden_state"], opset_version=opset)
    if dynamo:
        shapes = tuple({axis: torch.export.Dim.DYNAMIC for axis in (0, *sequence)} for _ in inputs)
        program = torch.onnx.export(wrapped, args, dynamo=True, dynamic_shapes=(shapes,), verbose=False, **names)
        program.save(str(path))
        strip(path)
    else:
        axes = {0: "batch_size"} | {axis: "sequence_length" for axis in sequence}
        axes = {name: axes for name in [*inputs, "last_hidden_state"]}
        torch.onnx.export(wrapped, args, str(path), dynamo=False, dynamic_axes=axes, do_constant_folding=True, **names)
        if "Funnel" in type(wrapped.model).__name__:
            shorten(path, "/model/encoder/")


def shorten(path, prefix):
    """Without a prefix and the suffix of its names a graph of many nodes is a third smaller."""
    model = onnx.load(path)
    short = lambda name: name.replace(prefix, "/", 1).removesuffix("_output_0")
    for node in model.graph.node:
        node.name = short(node.name)
        node.input[:] = map(short, node.input)
        node.output[:] = map(short, node.output)
    onnx.save(model, path)


def strip(path):
    """The exporter's stack traces, and the folder it ran in, are no part of a model."""
    model = onnx.load(path)
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for info in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del info.metadata_props[:]
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    onnx.save(model, path)


def nested(array):
    return np.round(array.astype(np.float64), 7).tolist() if array.dtype.kind == "f" else array.tolist()


def make(name, folder, forms):
    spec = ARCHITECTURES[name]
    torch.manual_seed(0)
    model = spec["make"]().eval()
    randomise(model)
    model.set_attn_implementation("eager")
    heads = model.config.num_attention_heads if isinstance(getattr(model.config, "num_attention_heads", None), int) else 2
    sites = sites_of(model, heads)
    cases = cases_of(spec["inputs"], spec.get("size", 8))
    wrapped = Wrapped(model, list(cases[0][1])).eval()
    made = []
    for form in forms:
        try:
            sequence = [1] if spec["inputs"] in ("text", "text-8", "layout", "audio") else []
            export(wrapped, cases[1][1], folder / name / form / "model.onnx", form, sequence)
            made.append(form)
        except Exception as error:
            print(f"{name} {form}: {type(error).__name__} {str(error)[:300]!r}", flush=True)
            (folder / name / form / "model.onnx").unlink(missing_ok=True)
    model.set_attn_implementation("eager")
    base = [run(wrapped, inputs) for _, inputs in cases]
    originals, tensors, halves = {}, {}, []
    for site in sites:
        try:
            tensor = site.tensor()
        except Exception as error:
            print(f"{name} {site.name}: its matrices don't stack ({str(error)[:100]})")
            continue
        d, h = tensor.shape[:2]
        ranks = [d // 2, h // 2, 2]
        rebuilt = reconstruction(tensor, ranks)
        site.write(rebuilt)
        tensors[f"layer{site.name}.W"] = tensor.astype(np.float32)
        tensors[f"half.layer{site.name}.W_hat"] = rebuilt.astype(np.float32)
        error = np.linalg.norm(tensor - rebuilt) / np.linalg.norm(tensor)
        halves.append(dict(layer=site.name, relative_error=float(error), ranks=ranks))
    changed = [run(wrapped, inputs) for _, inputs in cases]
    out = folder / name
    out.mkdir(parents=True, exist_ok=True)
    sizes = [dict(name=half["layer"], d_model=tensors[f"layer{half['layer']}.W"].shape[0], d_head=tensors[f"layer{half['layer']}.W"].shape[1], n_heads=heads) for half in halves]
    reference = dict(
        model=name, torch=torch.__version__, transformers=hf.__version__,
        cases=[dict(name=n, inputs={k: nested(v) for k, v in inputs.items()}, outputs=dict(last_hidden_state=nested(b))) for (n, inputs), b in zip(cases, base)],
    )
    tucker = dict(
        sites=sizes,
        interventions=[dict(name="half-all", layers=halves, cases=[dict(name=n, outputs=dict(last_hidden_state=nested(c)), max_abs_change_from_base=float(np.abs(b - c).max())) for (n, _), b, c in zip(cases, base, changed)])],
    )
    (out / "reference.json").write_text(json.dumps(reference))
    (out / "tucker.json").write_text(json.dumps(tucker))
    if tensors:
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, out / "tucker.safetensors")
    print(f"{name}: {len(sites)} sites, {made}", flush=True)


def main(make, architectures, kept, forms):
    every = sys.argv[1:2] == ["--all"]
    for name in sys.argv[3:] or (architectures if every else kept):
        try:
            make(name, Path(sys.argv[2]) if every else HERE, forms if every else kept[name])
        except Exception:
            print(name, "FAILED", traceback.format_exc()[-600:], flush=True)


if __name__ == "__main__":
    main(make, ARCHITECTURES, KEPT, FORMS)
