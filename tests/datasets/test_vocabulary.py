"""The label table: what is in it, what can be looked up, and that a planted fault names its file and line."""

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import datasets.vocabulary
from datasets.manifests import read_manifest
from datasets.vocabulary import Vocabulary, VocabularyError, everyday_vocabulary, read_vocabulary
from runtime.bundle import Label

TABLES = Path(datasets.vocabulary.__file__).parent
NUM_AUDIOSET, NUM_KNOWN = 527, 1527


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return everyday_vocabulary()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    for table in TABLES.glob("*.csv"):
        shutil.copy(table, tmp_path)
    return tmp_path


def planted(folder: Path, table: str, old: str, new: str) -> int:
    """Replace the only occurrence of a text; the number of its line."""
    path = folder / table
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    return text[: text.index(old)].count("\n") + 1


def test_counts(vocabulary: Vocabulary) -> None:
    assert len(vocabulary) == 527 + 1000 + 54
    assert len(vocabulary.groups) == 202
    assert sum(bool(label.mid) for label in vocabulary.labels) == 527
    assert len(vocabulary.bridges) >= 120
    assert all(label.wnid and label.name for label in vocabulary.labels[NUM_AUDIOSET:NUM_KNOWN])
    assert not any(label.name for label in vocabulary.labels[NUM_KNOWN:])


def test_ids(vocabulary: Vocabulary) -> None:
    ids = [entry.id for entry in (*vocabulary.labels, *vocabulary.groups)]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id_) for id_ in ids)
    assert vocabulary.index["speech"] == 0
    assert vocabulary.index["tench"] == 527
    assert vocabulary.index["rooster"] == 527 + 7


def test_codes_are_unique(vocabulary: Vocabulary) -> None:
    for codes in (
        [entry.mid for entry in (*vocabulary.labels, *vocabulary.groups) if entry.mid],
        [label.wnid for label in vocabulary.labels if label.wnid],
    ):
        assert len(codes) == len(set(codes))


def test_every_reference_exists_and_nothing_is_above_itself(vocabulary: Vocabulary) -> None:
    for entry in (*vocabulary.labels, *vocabulary.groups):
        assert entry.id not in vocabulary.ancestors(entry.id)
    for bridge in vocabulary.bridges:
        assert vocabulary.labels[vocabulary.index[bridge.audio]].streams == ("audio",)
        assert all(vocabulary.members[id_] for id_ in bridge.video)


def test_every_imagenet_label_is_in_a_group(vocabulary: Vocabulary) -> None:
    groups = {group.id for group in vocabulary.groups}
    for label in vocabulary.labels[NUM_AUDIOSET:]:
        assert groups.intersection(vocabulary.ancestors(label.id)), label.id


def test_118_breeds_are_dogs(vocabulary: Vocabulary) -> None:
    dogs = vocabulary.indices(["dogs"])
    np.testing.assert_array_equal(dogs, 527 + np.arange(151, 269))  # of ImageNet's labels
    assert "dhole" not in vocabulary.members["dogs"]
    assert set(vocabulary.bridged["bark"]) == set(vocabulary.members["dogs"])


def test_ancestors_follow_audiosets_ontology(vocabulary: Vocabulary) -> None:
    assert vocabulary.ancestors("bark") == ("dog", "domestic-animals", "animal")
    assert vocabulary.ancestors("child-speech") == ("speech", "human-voice", "human-sounds")
    assert vocabulary.ancestors("pug") == ("dogs", "canines", "mammals", "animals")
    assert vocabulary.ancestors("digital-watch") == ("watch", "clocks-and-watches")
    with pytest.raises(VocabularyError, match="no-such-thing"):
        vocabulary.ancestors("no-such-thing")


def test_bridge_pairs(vocabulary: Vocabulary) -> None:
    pairs = vocabulary.bridge_pairs
    assert pairs.dtype == np.int64
    assert len(np.unique(pairs, axis=0)) == len(pairs)
    assert vocabulary.stream_mask("audio")[pairs[:, 0]].all()
    assert vocabulary.stream_mask("video")[pairs[:, 1]].all()
    index = vocabulary.index
    for audio, video in [
        ("dog", "pug"),
        ("cat", "tabby"),
        ("piano", "grand-piano"),
        ("train", "steam-locomotive"),
        ("helicopter", "helicopter-video"),
    ]:
        assert [index[audio], index[video]] in pairs.tolist()
    assert [index["dog"], index["tabby"]] not in pairs.tolist()


def test_stream_mask(vocabulary: Vocabulary) -> None:
    audio, video = vocabulary.stream_mask("audio"), vocabulary.stream_mask("video")
    assert audio[:NUM_AUDIOSET].all()
    assert not audio[NUM_AUDIOSET:NUM_KNOWN].any()
    assert audio[vocabulary.index["drone"]]
    assert (audio ^ video).all()
    assert vocabulary.stream_mask("fused").all()
    with pytest.raises(VocabularyError, match="'image'"):
        vocabulary.stream_mask("image")


def test_indices_of_labels_and_groups(vocabulary: Vocabulary) -> None:
    assert vocabulary.indices(["dog", "cats", "tabby"]).tolist() == [74, *range(527 + 281, 527 + 286)]
    assert vocabulary.indices([]).shape == (0,)
    with pytest.raises(VocabularyError, match="unicorn"):
        vocabulary.indices(["unicorn"])


def test_labels_of_a_folder(vocabulary: Vocabulary) -> None:
    dog = vocabulary.dataset_labels("sights_sounds", "dog")
    assert dog.audio_certain == ("dog", "bark")
    assert len(dog.video) == 118
    assert dog.video_certain == ("dalmatian",)
    assert vocabulary.dataset_labels("caltech101", "accordion").video == ("accordion-video",)
    assert vocabulary.dataset_labels("caltech101", "Motorbikes").video == ("motorcycle-video",)
    assert vocabulary.dataset_labels("caltech101", "background_google").video == ()
    with pytest.raises(VocabularyError, match="caltech101 'unicorn'"):
        vocabulary.dataset_labels("caltech101", "unicorn")


def test_a_source_may_name_a_finer_folder(vocabulary: Vocabulary) -> None:
    found = vocabulary.source_labels("Caltech-101 ketch/image_0001.jpg")
    assert found is not None
    assert found.video_certain == ("ketch",)
    assert vocabulary.source_labels("ESC-10 1-100032-A") is None
    assert vocabulary.source_labels("Another-set ketch/image_0001.jpg") is None


def test_labels_for_a_bundle(vocabulary: Vocabulary) -> None:
    labels = vocabulary.bundle_labels()
    read = [Label(x["id"], x["label"], tuple(x["modalities"])) for x in labels]
    assert [label.id for label in read] == [label.id for label in vocabulary.labels]
    assert labels[vocabulary.index["rooster"]] == {
        "id": "rooster",
        "label": "Rooster",
        "modalities": ["video"],
        "parents": ["chickens"],
        "wnid": "n01514668",
        "bridges": ["livestock", "fowl", "chicken", "crowing", "bird", "flapping-wings"],
    }
    assert labels[0]["mid"] == "/m/09x0r"
    known = vocabulary.index.keys() | {group["id"] for group in vocabulary.bundle_groups()}
    assert all(parent in known for label in labels for parent in label["parents"])
    assert {"id": "pigs", "label": "Pigs", "parents": ["hoofed-mammals"]} in vocabulary.bundle_groups()


def test_order_is_the_teachers(shared_dir: Path, vocabulary: Vocabulary) -> None:
    folder = shared_dir / "data" / "teachers"
    if not folder.is_dir():
        pytest.skip("no lists of the teachers' labels here")
    with (folder / "audioset_labels.csv").open(newline="") as file:
        audioset = [(row["mid"], row["display_name"]) for row in csv.DictReader(file)]
    assert [(label.mid, label.name) for label in vocabulary.labels[:NUM_AUDIOSET]] == audioset
    imagenet = (folder / "imagenet_labels.txt").read_text().splitlines()
    assert [label.name for label in vocabulary.labels[NUM_AUDIOSET:NUM_KNOWN]] == imagenet


@pytest.mark.parametrize("dataset", ["sights_sounds", "caltech101"])
def test_every_folder_has_a_row(shared_dir: Path, vocabulary: Vocabulary, dataset: str) -> None:
    if not (manifest := shared_dir / "data" / dataset / "manifest.csv").is_file():
        pytest.skip(f"no {dataset} here")
    for item in read_manifest(manifest):
        row = vocabulary.dataset_labels(dataset, item.label)
        assert getattr(row, item.modality) or item.label == "background_google", item.label


def test_every_added_label_is_in_a_training_split(shared_dir: Path, vocabulary: Vocabulary) -> None:
    taught: set[str] = set()
    for dataset in ("sights_sounds", "caltech101"):
        if not (manifest := shared_dir / "data" / dataset / "manifest.csv").is_file():
            pytest.skip(f"no {dataset} here")
        for item in read_manifest(manifest):
            if item.split == "train":
                row = vocabulary.source_labels(item.source) or vocabulary.dataset_labels(dataset, item.label)
                taught.update(getattr(row, f"{item.modality}_certain"))
    assert {label.id for label in vocabulary.labels[NUM_KNOWN:]} <= taught


@pytest.mark.parametrize(
    ("table", "old", "new", "message"),
    [
        ("labels.csv", "\ntench,", "\nTench,", "'Tench' is not in kebab-case"),
        ("labels.csv", "\ngoldfish,", "\ntench,", "the id 'tench' is also at"),
        ("labels.csv", "\ndrone,Drone,audio,", "\ndrone,Drone,sound,", "streams are 'sound'"),
        ("labels.csv", "\ndrone,Drone,audio,", "\ndrone,,audio,", "'label' is empty"),
        ("labels.csv", "\ntench,Tench,video,fish,", "\ntench,Tench,video,fishes,", r"\['fishes'\]"),
        ("labels.csv", "\ntench,Tench,video,fish,", "\ntench,Tench,video,,", "'tench' has no parent"),
        ("labels.csv", "\ntench,Tench,video,fish,", "\ntench,Tench,video,dog,", "other streams than 'tench'"),
        ("labels.csv", ",n01440764,", ",n1440764,", "the wnid 'n1440764' is not of the form"),
        ("labels.csv", ",n01443537,", ",n01440000,", "n01440000 comes after n01440764"),
        ("labels.csv", ",/m/09x0r,", ",,", "'speech' stands where a label of AudioSet is wanted"),
        ("labels.csv", ",n01440764,", ",,", "'tench' stands where a label of ImageNet is wanted"),
        ("labels.csv", "\ntench,Tench,", "\ntench,Speech,", "called 'Speech' like 'speech'"),
        ("labels.csv", "\ndrone,", "\nextra,Extra,video,fish,,,\ndrone,", "no folder in sources.csv teaches"),
        ("labels.csv", "\ndrone,Drone,audio,", "\ndrone,Drone,", "6 cells, wanted 7"),
        ("groups.csv", "\nanimals,", "\nempty,Empty,,\nanimals,", "no label belongs to the group 'empty'"),
        ("bridges.csv", "\nbark,dogs", "\nbark,hounds", r"video has \['hounds'\]"),
        ("bridges.csv", "\nbark,dogs", "\nbark,cat", r"\['cat'\] cannot be answers of the video stream"),
        ("bridges.csv", "\nbark,dogs", "\npug,dogs", r"\['pug'\] cannot be answers of the audio stream"),
        ("bridges.csv", "\nbark,dogs", "\ndog,dogs", "'dog' is also at"),
        ("sources.csv", "\ncaltech101,ant,,,ant,ant", "\ncaltech101,Ant,,,ant,ant", "write 'ant'"),
        ("sources.csv", "\ncaltech101,tick,", "\ncaltech101,ant,", "caltech101 'ant' is also at"),
        ("sources.csv", "\ncaltech101,ant,,,ant,ant", "\ncaltech101,ant,ant,,ant,ant", "of the audio stream"),
        ("sources.csv", "\ncaltech101,ant,,,ant,ant", "\ncaltech101,ant,,,ant,bee", r"has \['bee'\]"),
    ],
)  # fmt: skip
def test_a_fault_is_named(copied: Path, table: str, old: str, new: str, message: str) -> None:
    line = planted(copied, table, old, new)
    with pytest.raises(VocabularyError, match=message) as error:
        read_vocabulary(copied)
    assert str(error.value).startswith(f"{copied / table}, line {line + new.startswith(chr(10))}: ")


def test_a_cycle_of_parents_is_named(copied: Path) -> None:
    planted(copied, "groups.csv", "\nanimals,Animals,,", "\nanimals,Animals,dogs,")
    with pytest.raises(VocabularyError, match=r"groups\.csv, line \d+: parents lead back to .*animals"):
        read_vocabulary(copied)


def test_a_missing_table_is_named(copied: Path) -> None:
    (copied / "bridges.csv").unlink()
    with pytest.raises(VocabularyError, match=r"bridges\.csv cannot be read"):
        read_vocabulary(copied)


def test_other_columns_are_named(copied: Path) -> None:
    planted(copied, "groups.csv", "id,label,parents,mid", "id,label,parents")
    with pytest.raises(VocabularyError, match=r"groups\.csv, line 1: the columns are"):
        read_vocabulary(copied)


def test_a_short_table_is_named(copied: Path) -> None:
    path = copied / "labels.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:101]))
    with pytest.raises(VocabularyError, match="parents has|there are 100 labels"):
        read_vocabulary(copied)
