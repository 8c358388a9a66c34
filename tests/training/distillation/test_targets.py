"""What is taught: answers of teachers at their places, certain labels, and bridges that raise each other."""

from pathlib import Path

import numpy as np
import pytest
import torch

from datasets.manifests import Item
from datasets.vocabulary import VocabularyError, everyday_vocabulary
from models.attention import Pairing
from tests.training.distillation.fake_teachers import CAT, DALMATIAN, DOG, TABBY
from training.distillation.targets import (
    Bridges,
    CertainLabels,
    concepts,
    fusion_targets,
    in_vocabulary,
)

VOCABULARY = everyday_vocabulary()


def _targets(**probabilities: float) -> torch.Tensor:
    names = {"dog": DOG, "cat": CAT, "dalmatian": DALMATIAN, "tabby": TABBY}
    row = torch.zeros(1, len(VOCABULARY))
    for name, probability in probabilities.items():
        row[0, names[name]] = probability
    return row


def _item(collection: str, label: str, source: str = "") -> Item:
    return Item(Path("x"), "video", (label,), "train", source=source, collection=collection)


def test_answers_stand_where_the_vocabulary_has_them() -> None:
    said = np.zeros((2, 1_000), np.float16)
    said[0, DALMATIAN - 527] = 0.5
    targets = in_vocabulary(said, [(), (TABBY,)], 527, len(VOCABULARY), 0.9)
    assert targets[0].nonzero().tolist() == [[DALMATIAN]]
    assert targets[1].nonzero().tolist() == [[TABBY]]
    assert targets[1, TABBY] == pytest.approx(0.9)


def test_what_is_certain_never_lowers_an_answer() -> None:
    said = np.full((1, 527), 0.97, np.float32)
    assert in_vocabulary(said, [(DOG,)], 0, len(VOCABULARY), 0.9)[0, DOG] == pytest.approx(0.97)


def test_labels_that_a_bridge_joins_raise_each_other() -> None:
    raised = Bridges(VOCABULARY).raised(_targets(dog=0.5, dalmatian=0.8))
    assert raised[0, DOG] == pytest.approx(1 - 0.5 * (1 - 0.8 * 0.5))
    assert raised[0, DALMATIAN] == pytest.approx(1 - 0.2 * (1 - 0.5 * 0.8))


def test_labels_of_different_things_leave_each_other_alone() -> None:
    targets = _targets(dog=0.5, tabby=0.8)
    assert Bridges(VOCABULARY).raised(targets).equal(1 - (1 - targets))


def test_nothing_is_made_of_an_answer_that_nobody_gave() -> None:
    assert Bridges(VOCABULARY).raised(_targets(dalmatian=1.0))[0, DOG] == 0


def test_fusion_is_taught_both_and_of_what_lacks_one_the_other() -> None:
    pairing = Pairing(torch.tensor([0, 0, -1]), torch.tensor([0, -1, 0]))
    rows = fusion_targets(pairing, _targets(dog=0.5), _targets(dalmatian=0.5), Bridges(VOCABULARY))
    assert rows[:, DOG].tolist() == pytest.approx([0.625, 0.5, 0])
    assert rows[:, DALMATIAN].tolist() == pytest.approx([0.625, 0, 0.5])


def test_a_bark_a_dog_and_a_dalmatian_are_one_concept() -> None:
    of_label = concepts(VOCABULARY)
    assert of_label[VOCABULARY.index["bark"]] == of_label[DOG] == of_label[DALMATIAN]
    assert of_label[CAT] == of_label[TABBY] != of_label[DOG]


def test_the_label_of_a_known_collection_is_certain() -> None:
    items = [
        _item("sights_sounds", "dog", "Caltech-101 dalmatian/image_0001.jpg"),
        _item("caltech101", "accordion"),
        _item("my-clips", "dog"),
    ]
    certain = CertainLabels.of(items, VOCABULARY).video
    assert certain[0] == (DALMATIAN,)
    assert certain[1] == (VOCABULARY.index["accordion-video"],)
    assert certain[2] == ()


def test_a_label_that_a_known_collection_has_not_fails() -> None:
    with pytest.raises(VocabularyError, match="no row for caltech101 'unicorn'"):
        CertainLabels.of([_item("caltech101", "unicorn")], VOCABULARY)
