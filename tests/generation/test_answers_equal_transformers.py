"""Ids, beam scores, processed distributions and losses against what transformers said (golden/generation)."""

import hashlib
import json

import numpy as np
import pytest
from generation_models import (
    GOLDEN,
    NAMES,
    golden_answers,
    golden_arrays,
    golden_model,
    our_settings,
    request,
)

from npgemma.generation.generate import generate_batch
from npgemma.generation.processors import process, softmax
from npgemma.generation.scoring import score
from npgemma.generation.settings import Settings, for_model

CASES = [(name, case["name"]) for name in NAMES for case in golden_answers(name)["cases"]]
SAMPLERS = [(name, number) for name in NAMES for number in range(len(golden_answers(name)["samplers"]["settings"]))]
REMEDY = "to export again: python tools/golden/export_generation.py"


def case_of(name, title):
    return next(case for case in golden_answers(name)["cases"] if case["name"] == title)


def answers_to(name, case, dtype="float32"):
    requests = [request(name, row) for row in case["rows"]]
    found = generate_batch(golden_model(name, dtype), requests, **our_settings(case["options"]))
    return [each for answer in found for each in (answer, *answer.others)]


def test_files_are_those_of_the_manifest():
    files = json.loads((GOLDEN / "generation" / "MANIFEST.json").read_text())["files"]
    for path, told in files.items():
        digest = hashlib.sha256((GOLDEN / "generation" / path).read_bytes()).hexdigest()
        assert digest == told["sha256"], f"golden/generation/{path} is not what was exported; {REMEDY}"


@pytest.mark.parametrize("name, title", CASES)
def test_ids_equal_those_of_transformers(name, title):
    case = case_of(name, title)
    found = answers_to(name, case)
    assert [list(each.ids) for each in found] == case["ids"], f"{case['options']}; {REMEDY}"
    if "scores" in case:
        np.testing.assert_allclose([each.score for each in found], case["scores"], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_ids_in_float64_are_the_same(name):
    for title in ("greedy, pictures, none and two in a batch", "3 beams, length penalty 0.0, stops"):
        case = case_of(name, title)
        assert [list(each.ids) for each in answers_to(name, case, "float64")] == case["ids"]


@pytest.mark.parametrize("name", NAMES)
def test_the_checkpoints_answer_different_prompts_differently(name):
    alone = [tuple(case["ids"][0]) for case in golden_answers(name)["cases"] if "alone" in case["name"]]
    assert len(alone) == 9 and len(set(alone)) == 9
    assert all(len(ids) == 40 for ids in alone)
    assert min(len(set(ids)) for ids in alone) >= 12


@pytest.mark.parametrize("name, number", SAMPLERS)
def test_processed_distributions_equal_those_of_transformers(name, number):
    samplers, arrays = golden_answers(name)["samplers"], golden_arrays(name)
    settings = Settings(**({"temperature": 1.0} | our_settings(samplers["settings"][number])))
    prompts = [golden_answers(name)["prompts"][row]["ids"] for row in samplers["rows"]]
    fitted = for_model(settings, golden_model(name).config, 30)
    processed = process(arrays["logits"], fitted, prompts, [[]] * len(prompts))
    expected = arrays[f"processed.{number}"]
    assert np.array_equal(np.isfinite(processed), np.isfinite(expected)), samplers["settings"][number]
    np.testing.assert_allclose(softmax(processed), softmax(expected), atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_scores_and_losses_equal_those_of_transformers(name):
    told, arrays = golden_answers(name)["scores"], golden_arrays(name)
    prompt = golden_answers(name)["prompts"][told["prompt"]]
    pixels = arrays["pictures"][prompt["pictures"]]
    found = score(golden_model(name), ids=prompt["ids"], pixels=pixels, answers=told["answers"])
    for ours, logprobs, uncapped in zip(found.answers, told["logprobs"], told["uncapped_logprobs"], strict=True):
        np.testing.assert_allclose(ours.logprobs, logprobs, atol=2e-5)
        np.testing.assert_allclose(ours.uncapped_logprobs, uncapped, atol=2e-5)
    assert found.hf_loss == pytest.approx(told["hf_loss"], abs=1e-5)
    # big_vision: the mean of the answers' means, without the final soft-cap.
    assert found.big_vision_loss == pytest.approx(
        -np.mean([np.mean(each) for each in told["uncapped_logprobs"]]), abs=1e-5
    )
