"""The peers of serving.py: one fine-tuned classifier behind PyTorch, ONNX Runtime or OpenVINO. Runs in .venv-peers.

    python peers_serving.py prepare JOB.json       writes model.onnx, model-int8.onnx and the OpenVINO files, once
    python peers_serving.py SIDE JOB.json          pipeline, pipeline-bf16, onnx, onnx-int8, openvino or openvino-bf16

Like serving.c: the answer to the first text is printed at once, then one JSON line for each line "BATCH ANSWERS FILE" of stdin.
"""

# ruff: noqa: PLC0415
# Imports stand where a side needs them: a side's start and memory are those of its own packages.

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

VNNI = ("avx512_vnni", "avx_vnni")


class Pipeline:
    """`transformers.pipeline` in PyTorch: pads each batch to its longest text; attention by PyTorch's fused operation."""

    precision = "float32"

    def __init__(self, job: dict):
        import torch
        import transformers

        torch.set_num_threads(job["threads"])
        transformers.logging.set_verbosity_error()
        self.options = {"truncation": True, "max_length": job["max_length"]}
        self.pipe = transformers.pipeline(
            "text-classification", model=job["checkpoint"], device="cpu", dtype=getattr(torch, self.precision)
        )
        self.about = {
            "attention": self.pipe.model.config._attn_implementation,
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }

    def __call__(self, texts: list[str], batch: int) -> list[tuple[str, float]]:
        return [(row["label"], row["score"]) for row in self.pipe(texts, batch_size=batch, **self.options)]


class PipelineBfloat16(Pipeline):
    precision = "bfloat16"


class Runtime:
    """Arrays in, logits out, behind the Rust tokenizer of the checkpoint, padding each batch to its longest text."""

    def __init__(self, job: dict):
        import numpy
        import tokenizers

        self.numpy, checkpoint = numpy, Path(job["checkpoint"])
        config = json.loads((checkpoint / "config.json").read_text("utf-8"))
        self.labels = [config["id2label"][str(i)] for i in range(len(config["id2label"]))]
        self.tokenizer = tokenizers.Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
        self.tokenizer.enable_truncation(job["max_length"])
        self.tokenizer.enable_padding(pad_id=self.tokenizer.token_to_id("[PAD]"), pad_token="[PAD]")
        self.about = {"versions": {"tokenizers": tokenizers.__version__, **self.load(job)}}

    def load(self, job: dict) -> dict[str, str]:
        raise NotImplementedError

    def __call__(self, texts: list[str], batch: int) -> list[tuple[str, float]]:
        return [answer for i in range(0, len(texts), batch) for answer in self.answers(texts[i : i + batch])]

    def answers(self, texts: list[str]) -> list[tuple[str, float]]:
        rows, numpy = self.tokenizer.encode_batch(texts), self.numpy
        columns = ([row.ids for row in rows], [row.attention_mask for row in rows], [row.type_ids for row in rows])
        names = ("input_ids", "attention_mask", "token_type_ids")
        logits = self.logits({name: numpy.array(column, numpy.int64) for name, column in zip(names, columns)})
        powers = numpy.exp(logits - logits.max(axis=1, keepdims=True))
        best = powers.argmax(axis=1)
        scores = powers[range(len(best)), best] / powers.sum(axis=1)
        return [(self.labels[i], float(score)) for i, score in zip(best, scores)]


class OnnxRuntime(Runtime):
    file = "model.onnx"

    def load(self, job):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job["threads"]
        options.log_severity_level = 3
        path = str(Path(job["folder"], self.file))
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return {"onnxruntime": onnxruntime.__version__}

    def logits(self, arrays):
        return self.session.run(["logits"], arrays)[0]


class OnnxRuntimeInt8(OnnxRuntime):
    file = "model-int8.onnx"


class OpenVino(Runtime):
    precision = "f32"

    def load(self, job):
        import openvino

        hints = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": job["threads"],
            "INFERENCE_PRECISION_HINT": self.precision,
        }
        self.model = openvino.Core().compile_model(str(Path(job["folder"], "model.xml")), "CPU", hints)
        self.request = self.model.create_infer_request()
        return {"openvino": openvino.__version__.split("-")[0]}

    def logits(self, arrays):
        return self.request.infer(arrays, share_inputs=True)["logits"]


class OpenVinoBfloat16(OpenVino):
    precision = "bf16"


SIDES = {
    "pipeline": Pipeline,
    "pipeline-bf16": PipelineBfloat16,
    "onnx": OnnxRuntime,
    "onnx-int8": OnnxRuntimeInt8,
    "openvino": OpenVino,
    "openvino-bf16": OpenVinoBfloat16,
}


def prepare(job: dict) -> dict:
    """Writes the peers' files under job["folder"], and returns how they were made.

    The temperature, by which tfbert divides the logits, goes into the classifier's weights: the peers have no place of their own for it.
    """
    import torch
    import transformers

    folder = Path(job["folder"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["original"])
    # Of the exporters and kinds of attention, this pair is the one whose attention ONNX Runtime's optimizer recognises and fuses.
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        job["original"], dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        model.classifier.weight /= job["temperature"]
        model.classifier.bias /= job["temperature"]
    model.save_pretrained(job["checkpoint"])
    tokenizer.save_pretrained(job["checkpoint"])
    # Two lengths: of a mask of ones alone, an exporter may conclude that nothing is ever masked.
    example = tokenizer(["one text", "and another one that is longer"], padding=True, return_tensors="pt")
    names = ("input_ids", "attention_mask", "token_type_ids")
    torch.onnx.export(
        model,
        tuple(example[name] for name in names),
        folder / "plain.onnx",
        input_names=list(names),
        output_names=["logits"],
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in names},
        opset_version=17,
        dynamo=False,
    )
    return convert(folder, model.config, job["flags"])


def convert(folder: Path, config, flags: list[str]) -> dict:
    """plain.onnx -> model.onnx (fused for ONNX Runtime), model-int8.onnx and model.xml (OpenVINO)."""
    import onnx
    import openvino
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model

    # The fusions for BERT that the runtime does not do by itself when it loads a model.
    fused = optimize_model(
        str(folder / "plain.onnx"),
        "bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        opt_level=0,
    )
    fused.save_model_to_file(str(folder / "model.onnx"))
    # Without VNNI, sums of 8-bit products overflow 16 bits unless the weights keep to 7 bits.
    narrow = not set(VNNI) & set(flags)
    quantize_dynamic(
        folder / "model.onnx",
        folder / "model-int8.onnx",
        per_channel=True,
        reduce_range=narrow,
        weight_type=QuantType.QInt8,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # the fused operations tell none
    )
    openvino.save_model(openvino.convert_model(folder / "plain.onnx"), folder / "model.xml", compress_to_fp16=False)
    found = {name: count for name, count in fused.get_fused_operator_statistics().items() if count}
    return {"fused": found, "int8_reduced_range": narrow, "onnx": onnx.__version__}


def peak_memory_bytes() -> int:
    """Of this process image alone: getrusage would give at least what the parent had when it started us."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def measure(side, texts: list[str], batch: int) -> dict:
    """All texts once: one call for each text where the batch is 1, else one call that is left to make the batches."""
    answers, each = [], []
    cpu, begin = time.process_time(), time.perf_counter()
    for part in ([text] for text in texts) if batch == 1 else [texts]:
        before = time.perf_counter()
        answers += side(part, batch)
        each.append(time.perf_counter() - before)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    labels, scores = [label.encode().hex() for label, _ in answers], [score for _, score in answers]
    memory = peak_memory_bytes()
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_memory_bytes": memory,
        "each": each,
        "labels": labels,
        "scores": scores,
    }


def read(path: str) -> list[str]:
    return [bytes.fromhex(line).decode("utf-8") for line in Path(path).read_text().splitlines()]


def main() -> None:
    name, job = sys.argv[1], json.loads(Path(sys.argv[2]).read_text("utf-8"))
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    if name == "prepare":
        print(json.dumps(prepare(job)), file=channel, flush=True)
        return
    side = SIDES[name](job)
    print(json.dumps({**measure(side, read(job["first"])[:1], 1), "about": side.about}), file=channel, flush=True)
    for line in sys.stdin:
        batch, answers, path = line.rstrip("\n").split(" ", 2)
        found = measure(side, read(path), int(batch))
        if answers == "0":
            found |= {"labels": [], "scores": []}
        print(json.dumps(found), file=channel, flush=True)


if __name__ == "__main__":
    main()
