"""What `make test` leaves out for its time and `make test-all` runs.

Under each file are regular expressions that are looked for in the ids of its tests; `[` stands for itself. A case stands here if it
takes seconds, and the feature, the formula or the message that it is about has another case that always runs: in the same file, or in
the one that is named beside it.
"""

from __future__ import annotations

import re

SLOW = "answers|loss|every|details|export"
LEFT_OUT = {
    "test_adaptation": [
        "the_encoder_is_that_of_the_masked_lm",
        "on_the_command_line",
        "several_seeds",
        "goes_on_and_other_text_is_refused[while it is fine-tuned",
    ],
    "test_analysis": ["tuned_stored_and_in_the_exported_graph[multi"],
    "test_benchmarks": ["timed_with_and_without_their_states"],
    "test_benchmarks_load": ["while_versions_change"],
    "test_benchmarks_recipes": ["a_run_is_made_by"],
    "test_benchmarks_serving": ["the_program_and_the_profile"],
    "test_benchmarks_sides": ["every_token_of_the_training"],
    "test_bert_pretraining": ["a_run_that_is_resumed"],  # test_checkpoints
    "test_byte_level": [
        *(f"equals_the_rust_tokenizer[{kind}" for kind in ("trimmed", "both", "untrimmed", "roberta-False")),
        *(f"merged_in_parts[{seed}" for seed in (3, 4, 5)),
        "test_real_vocabularies[gpt2",
        "replacement_characters[True",
    ],
    "test_c_program": [
        *(
            f"the_same_answers[{task}"
            for task in ("single", "regression", "choices", "windows", "questions", "multi", "masked", "embedding")
        ),
        "in_python",  # test_precision
    ],
    "test_causal_lm": ["what_is_trained_is_what_is_exported"],  # test_examples
    "test_checkpoints": [
        *(
            f"the_same_bits[{case}"
            for case in ("before", "float16", "scored", "the encoder", "the same", "gradual", "frozen")
        ),
        "same_bits[ten kills",
    ],
    "test_command_line_tasks": ["answers_alike["],  # test_examples
    "test_contract": [
        *(f"as_the_model_does[{case}" for case in ("regression", "choices")),  # test_examples
        "mates_or_padding[replaced",
        *(f"falls[{case}" for case in ("questions", "regression", "choices")),  # test_examples
        # Variants of a task.
        *(
            f"[{case}"
            for case in (
                "single of",
                "smoothed",
                "symmetric",
                "head.tail",
                "tokens in",
                "questions without",
                "questions as",
            )
        ),
        *(f"[{case}" for case in ("masked spans", "embedding, cosine", "embedding, triplet", "causal, doc")),
        *(f"test_({SLOW})\\w*[{case}" for case in ("seq2seq", "span")),
        # Trained, asked and scored, by formulas, in a file of their own.
        *(f"falls[{case}" for case in ("multi", "windows", "masked", "causal", "pretraining", "replaced")),
        *(f"as_the_model_does[{case}" for case in ("windows", "tokens", "multi", "masked", "causal", "pretraining")),
        *(f"mates_or_padding[{case}" for case in ("multi", "regression", "windows", "pretraining")),
        *(f"in_the_score[{case}" for case in ("multi", "regression", "pretraining")),
        *(f"example_by_example[{case}" for case in ("multi", "regression", "replaced")),
    ],
    "test_distillation": [
        "plain_keras_gives_the_same",
        "a_run_that_goes_on",  # test_checkpoints
        *(f"beside_the_labels[{form}" for form in ("regression", "choices", "questions")),
    ],
    "test_examples": ["several_processes_share_a_search"],
    "test_families": [
        "learns_the_same_again[(mobilebert|convbert|mpnet|albert|electra|roformer|distilbert|rembert|longformer|xlnet)",
        "learns_the_same_again[(?!roberta-)(?!.*-sequence-classification])",
        "learns_the_same_again[(xlm-roberta|camembert)",
        "an_export_answers_as_the_model_does[(?!(roberta|xlnet-sequence))",
        "begins_where_it_is_told[(?!(bert|roberta|xlnet)])",
    ],
    "test_frozen_states": [
        "of_the_whole_model[choices",
        "half_the_size",
        *(f"without_the_file[{way}" for way in ("a plan", "feature", "lower", "bfloat16")),
        *(f"of_the_whole_model[{case}" for case in ("questions", "embedding", "windows", "tokens-encoder")),
    ],
    "test_generation": [
        "row_by_row[{'num_beams': (3|4)",
        "row_by_row[{'repetition",
    ],
    "test_gradient_checkpointing": [
        "but_for_rounding[bert-ForSequenceClassification-xla",  # test_static_shapes
        *(f"but_for_rounding[{case}" for case in ("albert", "roberta", "bert-ForTokenClassification-lora")),
        "but_for_rewritten_sums[mixed",
    ],
    "test_groups": ["the_lowest_layer_that_learns[False", "the_rest_learns[False"],  # without the lean encoder
    "test_lean": [
        "those_of_transformers[(?!bert)(?!.*-ForSequenceClassification])",
        "those_of_transformers[(xlm-roberta|camembert|albert-|bert-ForQuestionAnswering|bert-Model)",
        "as_near_to_float32_as_transformers[mixed_float16",
        "put_together_once[False-bert",
        "put_together_once[False-distilbert",
        "put_together_once[False-albert, two groups of two-0",
        "put_together_once[True-albert",
        "drops_its_own[what it learns",  # test_strategies
    ],
    "test_longformer": [
        "xla_compiles_the_gradient",
        "test_a_task_goes_the_whole_way",
        "goes_the_whole_way[roberta",
        "those_of_tf_transformers[(sequence|token|question)",
        *(f"{test}[sequence" for test in ("dense_attention", "compiles_it", "change_nothing")),
        "change_nothing[question",
    ],
    "test_masked_lm_training": [
        "with_its_head[whole",
        "with_its_head[span",
        "a_batch_in_parts",  # test_training_model
        "a_run_that_is_resumed",  # test_checkpoints; the masks of a restart: a_restart_draws_the_masks
    ],
    "test_models": ["fitting_the_transformer_itself[False"],
    "test_places": ["between_its_places[lower", "a_context_of_10000_words", "an_entity_is_what"],  # test_contract
    "test_precision": ["with_rounded_weights[(True-(roberta|electra|distilbert)|False-(bert|electra|roberta))"],
    "test_question_answering": [
        "of_the_pipeline[2-3-24-False",
        "of_the_pipeline[1-15-40-True",
        "of_the_pipeline[5-30-64-True",
    ],
    "test_replaced_token_detection": ["a_run_that_is_resumed"],  # test_checkpoints
    "test_sentencepiece": [
        *(f"any_other_strings[{kind}" for kind in ("deberta", "xlm", "xlnet", "t5")),
        "cut_words[True-always",
        "cut_words[False-first",
        "those_of_the_tokenizer[xlnet",
    ],
    "test_seq2seq": [
        "it_learns_to_write",
        "generate[{}-bart",
        "generate[{'num_beams",
    ],  # test_examples, test_generation
    "test_static_shapes": ["what_is_computed_again_is_compiled"],  # test_gradient_checkpointing
    "test_strategies": ["one_device_learns[windows", "one_device_learns[masked", "go_on_to_the_bit"],
    "test_tokenization_parity": [
        "every_code_point[bert-base-cased",
        "(naughty_strings|human_rights)[(xlnet|albert|bert-base-cased|bert-base-chinese)",  # test_sentencepiece
        "plain_english[bert-base-cased",
        "plain_english[albert",
    ],
    "test_training_model": ["the_whole_batch[1", "the_whole_batch[3"],
    "test_prepared": [
        "every_row_once[5",
        *(
            f"in_memory[{case}"
            for case in (
                "single of",
                "smoothed",
                "head.tail",
                "symmetric",
                "tokens in",
                "questions without",
                "regression",
            )
        ),
        *(f"in_memory[{case}" for case in ("masked spans", "embedding, cosine", "embedding, triplet", "causal, doc")),
    ],
    "test_xlnet": ["with_its_own_tokenizer"],  # test_families, test_sentencepiece
    "test_windows": ["gives_the_same_rows[16", "gives_the_same_rows[40"],
    "test_workers": ["a_signal_to_one_worker"],  # tests/together.py does more of it
}


def is_left_out(id: str) -> bool:
    """Whether a test runs in `make test-all` only.

    Args:
        id: pytest's, such as "tests/test_contract.py::test_loss_is_one_finite_number_per_row_and_falls[single]".
    """
    file, _, test = id.partition("::")
    return any(_finds(pattern, test) for pattern in LEFT_OUT.get(_stem(file), []))


def idle(ids: list[str]) -> list[str]:
    """The patterns that find none of these tests, which are all of their files: a test may have got another name."""
    tests: dict[str, list[str]] = {}
    for id in ids:
        file, _, test = id.partition("::")
        tests.setdefault(_stem(file), []).append(test)
    return [
        f"{file}: {pattern}"
        for file in tests.keys() & LEFT_OUT.keys()
        for pattern in LEFT_OUT[file]
        if not any(_finds(pattern, test) for test in tests[file])
    ]


def _stem(file: str) -> str:
    return file.rpartition("/")[2].removesuffix(".py")


def _finds(pattern: str, test: str) -> bool:
    return re.search(pattern.replace("[", r"\["), test) is not None
