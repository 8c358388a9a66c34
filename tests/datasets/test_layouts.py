"""Layouts: lists as they are published, quirks and all, read into items; what is not there is counted."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.layouts import LAYOUTS, audioset, esc50, folders, grid, kinetics, read_items, vggsound
from datasets.layouts.files import FileIndex, modality_of
from datasets.manifests import (
    Item,
    Listing,
    ManifestError,
    Spans,
    label_table,
    read_listing,
    read_manifest,
    whole_files,
)

SEGMENTS = """\
# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=22160, num_segs=22160, num_unique_labels=527, num_positive_labels=52882
# YTID, start_seconds, end_seconds, positive_labels
--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_"
-0RWZT-miFs, 420.000, 430.000, "/m/03v3yw"
07fvLR0PFoc, 30.500, 40.500, "/m/03v3yw,/m/068hy"
gone_video_, 30.000, 40.000, "/m/068hy"
"""
LABELS = """\
index,mid,display_name
0,/m/068hy,"Domestic animals, pets"
1,/m/07q6cd_,Squeak
2,/m/03v3yw,"Keys jangling"
"""


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")


def short(listing: Listing, folder: Path) -> list[tuple[str, str, tuple[str, ...], str]]:
    return [(i.path.relative_to(folder).as_posix(), i.modality, i.labels, i.split) for i in listing.items]


def test_audioset_with_its_comments_spaces_and_ids_that_start_with_a_dash(tmp_path: Path) -> None:
    (tmp_path / "balanced_train_segments.csv").write_text(SEGMENTS)
    (tmp_path / "eval_segments.csv").write_text('# a\n# b\n# c\n-_eval_id-0, 1.000, 11.000, "/m/07q6cd_"\n')
    (tmp_path / audioset.AUDIOSET_LABELS).write_text(LABELS)
    touch(
        tmp_path,
        "clips/--4gqARaEJE.mp4",
        "clips/-0RWZT-miFs_000420.mkv",
        "wav/Y07fvLR0PFoc.WAV",
        "-_eval_id-0_1.flac",
    )
    listing = read_items(tmp_path)
    assert listing.layout == "audioset"
    assert short(listing, tmp_path) == [
        ("clips/--4gqARaEJE.mp4", "both", ("/m/068hy", "/m/07q6cd_"), "train"),
        ("clips/-0RWZT-miFs_000420.mkv", "both", ("/m/03v3yw",), "train"),
        ("wav/Y07fvLR0PFoc.WAV", "audio", ("/m/03v3yw", "/m/068hy"), "train"),
        ("-_eval_id-0_1.flac", "audio", ("/m/07q6cd_",), "test"),
    ]
    assert [item.source for item in listing.items] == ["balanced_train"] * 3 + ["eval"]
    assert [(m.path.name, m.labels) for m in listing.missing] == [("gone_video__000030.mp4", ("/m/068hy",))]
    assert next(iter(listing.names.items())) == ("/m/068hy", "Domestic animals, pets")
    table = label_table(listing.items, listing.names)
    assert {row["id"]: row["label"] for row in table} == listing.names


def test_audioset_fails_on_lists_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "unbalanced_train_segments.csv"
    path.write_text(SEGMENTS)
    with pytest.raises(ManifestError, match="without class_labels_indices"):
        read_items(tmp_path)
    (tmp_path / audioset.AUDIOSET_LABELS).write_text(LABELS.replace("/m/07q6cd_", "/m/other"))
    with pytest.raises(ManifestError, match="--4gqARaEJE has labels"):
        read_items(tmp_path)
    path.write_text("-id, 0.000, 10.000, /m/068hy,/m/03v3yw\n")  # the list is not quoted
    with pytest.raises(ManifestError, match="quoted list"):
        read_items(tmp_path)
    path.write_text('-id, zero, 10.000, "/m/068hy"\n')
    with pytest.raises(ManifestError, match="'zero' is no time"):
        read_items(tmp_path)
    path.rename(tmp_path / "mine_segments.csv")
    with pytest.raises(ManifestError, match="there are lists"):
        read_items(tmp_path)


def test_vggsound_without_header_and_with_commas_in_labels(tmp_path: Path) -> None:
    (tmp_path / "vggsound.csv").write_text(
        '---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,"female speech, woman speaking",train\n'
        "--gone_____,5,dog,train\n"
    )
    touch(
        tmp_path,
        "video/---g-f_I2yQ_000001.mp4",
        "video/--0PQM4-hqg.mp4",
        "audio/--0PQM4-hqg.wav",
        "x/._--gone_____.mp4",
    )
    listing = read_items(tmp_path)
    assert listing.layout == "vggsound"
    assert short(listing, tmp_path) == [
        ("video/---g-f_I2yQ_000001.mp4", "both", ("people marching",), "test"),
        ("video/--0PQM4-hqg.mp4", "both", ("female speech, woman speaking",), "train"),
    ]
    assert [m.labels for m in listing.missing] == [("dog",)]


@pytest.mark.parametrize(
    "row", ["id,1,label,dev", "id,1,a label,with a comma,train", "youtube_id,start,label,split"]
)
def test_vggsound_fails(tmp_path: Path, row: str) -> None:
    (tmp_path / "vggsound.csv").write_text(row + "\n")
    with pytest.raises(ManifestError, match="no header"):
        vggsound.read(tmp_path)


def test_kinetics_by_its_file_names_in_folders_by_label(tmp_path: Path) -> None:
    header = "label,youtube_id,time_start,time_end,split,is_cc\n"
    touch(
        tmp_path,
        "annotations/x",
        "train/testifying/---QUuC4vJs_000084_000094.mp4",
        "val/-3WVF24aBLg_000007_000017.mp4",
    )
    (tmp_path / "annotations" / "train.csv").write_text(header + "testifying,---QUuC4vJs,84,94,train,0\n")
    (tmp_path / "annotations" / "validate.csv").write_text(
        header
        + '"playing ""air"" guitar",-3WVF24aBLg,7,17,validate,1\ntestifying,---QUuC4vJs,85,95,validate,0\n'
    )
    (tmp_path / "annotations" / "test.csv").write_text(
        "youtube_id,time_start,time_end,split\nabc,0,10,test\n"
    )
    (tmp_path / "train_again.csv").write_text(header + "testifying,---QUuC4vJs,84,94,train,0\n")
    listing = read_items(tmp_path)
    assert listing.layout == "kinetics"
    assert sorted(short(listing, tmp_path)) == [
        ("train/testifying/---QUuC4vJs_000084_000094.mp4", "both", ("testifying",), "train"),
        ("val/-3WVF24aBLg_000007_000017.mp4", "both", ('playing "air" guitar',), "val"),
    ]
    missing = {(m.path.name, m.labels, m.split) for m in listing.missing}
    assert missing == {
        ("---QUuC4vJs_000085_000095.mp4", ("testifying",), "val"),
        ("abc_000000_000010.mp4", (), "test"),
    }
    (tmp_path / "train_again.csv").write_text(header + "testifying,---QUuC4vJs,84,94,dev,0\n")
    with pytest.raises(ManifestError, match="unknown split 'dev'"):
        kinetics.read(tmp_path)


def test_esc50_folds(tmp_path: Path) -> None:
    labels = {1: "dog", 2: "dog", 3: "vacuum_cleaner", 4: "vacuum_cleaner", 5: "vacuum_cleaner"}
    rows = [(f"{fold}-100-A-{fold}.wav", fold, fold, label, label == "dog") for fold, label in labels.items()]
    touch(tmp_path, "meta/x", *[f"audio/{name}" for name, *_ in rows[1:]])
    lines = [f"{name},{fold},{target},{label},{esc10},100,A" for name, fold, target, label, esc10 in rows]
    (tmp_path / "meta" / "esc50.csv").write_text(
        "\n".join(["filename,fold,target,category,esc10,src_file,take", *lines])
    )
    listing = read_items(tmp_path)
    assert [i.split for i in listing.items] == ["train", "train", "train", "test"]
    assert [i.source for i in listing.items] == ["ESC-10 100", "ESC-50 100", "ESC-50 100", "ESC-50 100"]
    assert [m.path.name for m in listing.missing] == ["1-100-A-1.wav"]
    other = esc50.read(tmp_path, test_fold=2, val_fold=1)
    assert [i.split for i in other.items] == ["test", "train", "train", "train"]
    assert [m.split for m in other.missing] == ["val"]
    for folds in ({"test_fold": 6}, {"test_fold": 3, "val_fold": 3}, {"val_fold": 0}):
        with pytest.raises(ManifestError, match="two of the folds 1 to 5"):
            esc50.read(tmp_path, **folds)


SENTENCES = "path,split,command,colour,preposition,letter,digit,adverb\n"
WORDS = "path,start_seconds,end_seconds,word\n"


def grid_folder(folder: Path, spoken: str = "place red at a zero again") -> Path:
    sentence = "place red at a zero again"
    (folder / "sentences.csv").write_text(f"{SENTENCES}clips/x.mp4,train,{sentence.replace(' ', ',')}\n")
    spans = [f"clips/x.mp4,{0.5 + i / 4},{0.75 + i / 4},{word}\n" for i, word in enumerate(spoken.split())]
    (folder / "words.csv").write_text(WORDS + "".join(spans))
    touch(folder, "clips/x.mp4")
    return folder


def test_grid_words_know_their_slot_by_their_place(tmp_path: Path) -> None:
    listing = read_items(grid_folder(tmp_path))
    found = [(i.source, i.label, i.start_seconds, i.end_seconds, i.split) for i in listing.items]
    assert found == [
        ("command", "place", 0.5, 0.75, "train"),
        ("colour", "red", 0.75, 1.0, "train"),
        ("preposition", "at", 1.0, 1.25, "train"),
        ("letter", "a", 1.25, 1.5, "train"),
        ("digit", "zero", 1.5, 1.75, "train"),
        ("adverb", "again", 1.75, 2.0, "train"),
    ]
    (whole,) = whole_files(listing.items)
    assert whole.labels == ("place", "red", "at", "a", "zero", "again")
    assert (whole.start_seconds, whole.end_seconds, whole.source) == (0.0, None, "")
    (tmp_path / "clips" / "x.mp4").unlink()
    assert len(read_items(tmp_path).missing) == 6


def test_a_file_taken_whole_has_the_labels_of_its_spans_in_order_of_time() -> None:
    film, other = Path("film.mp4"), Path("other.mp4")
    spans = [
        Item(film, "both", ("cat",), "train", "mine", 2.0, 3.0),
        Item(other, "audio", (), "val", "", 1.0),
        Item(film, "audio", ("dog", "cat"), "train", "mine", 0.5, 1.0),
    ]
    assert Spans.WHOLE.of(spans) == [
        Item(film, "both", ("dog", "cat"), "train", "mine"),
        Item(other, "audio", (), "val"),
    ]
    assert Spans.EACH.of(spans) == spans
    with pytest.raises(ManifestError, match=r"film.mp4 has spans of the splits \['test', 'train'\]"):
        whole_files([*spans, replace(spans[0], split="test")])


def test_grid_slots_are_51_words_of_which_none_is_in_two() -> None:
    assert [len(words) for words in grid.SLOTS.values()] == [4, 4, 4, 25, 10, 4]
    assert len({word for words in grid.SLOTS.values() for word in words}) == 51


@pytest.mark.parametrize(
    "spoken", ["place red a at zero again", "place red at a zero", "place red at a zero again now"]
)
def test_grid_fails_where_its_lists_contradict_each_other(tmp_path: Path, spoken: str) -> None:
    with pytest.raises(ManifestError, match="but its sentence is"):
        read_items(grid_folder(tmp_path, spoken))


def test_grid_fails_on_words_of_no_slot_and_on_sentences_without_words(tmp_path: Path) -> None:
    grid_folder(tmp_path)
    with (tmp_path / "sentences.csv").open("a") as file:
        file.write("clips/y.mp4,train,place,red,at,a,zero,now\n")
    with pytest.raises(ManifestError, match="no words of 1 sentences"):
        read_items(tmp_path)
    (tmp_path / "sentences.csv").write_text(f"{SENTENCES}clips/x.mp4,train,place,red,at,w,zero,again\n")
    with pytest.raises(ManifestError, match="has the letter 'w'"):
        read_items(tmp_path)


def test_real_lists_read(shared_dir: Path) -> None:
    words = read_items(shared_dir / "data" / "grid_s1")
    assert (words.layout, len(words.items), words.missing) == ("grid", 6000, [])
    assert {slot: {i.label for i in words.items if i.source == slot} for slot in grid.SLOTS} == {
        slot: set(expected) for slot, expected in grid.SLOTS.items()
    }
    patchwork = read_items(shared_dir / "data" / "sights_sounds")
    assert (patchwork.layout, len(patchwork.items), patchwork.missing) == ("manifest", 2571, [])


def test_plain_folders_with_and_without_splits(tmp_path: Path) -> None:
    names = ["cat/a.mp4", "cat/deep/b.wav", "dog/c.jpg", "dog/.hidden.mp4", "dog/notes.txt", ".cache/x.mp4"]
    touch(tmp_path / "drawn", *names)
    listing = read_items(tmp_path / "drawn")
    assert [row[:3] for row in short(listing, tmp_path / "drawn")] == [
        ("cat/a.mp4", "both", ("cat",)),
        ("cat/deep/b.wav", "audio", ("cat",)),
        ("dog/c.jpg", "video", ("dog",)),
    ]
    touch(tmp_path / "given", "train/cat/a.mp4", "valid/cat/b.mp4", "test/dog/c.mp4")
    assert [row[2:] for row in short(read_items(tmp_path / "given"), tmp_path / "given")] == [
        (("dog",), "test"),
        (("cat",), "train"),
        (("cat",), "val"),
    ]
    touch(tmp_path / "flat", "a.mp4", "b.mp4")
    assert [i.labels for i in read_items(tmp_path / "flat").items] == [(), ()]


def test_a_drawn_split_is_that_of_the_paths_hash_and_80_10_10() -> None:
    paths = [Path(f"label_{i % 7}/clip_{i}.mp4") for i in range(5000)]
    shares = {
        split: sum(folders.split_of(path) == split for path in paths) / 5000
        for split in ("train", "val", "test")
    }
    assert shares == pytest.approx({"train": 0.8, "val": 0.1, "test": 0.1}, abs=0.02)
    for path in paths[:50]:
        drawn = int(hashlib.sha256(str(path).encode()).hexdigest()[:12], 16) / 16**12
        assert folders.split_of(path) == ("train" if drawn < 0.8 else "val" if drawn < 0.9 else "test")


def test_plain_folders_fail_where_they_are_mixed(tmp_path: Path) -> None:
    touch(tmp_path / "a", "train/cat/a.mp4", "dog/b.mp4")
    with pytest.raises(ManifestError, match=r"splits \['train'\] beside \['dog'\]"):
        read_items(tmp_path / "a")
    touch(tmp_path / "b", "cat/a.mp4", "b.mp4")
    with pytest.raises(ManifestError, match="1 of 2 files have no label folder"):
        read_items(tmp_path / "b")


def test_own_manifest_with_spans_and_several_labels(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.wav")
    rows = (
        'a.mp4,both,"dog|cat, tabby",train,1.5,2.5,mine\nb.wav,audio,,train,,,\ngone.mp4,video,dog,val,,3,\n'
    )
    header = "\ufeffpath,modality,label,split,start_seconds,end_seconds,source\n"  # as spreadsheets write it
    (tmp_path / "manifest.csv").write_text(header + rows, encoding="utf-8")
    listing = read_listing(tmp_path / "manifest.csv")
    assert listing.items == [
        Item(tmp_path / "a.mp4", "both", ("dog", "cat, tabby"), "train", "mine", 1.5, 2.5),
        Item(tmp_path / "b.wav", "audio", (), "train"),
    ]
    assert listing.missing == [Item(tmp_path / "gone.mp4", "video", ("dog",), "val", "", 0.0, 3.0)]
    with pytest.raises(ManifestError, match="1 of 3 files do not exist"):
        read_manifest(tmp_path / "manifest.csv")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.mp4,both,x,train,3,2", "from 3 s to 2 s is empty"),
        ("a.mp4,both,x,train,-1,", "'-1' is no time"),
        ("a.mp4,both,x,train,nan,", "'nan' is no time"),
        ("a.mp4,both", "ends before 'label'"),
    ],
)
def test_own_manifest_fails(tmp_path: Path, row: str, message: str) -> None:
    (tmp_path / "manifest.csv").write_text(f"path,modality,label,split,start_seconds,end_seconds\n{row}\n")
    with pytest.raises(ManifestError, match=message):
        read_items(tmp_path)


def test_a_folder_of_no_layout_says_which_there_are(tmp_path: Path) -> None:
    (tmp_path / "notes.csv").write_text("a,b\n")
    with pytest.raises(ManifestError) as error:
        read_items(tmp_path)
    assert all(layout.marks in str(error.value) for layout in LAYOUTS)
    with pytest.raises(ManifestError, match="no folder"):
        read_items(tmp_path / "absent")


def test_of_files_of_one_name_the_film_is_taken(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.wav", "b/x.mp4", "b/x.jpg", "a/y.MP3", "a/x.txt")
    index = FileIndex(tmp_path)
    assert index.find("absent", "x") == tmp_path / "b" / "x.mp4"
    assert index.holds(index.find("y"))
    assert not index.holds(index.find("z"))
    assert [modality_of(Path(n)) for n in ("x.MP4", "x.opus", "x.PNG")] == ["both", "audio", "video"]
