"""The peer of training.py: the Hugging Face Trainer (PyTorch), one epoch for each line on stdin. Runs in .venv-peers.

    python peers_training.py JOB.json           with "only_input" in the job, the batches are made and not learnt from

Every epoch is one JSON line on stdout: the first, the warm-up, at once; each further one when a line arrives.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import accelerate
import torch
import transformers


class Collator:
    """The Trainer's own dynamic padding, counting what it hands out."""

    def __init__(self, tokenizer):
        self.pad = transformers.DataCollatorWithPadding(tokenizer)
        self.tokens = self.positions = 0

    def __call__(self, rows):
        batch = self.pad(rows)
        self.tokens += sum(len(row["input_ids"]) for row in rows)
        self.positions += batch["input_ids"].numel()
        return batch


class OneEpochAtATime(transformers.TrainerCallback):
    """Reports an epoch when its loss is logged, then holds the Trainer until it is told to go on.

    The clock runs from "go on" to the logged loss: it covers the sampler, the data loader and every step, and nothing of the set-up.
    """

    def __init__(self, collator: Collator, report, about: dict):
        self.collator, self.report, self.about = collator, report, about
        self.begin, self.cpu_begin = time.perf_counter(), time.process_time()

    def on_log(self, args, state, control, logs, **_):
        if "loss" in logs:  # there is none in the summary at the end of the training
            self.done(loss=logs["loss"])

    def done(self, **values):
        counted = self.collator
        self.report(
            seconds=time.perf_counter() - self.begin,
            cpu_seconds=time.process_time() - self.cpu_begin,
            tokens=counted.tokens,
            padding_share=1 - counted.tokens / counted.positions,
            peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            **values,
            **self.about,
        )
        self.about, counted.tokens, counted.positions = {}, 0, 0
        sys.stdin.readline()
        self.begin, self.cpu_begin = time.perf_counter(), time.process_time()


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr

    def report(**values):
        print(json.dumps(values), file=channel, flush=True)

    torch.set_num_threads(job["threads"])
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["checkpoint"])
    # With its seed, the Trainer seeds the order of the rows and dropout; the new head is drawn here.
    transformers.set_seed(job["seed"])
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        job["checkpoint"], num_labels=len(job["names"]), dtype=torch.float32
    )
    encoded = tokenizer(job["texts"], truncation=True, max_length=job["max_length"])
    rows = [
        {**{name: encoded[name][i] for name in encoded}, "labels": job["labels"][i]} for i in range(len(job["labels"]))
    ]
    collator = Collator(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            folder,
            use_cpu=True,
            bf16=job["precision"] == "bfloat16",
            num_train_epochs=job["epochs"],
            per_device_train_batch_size=job["batch_size"],
            train_sampling_strategy="group_by_length",
            learning_rate=job["learning_rate"],
            lr_scheduler_type="linear",
            warmup_steps=job["warmup_fraction"],
            weight_decay=job["weight_decay"],
            max_grad_norm=job["clip_norm"],
            logging_strategy="epoch",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            remove_unused_columns=False,  # there are none: spares the Trainer a look at every row
            seed=job["seed"],
        )
        about = {
            "precision": job["precision"],
            "optimizer": str(arguments.optim.value),
            "attention": model.config._attn_implementation,
            "dropout": [model.config.hidden_dropout_prob, model.config.attention_probs_dropout_prob],
            "parameters": model.num_parameters(),
            "versions": {
                "python": sys.version.split()[0],
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "accelerate": accelerate.__version__,
            },
        }
        trainer = transformers.Trainer(
            model, arguments, data_collator=collator, train_dataset=rows, processing_class=tokenizer
        )
        waiter = OneEpochAtATime(collator, report, about)
        if job.get("only_input"):
            loader = trainer.get_train_dataloader()
            for _ in range(job["epochs"]):
                for _ in loader:
                    pass
                waiter.done()
            return
        trainer.add_callback(waiter)
        trainer.train()


if __name__ == "__main__":
    main()
