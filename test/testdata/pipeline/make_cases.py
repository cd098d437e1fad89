"""Makes cases.json for test/qa/pipeline_cases_test.ts: answers of Hugging Face's pipeline under many parameters.

Usage: python make_cases.py TRANSFORMERS_4_57_6_FOLDER, with tokenizers 0.22.2, numpy and onnxruntime.
The pipeline's own code is taken from transformers/pipelines/question_answering.py (postprocess and what it calls; that
version of transformers needs packages that are not needed for them); the tokenizer is the Rust one, the model is
../serving/bert-qa under ONNX Runtime, one window at a time, without padding.
"""

import ast
import json
import os
import random
import sys
import types

import numpy as np
import onnxruntime
import tokenizers

assert tokenizers.__version__ == "0.22.2", tokenizers.__version__
HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = f"{HERE}/../serving/bert-qa"
CLS = 2
SEED = 20260118


def pipeline_code(folder):
    """decode_spans, select_starts_ends and three methods of QuestionAnsweringPipeline, as functions."""
    with open(f"{folder}/pipelines/question_answering.py") as file:
        tree = ast.parse(file.read())
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in ("decode_spans", "select_starts_ends")]
    pipeline = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "QuestionAnsweringPipeline")
    wanted += [node for node in pipeline.body if isinstance(node, ast.FunctionDef) and node.name in ("postprocess", "get_answer", "get_indices")]
    namespace = {"np": np}
    future = ast.parse("from __future__ import annotations").body
    exec(compile(ast.fix_missing_locations(ast.Module(future + wanted, [])), "question_answering.py", "exec"), namespace)
    return namespace


def answer(code, tokenizer, session, question, context, max_seq_len, doc_stride, parameters):
    tokenizer.enable_truncation(max_seq_len, stride=doc_stride, strategy="only_second")
    encoding = tokenizer.encode(question, context)
    outputs = []
    for window in [encoding, *encoding.overflowing]:
        ids = np.array([window.ids], np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.array([window.type_ids], np.int64)}
        start, end = session.run(["start_logits", "end_logits"], feeds)
        mask = [sequence != 1 for sequence in window.sequence_ids]
        mask = [0 if token == CLS else int(masked) for token, masked in zip(window.ids, mask)]
        outputs.append({
            "start": start, "end": end, "p_mask": [mask], "input_ids": ids, "encoding": window,
            "example": types.SimpleNamespace(context_text=context),
        })
    owner = types.SimpleNamespace(framework="np", tokenizer=types.SimpleNamespace(is_fast=True, padding_side="right"))
    owner.get_answer = lambda *arguments: code["get_answer"](owner, *arguments)
    owner.get_indices = lambda *arguments: code["get_indices"](owner, *arguments)
    answers = code["postprocess"](owner, outputs, **parameters)
    return len(outputs), [answers] if isinstance(answers, dict) else answers


def main():
    code = pipeline_code(sys.argv[1])
    tokenizer = tokenizers.Tokenizer.from_file(f"{MODEL}/tokenizer.json")
    session = onnxruntime.InferenceSession(f"{MODEL}/onnx/model.onnx", providers=["CPUExecutionProvider"])
    with open(f"{MODEL}/expected.json") as file:
        known = json.load(file)["cases"]
    rng = random.Random(SEED)
    cases = []
    while len(cases) < 80:
        question = rng.choice(known)["question"]
        context = " ".join(rng.choice(known)["context"] for _ in range(rng.choice([1, 1, 2, 4, 12])))
        if rng.random() < 0.3:
            cut = rng.randrange(len(context) + 1)
            context = context[:cut] + rng.choice([" [CLS] ", "[CLS]", " [SEP] ", "[MASK]"]) + context[cut:]
        if rng.random() < 0.15:
            question += rng.choice([" [CLS]", "[CLS] ok?"])
        max_seq_len = rng.choice([64, 64, 48, 40])
        room = max_seq_len - 3 - len(tokenizer.encode(question, add_special_tokens=False).ids)
        if room < 2:
            continue
        doc_stride = rng.choice([min(max_seq_len // 2, room - 1), 0, rng.randrange(room)])
        parameters = {
            "top_k": rng.choice([1, 2, 3, 5, 10]),
            "handle_impossible_answer": rng.random() < 0.3,
            "max_answer_len": rng.choice([1, 3, 15, 15, 40]),
            "align_to_words": rng.random() < 0.6,
        }
        windows, answers = answer(code, tokenizer, session, question, context, max_seq_len, doc_stride, parameters)
        scores = [entry["score"] for entry in answers]
        # Answers of score 0 have no order, and near ties may change places between two runtimes.
        if min(scores) < 1e-6 or any(a - b < 1e-4 * a for a, b in zip(scores, scores[1:])):
            continue
        tokenizer.no_truncation()
        cases.append({
            "question": question, "context": context, "windows": windows,
            "parameters": {**parameters, "max_seq_len": max_seq_len, "doc_stride": doc_stride},
            "answers": [{**entry, "score": float(entry["score"])} for entry in answers],
        })
    with open(f"{HERE}/cases.json", "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(len(cases), "cases,", sum(case["windows"] for case in cases), "windows")


main()
