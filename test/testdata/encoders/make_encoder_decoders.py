"""Encoder-decoders of Hugging Face transformers, tiny and with random weights, in the files that optimum writes: encoder_model,
decoder_model (which fills the cache) and decoder_with_past_model (which reads it), with PyTorch's logits before and after
every attention is replaced by its Tucker reconstruction at half ranks.

    python make_encoder_decoders.py            the files that are here
    python make_encoder_decoders.py --all DIR  every architecture in every form

Made with torch 2.13.0, transformers 5.18.0, onnx 1.23.1, onnxscript and numpy. No pretrained weight is involved.
"""

import json
import warnings

warnings.filterwarnings("ignore")
import numpy as np
import torch
import transformers as hf
from safetensors.numpy import save_file

from hooi import linear_site, reconstruction
from make_encoders import FORMS, main, nested, randomise, strip

BART = dict(
    vocab_size=40, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
    encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=40, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    decoder_start_token_id=2,
)
T5 = dict(
    vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_decoder_layers=1, num_heads=2,
    relative_attention_num_buckets=8, relative_attention_max_distance=16, decoder_start_token_id=0, pad_token_id=0,
    eos_token_id=1,
)


def model(cls, config, **settings):
    return lambda: getattr(hf, cls)(getattr(hf, config)(**settings))


ARCHITECTURES = {
    "bart": model("BartForConditionalGeneration", "BartConfig", **BART, forced_eos_token_id=2),
    "mbart": model("MBartForConditionalGeneration", "MBartConfig", **BART),
    "marian": model("MarianMTModel", "MarianConfig", **BART),
    "pegasus": model("PegasusForConditionalGeneration", "PegasusConfig", **BART),
    "m2m100": model("M2M100ForConditionalGeneration", "M2M100Config", **BART),
    "blenderbot": model("BlenderbotForConditionalGeneration", "BlenderbotConfig", **BART),
    "t5-v1.1": model(
        "T5ForConditionalGeneration", "T5Config", **T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False
    ),
    "mt5": model("MT5ForConditionalGeneration", "MT5Config", **T5),
    "longt5": model(
        "LongT5ForConditionalGeneration", "LongT5Config", **T5, local_radius=3, encoder_attention_type="local"
    ),
    "whisper": model(
        "WhisperForConditionalGeneration", "WhisperConfig", vocab_size=40, d_model=16, encoder_layers=1,
        decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24,
        num_mel_bins=4, max_source_positions=12, max_target_positions=20, pad_token_id=1, bos_token_id=0,
        eos_token_id=2, decoder_start_token_id=2,
    ),
}
KEPT = {
    "bart": ["torchscript-14-sdpa", "dynamo-18-sdpa", "dynamo-24-sdpa"],  # opset 24: the standard's Attention
    "whisper": ["torchscript-17-eager", "dynamo-18-sdpa"],
    "t5-v1.1": ["torchscript-14-sdpa"],
    "longt5": ["torchscript-17-eager"],
}
PATTERNS = [
    (".self_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
    (".encoder_attn", "q_proj", "k_proj", "v_proj", "out_proj"),
    (".SelfAttention", "q", "k", "v", "o"),
    (".LocalSelfAttention", "q", "k", "v", "o"),
    (".EncDecAttention", "q", "k", "v", "o"),
]


def sites_of(model):
    modules = dict(model.named_modules())
    return [
        linear_site(name, 2, [modules[f"{name}.{part}"] for part in parts])
        for name in modules
        for suffix, *parts in PATTERNS
        if name.endswith(suffix)
    ]


class Encoder(torch.nn.Module):
    def __init__(self, model, speech):
        super().__init__()
        self.model, self.speech = model, speech

    def forward(self, source, attention_mask=None):
        encoder = self.model.get_encoder()
        return encoder(source)[0] if self.speech else encoder(input_ids=source, attention_mask=attention_mask)[0]


class Decoder(torch.nn.Module):
    """One call of the decoder: positional inputs, logits and what the cache holds afterwards."""

    def __init__(self, model, names, later, layers):
        super().__init__()
        self.model, self.names, self.later, self.layers = model, names, later, layers

    def forward(self, *inputs):
        given = dict(zip(self.names, inputs))
        cache = hf.EncoderDecoderCache(hf.DynamicCache(), hf.DynamicCache())
        if self.later:
            past = inputs[-4 * self.layers :]
            for layer in range(self.layers):
                cache.self_attention_cache.update(past[4 * layer], past[4 * layer + 1], layer)
                cache.cross_attention_cache.update(past[4 * layer + 2], past[4 * layer + 3], layer)
                cache.is_updated[layer] = True
        more = dict(attention_mask=given["encoder_attention_mask"]) if "encoder_attention_mask" in given else {}
        output = self.model(
            encoder_outputs=hf.modeling_outputs.BaseModelOutput(last_hidden_state=given["encoder_hidden_states"]),
            decoder_input_ids=given["input_ids"], past_key_values=cache, use_cache=True, **more,
        )
        cache = output.past_key_values
        present = []
        for layer in range(self.layers):
            own, cross = cache.self_attention_cache.layers[layer], cache.cross_attention_cache.layers[layer]
            present += [own.keys, own.values] + ([] if self.later else [cross.keys, cross.values])
        return (output.logits, *present)


def cache_names(prefix, layers, encoder=True):
    sides = ["decoder", "encoder"] if encoder else ["decoder"]
    return [f"{prefix}.{l}.{side}.{part}" for l in range(layers) for side in sides for part in ("key", "value")]


AXES = {
    "input_ids": {0: "batch_size", 1: "decoder_sequence_length"},
    "attention_mask": {0: "batch_size", 1: "encoder_sequence_length"},
    "encoder_attention_mask": {0: "batch_size", 1: "encoder_sequence_length"},
    "encoder_hidden_states": {0: "batch_size", 1: "encoder_sequence_length"},
    "last_hidden_state": {0: "batch_size", 1: "encoder_sequence_length"},
    "logits": {0: "batch_size", 1: "decoder_sequence_length"},
    "input_features": {0: "batch_size"},
}


def axes_of(name):
    if name.startswith("past"):
        return {0: "batch_size", 2: "encoder_sequence_length_out" if "encoder" in name else "past_decoder_sequence_length"}
    if name.startswith("present"):
        return {0: "batch_size", 2: "encoder_sequence_length_out" if "encoder" in name else "past_decoder_sequence_length + 1"}
    return AXES[name]


def export(module, inputs, outputs, path, form):
    dynamo, opset, implementation = FORMS[form]
    module.model.set_attn_implementation(implementation)
    path.parent.mkdir(parents=True, exist_ok=True)
    args = tuple(torch.from_numpy(value) for value in inputs.values())
    names = dict(input_names=list(inputs), output_names=outputs, opset_version=opset)
    if dynamo:
        # A later call takes one token: torch.export makes sizes of one static.
        shapes = tuple({a: torch.export.Dim.DYNAMIC for a in axes_of(n) if value.shape[a] > 1} for n, value in inputs.items())
        shapes = (shapes,) if isinstance(module, Decoder) else shapes
        program = torch.onnx.export(module, args, dynamo=True, dynamic_shapes=shapes, verbose=False, **names)
        program.save(str(path))
    else:
        axes = {name: axes_of(name) for name in [*inputs, *outputs]}
        torch.onnx.export(module, args, str(path), dynamo=False, dynamic_axes=axes, do_constant_folding=True, **names)
    strip(path)


def make(name, folder, forms):
    torch.manual_seed(0)
    model = ARCHITECTURES[name]().eval()
    randomise(model)
    model.set_attn_implementation("eager")
    speech = name == "whisper"
    config = model.config
    layers = getattr(config, "decoder_layers", None) or config.num_decoder_layers
    sites = sites_of(model)
    random = np.random.default_rng(5)
    cases = []
    for case, batch, length, pad, target in [("single", 1, 7, 0, 5), ("right-pad", 2, 9, 4, 4)]:
        ids = random.integers(5, 39, size=(batch, length))
        mask = np.ones_like(ids)
        if pad:
            ids[-1, -pad:] = config.pad_token_id
            mask[-1, -pad:] = 0
        decoder_ids = random.integers(5, 39, size=(batch, target))
        decoder_ids[:, 0] = config.decoder_start_token_id
        given = dict(input_ids=ids, attention_mask=mask)
        if speech:
            given = dict(input_features=random.normal(size=(batch, 4, 24)).astype(np.float32))
        cases.append((case, given | dict(decoder_input_ids=decoder_ids)))
    encoder = Encoder(model, speech).eval()

    def calls(given):
        source = {k: v for k, v in given.items() if k != "decoder_input_ids"}
        with torch.no_grad():
            hidden = encoder(*map(torch.from_numpy, source.values()))
            more = dict(attention_mask=torch.from_numpy(source["attention_mask"])) if not speech else {}
            outputs = hf.modeling_outputs.BaseModelOutput(last_hidden_state=hidden)
            logits = model(encoder_outputs=outputs, decoder_input_ids=torch.from_numpy(given["decoder_input_ids"]), use_cache=False, **more).logits
        return dict(encoder_last_hidden_state=hidden.numpy(), logits=logits.numpy())

    base = [calls(given) for _, given in cases]
    for form in forms:
        try:
            given = cases[1][1]
            source = {k: v for k, v in given.items() if k != "decoder_input_ids"}
            target = folder / name / form
            export(encoder, source, ["last_hidden_state"], target / "encoder_model.onnx", form)
            hidden = base[1]["encoder_last_hidden_state"]
            first = dict(input_ids=given["decoder_input_ids"], encoder_hidden_states=hidden)
            if not speech:
                first = dict(encoder_attention_mask=given["attention_mask"]) | first
            decoder = Decoder(model, list(first), False, layers).eval()
            export(decoder, first, ["logits", *cache_names("present", layers)], target / "decoder_model.onnx", form)
            with torch.no_grad():
                present = decoder(*map(torch.from_numpy, first.values()))[1:]
            later = first | {"input_ids": given["decoder_input_ids"][:, :1]}
            later |= {n: p.numpy() for n, p in zip(cache_names("past_key_values", layers), present)}
            goes_on = Decoder(model, list(later), True, layers).eval()
            export(goes_on, later, ["logits", *cache_names("present", layers, False)], target / "decoder_with_past_model.onnx", form)
            print(name, form, "ok", flush=True)
        except Exception as error:
            print(f"{name} {form}: {type(error).__name__} {str(error)[:400]!r}", flush=True)
    model.set_attn_implementation("eager")
    tensors, halves, listed = {}, [], []
    for site in sites:
        tensor = site.tensor()
        d, h = tensor.shape[:2]
        ranks = [d // 2, h // 2, 2]
        rebuilt = reconstruction(tensor, ranks)
        site.write(rebuilt)
        tensors[f"layer{site.name}.W"] = tensor.astype(np.float32)
        tensors[f"half.layer{site.name}.W_hat"] = rebuilt.astype(np.float32)
        error = np.linalg.norm(tensor - rebuilt) / np.linalg.norm(tensor)
        halves.append(dict(layer=site.name, relative_error=float(error), ranks=ranks))
        listed.append(dict(name=site.name, d_model=d, d_head=h, n_heads=2))
    changed = [calls(given) for _, given in cases]
    out = folder / name
    outputs = lambda values: {k: nested(v) for k, v in values.items()}
    reference = dict(
        model=name, torch=torch.__version__, transformers=hf.__version__,
        cases=[dict(name=n, inputs=outputs(g), outputs=outputs(b)) for (n, g), b in zip(cases, base)],
    )
    tucker = dict(
        sites=listed,
        interventions=[dict(name="half-all", layers=halves, cases=[dict(name=n, outputs=outputs(c), max_abs_change_from_base=float(np.abs(b["logits"] - c["logits"]).max())) for (n, _), b, c in zip(cases, base, changed)])],
    )
    (out / "reference.json").write_text(json.dumps(reference))
    (out / "tucker.json").write_text(json.dumps(tucker))
    save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, out / "tucker.safetensors")


if __name__ == "__main__":
    main(make, ARCHITECTURES, KEPT, ["torchscript-14-sdpa", "torchscript-17-eager", "dynamo-18-sdpa"])
