"""Reference outputs of LASER (arXiv 2312.13558) for the oracle's tiny transformers: Hugging Face's own modelling code, with weights
replaced by truncated singular value decompositions in float64 (NumPy).

    python make_references.py ORACLE_FOLDER OUT.json

ORACLE_FOLDER holds a folder for each model, with config.json, model.safetensors and reference.json (the inputs). Needs numpy, torch and
transformers; the tests need only the file that this writes.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

# Per model: its class, and every matrix by LASER's names: parameter, columns of it (None: all), whether the parameter is stored [in, out].
MODELS = {
    "bert": (
        transformers.BertForQuestionAnswering,
        lambda l: {
            "query": (f"bert.encoder.layer.{l}.attention.self.query.weight", None, False),
            "key": (f"bert.encoder.layer.{l}.attention.self.key.weight", None, False),
            "value": (f"bert.encoder.layer.{l}.attention.self.value.weight", None, False),
            "output": (f"bert.encoder.layer.{l}.attention.output.dense.weight", None, False),
            "fc_in": (f"bert.encoder.layer.{l}.intermediate.dense.weight", None, False),
            "fc_out": (f"bert.encoder.layer.{l}.output.dense.weight", None, False),
        },
    ),
    "gpt2": (
        transformers.GPT2LMHeadModel,
        lambda l: {
            "query": (f"transformer.h.{l}.attn.c_attn.weight", 0, True),
            "key": (f"transformer.h.{l}.attn.c_attn.weight", 1, True),
            "value": (f"transformer.h.{l}.attn.c_attn.weight", 2, True),
            "output": (f"transformer.h.{l}.attn.c_proj.weight", None, True),
            "fc_in": (f"transformer.h.{l}.mlp.c_fc.weight", None, True),
            "fc_out": (f"transformer.h.{l}.mlp.c_proj.weight", None, True),
        },
    ),
    "llama": (transformers.LlamaForCausalLM, lambda l: llama(l)),
    "llama-gqa": (transformers.LlamaForCausalLM, lambda l: llama(l)),
}


def llama(l):
    block = f"model.layers.{l}"
    names = {
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "output": "self_attn.o_proj",
        "fc_in": "mlp.gate_proj",
        "fc_up": "mlp.up_proj",
        "fc_out": "mlp.down_proj",
    }
    return {name: (f"{block}.{module}.weight", None, False) for name, module in names.items()}


# Rate, layers and matrices of each intervention.
INTERVENTIONS = [
    ("all", 6.5, None, None),
    ("ffn", 4, [1], ["ffn"]),
    ("mixed", 8, [0, 1], ["query", "output", "fc_out"]),
    # So weak that two matrices are larger than one.
    ("weak", 2, [0], ["value", "output", "fc_in"]),
]


def truncate(matrix, rate):
    """The best approximation in rank int(min(m, n)(10 - rate)/10), with what the tests compare."""
    u, s, vt = np.linalg.svd(matrix.astype(np.float64), full_matrices=False)
    rank = int(min(matrix.shape) * (10 - rate) / 10)
    error = float(np.sqrt((s[rank:] ** 2).sum() / (s**2).sum()))
    return (u[:, :rank] * s[:rank]) @ vt[:rank], {"shape": list(matrix.shape), "rank": rank, "relativeError": error, "singularValues": s.tolist()}


def run(model, inputs):
    feeds = {name: torch.tensor(value) for name, value in inputs.items()}
    with torch.no_grad():
        result = model(**feeds)
    return {name: getattr(result, name).double().tolist() for name in result_names(model)}


def result_names(model):
    return ["start_logits", "end_logits"] if "QuestionAnswering" in type(model).__name__ else ["logits"]


def rounded(value):
    return [rounded(each) for each in value] if isinstance(value, list) else float(f"{value:.7g}")


def main(oracle, out):
    models = {}
    for name, (kind, matrices_of) in MODELS.items():
        folder = Path(oracle) / name
        cases = json.loads((folder / "reference.json").read_text())["cases"]
        case = next(case for case in cases if not any(key.startswith("past") for key in case["inputs"]))
        interventions = []
        for title, rate, layers, chosen in INTERVENTIONS:
            model = kind.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
            count = model.config.num_hidden_layers
            parameters = dict(model.named_parameters())
            truncated = []
            for layer in layers if layers is not None else range(count):
                for matrix, (parameter, part, stored_in_out) in matrices_of(layer).items():
                    if not (chosen is None or matrix in chosen or (chosen == ["ffn"] and matrix.startswith("fc_"))):
                        continue
                    weight = parameters[parameter].data
                    whole = weight.numpy() if stored_in_out else weight.numpy().T
                    columns = slice(None) if part is None else slice(part * whole.shape[0], (part + 1) * whole.shape[0])
                    approximation, facts = truncate(whole[:, columns], rate)
                    replaced = np.array(whole)
                    replaced[:, columns] = approximation
                    weight.copy_(torch.tensor(replaced if stored_in_out else replaced.T))
                    truncated.append({"layer": layer, "matrix": matrix, **facts})
            interventions.append({
                "name": title,
                "rate": rate,
                "layers": "all" if layers is None else ",".join(map(str, layers)),
                "matrices": ["all"] if chosen is None else chosen,
                "truncated": [{**each, "singularValues": rounded(each["singularValues"])} for each in truncated],
                "outputs": rounded(list(run(model, case["inputs"]).values())),
                "outputNames": result_names(model),
            })
        models[name] = {"case": case["name"], "interventions": interventions}
    versions = {"numpy": np.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    Path(out).write_text(json.dumps({"madeWith": versions, "models": models}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
